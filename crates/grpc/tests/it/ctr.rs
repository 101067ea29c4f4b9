//! Debian's `ctr`, a client that nobody here wrote, over a real socket.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use windlass_core::activation::Manager;
use windlass_core::event::{Envelope, Event, Missed, Publisher, Subscriber};
use windlass_core::filter::Filter;
use windlass_core::{Host, Labels, Listing, Namespace, Result, Scope, Services};
use windlass_grpc::server;
use windlass_snapshot::activations::Activations;

use crate::{daemon, in_memory};

/// Serves a host on a socket, for as long as the runtime lives.
async fn listen(host: &Arc<dyn Host>, directory: &Path) -> PathBuf {
    let socket = directory.join("socket");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let activations: Arc<dyn Manager> = Arc::new(Activations::open(&directory.join("mounts")).await.unwrap());
    let about: Arc<dyn windlass_core::plugin::Introspection> = Arc::new(daemon::Daemon);
    let routes = server::routes(host, &about, &activations);
    let connections = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    tokio::spawn(async move { server::builder().serve_with_incoming(routes, connections.boxed()).await });
    socket
}

fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket).args(arguments).kill_on_drop(true);
    command
}

/// Runs `ctr` and returns what it printed.
async fn ctr(socket: &Path, arguments: &[&str]) -> String {
    let output = command(socket, arguments).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "ctr {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test]
async fn version_and_plugins_are_printed() {
    let root = TempDir::new().unwrap();
    let socket = listen(&in_memory(root.path()), root.path()).await;
    let version = ctr(&socket, &["version"]).await;
    assert!(version.contains("1.2.3") && version.contains("8d9f8e7c-0000"), "{version}");
    let plugins = ctr(&socket, &["plugins", "ls"]).await;
    let status = |id: &str| {
        let line = plugins.lines().find(|line| line.split_whitespace().nth(1) == Some(id));
        line.and_then(|line| line.split_whitespace().last()).map(ToOwned::to_owned)
    };
    for (id, expected) in [("memory", "ok"), ("zfs", "skip"), ("broken", "error")] {
        assert_eq!(status(id).as_deref(), Some(expected), "{plugins}");
    }
    assert!(plugins.contains("linux/arm/v7"), "{plugins}");
}

#[tokio::test]
async fn snapshots_are_prepared_committed_viewed_and_removed() {
    let root = TempDir::new().unwrap();
    let socket = listen(&in_memory(root.path()), root.path()).await;
    let snapshots =
        async |arguments: &[&str]| ctr(&socket, &[&["snapshots", "--snapshotter", "memory"], arguments].concat()).await;
    let mounts = snapshots(&["prepare", "--mounts", "active"]).await;
    assert!(mounts.contains("bind"), "{mounts}");
    snapshots(&["commit", "base", "active"]).await;
    snapshots(&["view", "look", "base"]).await;
    let listed = snapshots(&["ls"]).await;
    assert!(listed.lines().any(|line| line.split_whitespace().eq(["base", "Committed"])), "{listed}");
    assert!(listed.lines().any(|line| line.split_whitespace().eq(["look", "base", "View"])), "{listed}");
    snapshots(&["label", "base", "a=1"]).await;
    let info = snapshots(&["info", "base"]).await;
    assert!(info.contains(r#""a": "1""#) && info.contains(r#""Kind": "Committed""#), "{info}");
    assert!(snapshots(&["usage", "base"]).await.contains("base"));
    snapshots(&["rm", "look", "base"]).await;
    assert_eq!(snapshots(&["ls"]).await.lines().count(), 1);
}

/// Starts `ctr events`, and returns its lines.
fn events(socket: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command(socket, &["events"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn events_are_decoded_and_printed() {
    let root = TempDir::new().unwrap();
    let host = in_memory(root.path());
    let socket = listen(&host, root.path()).await;
    let exchange = host.services(&Scope::default()).await.unwrap().events;
    let (_ctr, mut lines) = events(&socket);
    let publish = async {
        // Until it subscribes.
        loop {
            let event = Event::ImageCreate { name: "redis".parse().unwrap(), labels: Labels::new().with("a", "1") };
            exchange.publish(Envelope::now(Namespace::default(), event)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let printed = tokio::select! {
        () = publish => unreachable!("it goes on"),
        printed = line(&mut lines) => printed,
    };
    assert!(printed.contains(r#"default /images/create {"name":"redis","labels":{"a":"1"}}"#), "{printed}");
}

/// A host whose subscribers have missed something.
struct Slow(Arc<dyn Host>);

struct SlowEvents;

#[async_trait::async_trait]
impl Host for Slow {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        Ok(Services { events: Arc::new(SlowEvents), ..self.0.services(scope).await? })
    }
}

#[async_trait::async_trait]
impl Publisher for SlowEvents {
    async fn publish(&self, _: Envelope) -> Result<()> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl Subscriber for SlowEvents {
    async fn subscribe(&self, _: &[Filter]) -> Result<Listing<Envelope>> {
        let after = Event::NamespaceDelete { name: "gone".parse()? };
        let events = [Err(Missed(7).error()), Ok(Envelope::now(Namespace::default(), after))];
        Ok(futures::stream::iter(events).chain(futures::stream::pending()).boxed())
    }
}

/// A client that knows nothing of the topic goes on behind it.
#[tokio::test]
async fn what_was_missed_ends_no_stream_of_a_foreign_client() {
    let root = TempDir::new().unwrap();
    let host: Arc<dyn Host> = Arc::new(Slow(in_memory(root.path())));
    let socket = listen(&host, root.path()).await;
    let (_ctr, mut lines) = events(&socket);
    let missed = line(&mut lines).await;
    assert!(missed.contains("/windlass/missed") && missed.contains("7 events were missed"), "{missed}");
    let next = line(&mut lines).await;
    assert!(next.contains(r#"/namespaces/delete {"name":"gone"}"#), "{next}");
}
