//! Snapshotters and differs that are processes of their own, what daemons say of plugins, and events that shims forward.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use windlass::transfer::Pull;
use windlass_core::content::IngesterExt as _;
use windlass_core::diff::{Applied, Whiteouts};
use windlass_core::image::Deletion;
use windlass_core::progress::Tracker;
use windlass_core::snapshot::{Mount, Snapshotter};
use windlass_core::{Host as _, Kind, Labels, Namespace, Platform, Services};
use windlass_daemon::config::{ProxyKind, ProxyPlugin};
use windlass_daemon::{Daemon, Process};
use windlass_grpc::Client;
use windlass_proto::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use windlass_proto::containerd::services::introspection::v1::{Plugin, PluginsRequest};
use windlass_testkit::image::{Image, Layer};

use crate::serving::{Place, start};

pub(crate) fn proxy(kind: ProxyKind, address: &std::path::Path) -> ProxyPlugin {
    ProxyPlugin {
        kind,
        address: address.to_owned(),
        platforms: Vec::new(),
        exports: [("root".to_owned(), "/elsewhere".to_owned())].into(),
        capabilities: Vec::new(),
    }
}

pub(crate) async fn plugins(place: &Place) -> Vec<Plugin> {
    let mut client = IntrospectionClient::new(place.channel().await);
    client.plugins(PluginsRequest::default()).await.unwrap().into_inner().plugins
}

async fn keys(snapshotter: &dyn Snapshotter) -> Vec<String> {
    snapshotter.walk(&[]).map_ok(|info| info.key.to_string()).try_collect().await.unwrap()
}

pub(crate) async fn services_of(place: &Place, namespace: &str) -> Services {
    let namespace: Namespace = namespace.parse().unwrap();
    Client::new(place.channel().await).services(&namespace.into()).await.unwrap()
}

