//! Snapshotters that are processes of their own, what daemons say of plugins, and events that shims forward.

use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use windlass_core::snapshot::{Commit, Snapshotter};
use windlass_core::{Host as _, Labels, Namespace, Services};
use windlass_daemon::config::{ProxyKind, ProxyPlugin};
use windlass_daemon::{Daemon, Process};
use windlass_grpc::Client;
use windlass_proto::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use windlass_proto::containerd::services::introspection::v1::{Plugin, PluginsRequest};

use crate::serving::{Place, start};

fn proxy(kind: ProxyKind, address: &std::path::Path) -> ProxyPlugin {
    ProxyPlugin {
        kind,
        address: address.to_owned(),
        platforms: Vec::new(),
        exports: [("root".to_owned(), "/elsewhere".to_owned())].into(),
        capabilities: Vec::new(),
    }
}

async fn plugins(place: &Place) -> Vec<Plugin> {
    let mut client = IntrospectionClient::new(place.channel().await);
    client.plugins(PluginsRequest::default()).await.unwrap().into_inner().plugins
}

async fn keys(snapshotter: &dyn Snapshotter) -> Vec<String> {
    snapshotter.walk(&[]).map_ok(|info| info.key.to_string()).try_collect().await.unwrap()
}

async fn services_of(place: &Place, namespace: &str) -> Services {
    let namespace: Namespace = namespace.parse().unwrap();
    Client::new(place.channel().await).services(&namespace.into()).await.unwrap()
}

/// The one in front keeps records, namespaces and garbage collection; what is behind keeps the files.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_serves_as_the_snapshotter_of_another() {
    let (behind, front) = (Place::new(), Place::new());
    let served = behind.start().await;
    let mut config = front.config();
    config.proxy_plugins.insert("native".to_owned(), proxy(ProxyKind::Snapshot, &behind.socket()));
    config.proxy_plugins.insert("blobs".to_owned(), proxy(ProxyKind::Content, &behind.socket()));
    config.disabled_plugins.insert("io.containerd.snapshotter.v1.native".to_owned());
    let twice = Daemon::start(config, Process::default()).await.err().unwrap();
    assert!(twice.to_string().contains("two plugins io.containerd.snapshotter.v1.native"), "{twice}");
    let mut config = front.config();
    config.proxy_plugins.insert("erofs2".to_owned(), proxy(ProxyKind::Snapshot, &behind.socket()));
    config.proxy_plugins.insert("blobs".to_owned(), proxy(ProxyKind::Content, &behind.socket()));
    let daemon = start(config).await;
    let listed = plugins(&front).await;
    let find = |id: &str| listed.iter().find(|plugin| plugin.id == id).unwrap();
    assert_eq!(find("erofs2").r#type, "io.containerd.snapshotter.v1");
    assert!(find("erofs2").init_err.is_none() && find("erofs2").exports["root"] == "/elsewhere");
    assert!(find("blobs").init_err.as_ref().unwrap().message.contains("skip plugin"));
    daemon.stop().await;

    // By its own name behind, which is that of the plugin.
    let mut config = front.config();
    config.snapshots.default = Some("overlayfs".to_owned());
    let mut named = proxy(ProxyKind::Snapshot, &behind.socket());
    named.capabilities = vec!["rebase".to_owned()];
    config.proxy_plugins.insert("elsewhere".to_owned(), named);
    let daemon = start(config).await;
    let services = services_of(&front, "team").await;
    let absent = services.snapshotters["elsewhere"].prepare(&"a".parse().unwrap(), None, Labels::new()).await;
    assert!(absent.is_err(), "there is no snapshotter of that name behind");
    daemon.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_behind_has_records_and_namespaces_in_front_and_is_collected() {
    let (behind, front) = (Place::new(), Place::new());
    // Nothing behind refers to what the one in front keeps there.
    let mut config = behind.config();
    config.disabled_plugins.insert("io.containerd.gc.v1.scheduler".to_owned());
    let served = start(config).await;
    let engine = windlass::Engine::builder(front.path("root"))
        .snapshotter("native", foreign(&behind, "native").await)
        .open()
        .await
        .unwrap();
    let team: Namespace = "team".parse().unwrap();
    let native = engine.services(&team.into()).await.unwrap().snapshotters["native"].clone();
    native.prepare(&"a".parse().unwrap(), None, Labels::new()).await.unwrap();
    native.commit(&"layer".parse().unwrap(), &"a".parse().unwrap(), Commit::default()).await.unwrap();
    assert_eq!(keys(&*native).await, ["layer"]);
    let inner = services_of(&behind, "windlass").await.snapshotters["native"].clone();
    let there = keys(&*inner).await;
    assert!(there.len() == 1 && there[0].starts_with("team/"), "{there:?}");
    let other = engine.services(&Namespace::default().into()).await.unwrap().snapshotters["native"].clone();
    assert_eq!(keys(&*other).await, Vec::<String>::new(), "another namespace does not see it");
    engine.collector().collect().await.unwrap();
    assert_eq!(keys(&*native).await, Vec::<String>::new(), "nothing kept it");
    assert_eq!(keys(&*inner).await, Vec::<String>::new());
    served.stop().await;
}

async fn foreign(behind: &Place, name: &str) -> std::sync::Arc<dyn Snapshotter> {
    services_of(behind, "windlass").await.snapshotters.remove(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_shim_forwards_arrive_at_subscribers() {
    let place = Place::new();
    let daemon = place.start().await;
    let services = services_of(&place, "k8s.io").await;
    let mut events = services.events.subscribe(&["topic==/tasks/exit".parse().unwrap()]).await.unwrap();
    let envelope = windlass_proto::containerd::types::Envelope {
        timestamp: Some(std::time::SystemTime::now().into()),
        namespace: "k8s.io".into(),
        topic: "/tasks/exit".into(),
        event: Some(prost_types::Any { type_url: "containerd.events.TaskExit".into(), value: vec![8, 1] }),
    };
    let forward = windlass_proto::containerd::services::events::ttrpc::v1::ForwardRequest { envelope: Some(envelope) }
        .encode_to_vec();
    let mut request = Vec::new();
    for (tag, text) in [(0x0a_u8, "containerd.services.events.ttrpc.v1.Events"), (0x12, "Forward")] {
        request.extend([tag, u8::try_from(text.len()).unwrap()]);
        request.extend(text.as_bytes());
    }
    request.extend([0x1a, u8::try_from(forward.len()).unwrap()]);
    request.extend(forward);
    let mut stream = tokio::net::UnixStream::connect(place.path("run/windlass.sock.ttrpc")).await.unwrap();
    let mut frame = u32::try_from(request.len()).unwrap().to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 1, 1, 0]);
    frame.extend(request);
    stream.write_all(&frame).await.unwrap();
    let mut header = [0; 10];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 1, 2, 0], "an answer without an error");
    let event = tokio::time::timeout(std::time::Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.namespace.as_str(), event.event.topic()), ("k8s.io", "/tasks/exit"));
    daemon.stop().await;
}