/// Has a daemon keep its native snapshots in another one.
fn with_native_behind(front: &Place, behind: &Place) -> windlass_daemon::Config {
    let mut config = front.config();
    config.proxy_plugins.insert("native".to_owned(), proxy(ProxyKind::Snapshot, &behind.socket()));
    config.disabled_plugins.insert("io.containerd.snapshotter.v1.native".to_owned());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_takes_the_place_of_a_plugin_that_is_left_out_and_of_no_other() {
    let (behind, front) = (Place::new(), Place::new());
    let served = behind.start().await;
    let mut config = with_native_behind(&front, &behind);
    config.proxy_plugins.insert("elsewhere".to_owned(), proxy(ProxyKind::Snapshot, &behind.socket()));
    let mut twice = config.clone();
    twice.disabled_plugins.clear();
    let twice = Daemon::start(twice, Process::default()).await.err().unwrap();
    assert!(twice.to_string().contains("two plugins io.containerd.snapshotter.v1.native"), "{twice}");
    let daemon = start(config).await;
    let listed = plugins(&front).await;
    let find = |id: &str| listed.iter().find(|plugin| plugin.id == id).unwrap();
    assert_eq!(find("native").r#type, "io.containerd.snapshotter.v1");
    assert!(find("native").init_err.is_none() && find("native").exports["root"] == "/elsewhere");
    let services = services_of(&front, "team").await;
    let absent = services.snapshotters["elsewhere"].prepare(&"a".parse().unwrap(), None, Labels::new()).await;
    assert!(absent.is_err(), "there is no snapshotter of that name behind");
    daemon.stop().await;
    served.stop().await;
}

/// The one in front keeps records, namespaces and decides what is garbage; what is behind keeps the files, and collects as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_behind_survives_the_collections_there_and_is_collected_from_in_front() {
    let (behind, front) = (Place::new(), Place::new());
    let mut config = behind.config();
    config.gc.deletion_threshold = 1;
    config.gc.schedule_delay = Duration::ZERO;
    let served = start(config).await;
    let daemon = start(with_native_behind(&front, &behind)).await;
    let layout = tempfile::tempdir().unwrap();
    let bundle = Image::new(&Platform::host().to_string())
        .layer(Layer::new().dir("etc", 0o755).file("etc/a", "a\n"))
        .layer(Layer::new().file("etc/b", "b\n"))
        .build();
    bundle.write_layout(layout.path(), "1").unwrap();
    let reference = format!("oci:{}:1", layout.path().display()).parse().unwrap();
    let remote = windlass::registry::Remote::new(windlass::registry::Options::default()).unwrap();
    let team: Namespace = "team".parse().unwrap();
    let options = Pull { snapshotter: Some("native".to_owned()), ..Pull::default() };
    let tracker = Tracker::new();
    let pulled =
        windlass::transfer::pull(daemon.engine(), &team, &remote, &reference, &options, &tracker).await.unwrap();

    let services = services_of(&front, "team").await;
    let native = &services.snapshotters["native"];
    let labels = Labels::new().with("containerd.io/gc.root", "test");
    native
        .prepare(&"work".parse().unwrap(), Some(&pulled.snapshots[0].to_string().parse().unwrap()), labels)
        .await
        .unwrap();
    let there = services_of(&behind, "windlass").await;
    let inner = &there.snapshotters["native"];
    assert_eq!(keys(&**native).await.len(), 3);
    assert_eq!(keys(&**inner).await.len(), 3);
    // Something of it goes, which is a reason for it to collect; then it is told to.
    inner.prepare(&"foreign".parse().unwrap(), None, Labels::new()).await.unwrap();
    inner.remove(&"foreign".parse().unwrap()).await.unwrap();
    there.collector().unwrap().collect().await.unwrap();
    assert_eq!(keys(&**inner).await.len(), 3, "the daemon behind took them for garbage");
    let mounts = native.mounts(&"work".parse().unwrap()).await.unwrap();
    assert_eq!(std::fs::read_to_string(std::path::Path::new(&mounts[0].source).join("etc/b")).unwrap(), "b\n");
    let shown = native.stat(&"work".parse().unwrap()).await.unwrap().labels;
    assert_eq!(shown, Labels::new().with("containerd.io/gc.root", "test"), "labels are those of the one in front");

    let other = services_of(&front, "default").await;
    assert_eq!(keys(&*other.snapshotters["native"]).await, Vec::<String>::new(), "another namespace does not see it");
    native.remove(&"work".parse().unwrap()).await.unwrap();
    services.images.delete(&pulled.name, Deletion::Synchronous).await.unwrap();
    assert_eq!(keys(&**native).await, Vec::<String>::new(), "nothing kept it");
    assert_eq!(keys(&**inner).await, Vec::<String>::new(), "and what is behind went too");
    daemon.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differs_are_asked_in_their_order_until_one_can_do_it() {
    let (behind, front) = (Place::new(), Place::new());
    let served = behind.start().await;
    let mut config = front.config();
    config.proxy_plugins.insert("elsewhere".to_owned(), proxy(ProxyKind::Diff, &behind.socket()));
    config.diff.default = vec!["elsewhere".to_owned(), "of nobody".to_owned(), "walking".to_owned()];
    let daemon = start(config.clone()).await;
    let listed = plugins(&front).await;
    let differ = listed.iter().find(|plugin| plugin.id == "elsewhere").unwrap();
    assert!(differ.r#type == "io.containerd.differ.v1" && differ.init_err.is_none(), "{differ:?}");

    let bundle = Image::new(&Platform::host().to_string()).layer(Layer::new().file("a", "a\n")).build();
    let layer = bundle.image().layers[0].clone();
    let bytes = bundle.blobs[&layer.digest].clone();
    let kept = || Labels::new().with("containerd.io/gc.root", "test");
    let apply = async |services: &Services| {
        let directory = tempfile::tempdir().unwrap();
        let mount = Mount {
            kind: "bind".into(),
            source: directory.path().display().to_string(),
            target: String::new(),
            options: vec!["rbind".into(), "rw".into()],
        };
        let applied = services.applier.apply(&*services.content, &layer, &[mount], Whiteouts::AsMounted, None).await?;
        let Applied::Complete { diff_id, .. } = applied else { panic!("{applied:?}") };
        assert_eq!(std::fs::read_to_string(directory.path().join("a")).unwrap(), "a\n");
        Ok::<_, windlass_core::Error>(diff_id)
    };
    // The daemon behind reads the layer from its own content, which only it has: so it was the one that applied it.
    let (here, there) = (services_of(&front, "team").await, services_of(&behind, "team").await);
    assert!(apply(&here).await.unwrap_err().is(Kind::NotFound));
    there.content.write_blob(&layer, bytes.clone(), kept()).await.unwrap();
    let diff_id = apply(&here).await.unwrap();
    served.stop().await;

    // One that has no differ leaves it to the next one, which reads what is here.
    let mut without = behind.config();
    without.disabled_plugins.insert("io.containerd.grpc.v1.diff".to_owned());
    let served = start(without).await;
    here.content.write_blob(&layer, bytes, kept()).await.unwrap();
    assert_eq!(apply(&here).await.unwrap(), diff_id);
    served.stop().await;
    assert!(apply(&here).await.unwrap_err().is(Kind::Unavailable), "one that does not run is an error");
    daemon.stop().await;
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
    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.namespace.as_str(), event.event.topic()), ("k8s.io", "/tasks/exit"));
    daemon.stop().await;
}
