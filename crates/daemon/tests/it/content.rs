//! Content stores that are processes of their own: the bytes of blobs are behind a socket, everything else is here.
//!
//! What the other store cannot do, this one cannot either: containerd 1.6 has SHA-256 alone. A reader is a series of calls, and does
//! not outlive the deletion of its blob, as with every content over the wire.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use windlass::fsck::{Fsck, remains};
use windlass::registry::{Options, Remote};
use windlass::transfer::check::{self, Status};
use windlass::transfer::{Pull, Pulled, pull};
use windlass_core::content::{self, Info, IngesterExt as _, ProviderExt as _};
use windlass_core::fsck::Problem;
use windlass_core::image::Deletion;
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{Descriptor, Digest, Host as _, Kind, Labels, Namespace, Platform, Services, lease};
use windlass_daemon::config::ProxyKind;
use windlass_daemon::{Config, Daemon, Process, content_of};
use windlass_grpc::Client;
use windlass_proto::containerd::services::content::v1::ReadContentRequest;
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;
use windlass_testkit::containerd;
use windlass_testkit::image::{Bundle, Image, Layer};

use crate::proxy::{plugins, proxy, services_of};
use crate::serving::{Place, config_below, connect, start};
use crate::transfer::serve;

/// The plugin whose place the proxy takes.
const BUILT_IN: &str = "io.containerd.content.v1.content";

/// Has a daemon keep its blobs behind a socket.
fn with_content_behind(mut config: Config, socket: &Path) -> Config {
    config.proxy_plugins.insert("blobs".to_owned(), proxy(ProxyKind::Content, socket));
    config.disabled_plugins.insert(BUILT_IN.to_owned());
    config
}

/// Has a daemon keep what nothing refers to, which would be collected at any moment.
fn without_collections(mut config: Config) -> Config {
    config.disabled_plugins.insert("io.containerd.gc.v1.scheduler".to_owned());
    config
}

/// Starts a daemon whose blobs are behind a socket, which runs as long as the test, and connects to its content.
async fn in_front_of(directory: &Path, socket: &Path) -> Arc<dyn content::Store> {
    let config = without_collections(with_content_behind(config_below(directory), socket));
    let address = config.grpc.address.clone();
    std::mem::forget(start(config).await);
    Client::new(connect(address).await).services(&Namespace::default().into()).await.unwrap().content
}

fn below(directory: &Path, name: &str) -> PathBuf {
    let below = directory.join(name);
    std::fs::create_dir(&below).unwrap();
    below
}

async fn before_ours(directory: &Path) -> Arc<dyn content::Store> {
    let behind = config_below(&below(directory, "behind"));
    let socket = behind.grpc.address.clone();
    std::mem::forget(start(behind).await);
    in_front_of(&below(directory, "front"), &socket).await
}

async fn before_containerd(directory: &Path) -> Arc<dyn content::Store> {
    let socket = containerd::start(&below(directory, "behind")).await;
    in_front_of(&below(directory, "front"), &socket).await
}

windlass_testkit::content_suite!(before_a_daemon_of_ours, async |directory: &Path| before_ours(directory).await, except [
    a_copy_continues_from_a_blob_that_is_deleted
    a_reader_outlives_the_deletion_of_its_blob
]);
windlass_testkit::content_suite!(before_debians_containerd, async |directory: &Path| before_containerd(directory).await, except [
    a_copy_continues_from_a_blob_that_is_deleted
    a_reader_outlives_the_deletion_of_its_blob
    an_algorithm_named_at_the_commit_hashes_a_resumed_ingest_too
    every_algorithm_addresses_a_blob
    expectations_can_be_declared_at_commit
]);

/// An image with a layer that is written at several places, and a small one.
fn bundle() -> Bundle {
    let mut noise = Vec::new();
    while noise.len() < 6 << 20 {
        noise.extend_from_slice(Digest::sha256(&noise.len().to_le_bytes()).hex().as_bytes());
    }
    Image::new(&Platform::host().to_string())
        .layer(Layer::new().dir("etc", 0o755).file("etc/noise", noise))
        .layer(Layer::new().file("etc/b", "b\n"))
        .build()
}

async fn pulled(daemon: &Daemon, namespace: &str, reference: &str) -> windlass_core::Result<Pulled> {
    let remote = Remote::new(Options::default()).unwrap();
    let options = Pull { snapshotter: Some("native".to_owned()), ..Pull::default() };
    let (namespace, reference): (Namespace, _) = (namespace.parse().unwrap(), reference.parse().unwrap());
    pull(daemon.engine(), &namespace, &remote, &reference, &options, &Tracker::new()).await
}

async fn there(socket: &Path) -> Services {
    let namespace: Namespace = "windlass".parse().unwrap();
    Client::new(connect(socket.to_owned()).await).services(&namespace.into()).await.unwrap()
}

async fn infos(content: &dyn content::Store) -> Vec<Info> {
    content.list(&[]).try_collect().await.unwrap()
}

async fn status(services: &Services) -> check::Checked {
    let images: Vec<_> = services.images.list(&[]).try_collect().await.unwrap();
    let [image] = images.as_slice() else { panic!("{images:?}") };
    check::check(services, image, &Selection::default(), Some("native")).await.unwrap()
}

fn blob(bytes: &'static [u8]) -> (Descriptor, Bytes) {
    (Descriptor::of("application/octet-stream", bytes), Bytes::from_static(bytes))
}

/// A pull, a restart, a second namespace, and the end of it all.
async fn pull_restart_and_remove(front: &Place, socket: &Path) {
    let (_registry, reference) = serve(&bundle());
    let config = with_content_behind(front.config(), socket);
    let daemon = start(config.clone()).await;
    let name = pulled(&daemon, "team", &reference).await.unwrap().name;
    let behind = there(socket).await;
    let infos_there = infos(&*behind.content).await;
    assert_eq!(infos_there.len(), 4, "a manifest, a config and two layers: {infos_there:?}");
    assert!(infos_there.iter().all(|info| info.labels.get("containerd.io/gc.root") == Some("windlass")));
    let here = std::fs::read_dir(front.path("root/content/blobs/sha256")).unwrap().count();
    assert_eq!((here, std::fs::read_dir(front.path("root/content/ingest")).unwrap().count()), (0, 0));
    let lease = behind.leases.create(lease::Options::default()).await.unwrap();
    behind.leases.delete(&lease.id, Deletion::Synchronous).await.unwrap();
    assert_eq!(infos(&*behind.content).await.len(), 4, "the collection there took what is kept for us");
    daemon.stop().await;

    let daemon = start(config).await;
    let services = services_of(front, "team").await;
    let checked = status(&services).await;
    assert_eq!((checked.status, checked.unpacked, checked.present), (Status::Complete, true, 4), "{checked:?}");
    pulled(&daemon, "other", &reference).await.unwrap();
    assert_eq!(infos(&*behind.content).await.len(), 4, "the same blobs are there once");
    services.images.delete(&name, Deletion::Synchronous).await.unwrap();
    assert_eq!(infos(&*services.content).await, []);
    assert_eq!(infos(&*behind.content).await.len(), 4, "the other namespace has them");
    services_of(front, "other").await.images.delete(&name, Deletion::Synchronous).await.unwrap();
    assert_eq!(infos(&*behind.content).await, [], "nobody has them any more");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_is_kept_by_a_daemon_of_ours_behind_until_nothing_refers_to_it() {
    let (behind, front) = (Place::new(), Place::new());
    let served = behind.start().await;
    Box::pin(pull_restart_and_remove(&front, &behind.socket())).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_is_kept_by_debians_containerd_behind_until_nothing_refers_to_it() {
    let (behind, front) = (tempfile::tempdir().unwrap(), Place::new());
    let socket = containerd::start(behind.path()).await;
    Box::pin(pull_restart_and_remove(&front, &socket)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_content_store_and_it_is_said_which_line_makes_it_so() {
    let (behind, front) = (Place::new(), Place::new());
    let complaint = async |config: Config| {
        let error = Daemon::start(config, Process::default()).await.err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        format!("{error} | {}", error.hint_text().unwrap())
    };
    let config = with_content_behind(front.config(), &behind.socket());
    let mut both = config.clone();
    both.disabled_plugins.clear();
    let said = complaint(both).await;
    assert!(said.contains("io.containerd.content.v1.content, io.containerd.content.v1.blobs"), "{said}");
    assert!(said.ends_with("disabled_plugins = [\"io.containerd.content.v1.content\"]"), "{said}");
    let mut two = config.clone();
    two.proxy_plugins.insert("more".to_owned(), proxy(ProxyKind::Content, &behind.socket()));
    let said = complaint(two).await;
    assert!(said.ends_with("disabled_plugins = [\"io.containerd.content.v1.more\"]"), "{said}");
    let mut none = front.config();
    none.disabled_plugins.insert(BUILT_IN.to_owned());
    let said = complaint(none).await;
    assert!(said.contains("nothing keeps content"), "{said}");

    let said = complaint(with_content_behind(front.config(), &front.socket())).await;
    assert!(said.contains("proxy plugin blobs is this daemon itself"), "{said}");

    let daemon = start(config).await;
    let listed = plugins(&front).await;
    let content: Vec<_> = listed.iter().filter(|plugin| plugin.r#type == "io.containerd.content.v1").collect();
    let ready: Vec<_> = content.iter().filter(|it| it.init_err.is_none()).map(|it| it.id.as_str()).collect();
    assert_eq!((content.len(), ready), (2, vec!["blobs"]), "{content:?}");
    daemon.stop().await;

    // One of its own name takes its place in the list, too.
    let (mut config, other) = (front.config(), Place::new());
    config.root = other.path("root");
    config.proxy_plugins.insert("content".to_owned(), proxy(ProxyKind::Content, &behind.socket()));
    config.disabled_plugins.insert(BUILT_IN.to_owned());
    let daemon = start(config).await;
    let listed = plugins(&front).await;
    let content: Vec<_> = listed.iter().filter(|plugin| plugin.r#type == "io.containerd.content.v1").collect();
    assert!(content.len() == 1 && content[0].init_err.is_none() && content[0].exports["root"] == "/elsewhere");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_that_does_not_run_is_named_and_nothing_is_lost_by_it() {
    let (behind, front) = (Place::new(), Place::new());
    let daemon = start(with_content_behind(front.config(), &behind.socket())).await;
    let services = services_of(&front, "team").await;
    let labels = || Labels::new().with("containerd.io/gc.root", "test");
    let named = |error: windlass_core::Error| {
        assert_eq!(error.kind(), Kind::Aborted, "{error}");
        let wanted = format!("content store blobs at {}", behind.socket().display());
        assert!(error.to_string().contains(&wanted), "{error}");
    };
    // At the start: what is here is answered, what is there is not.
    let (first, bytes) = blob(b"first");
    assert_eq!(infos(&*services.content).await, []);
    named(services.content.write_blob(&first, bytes.clone(), labels()).await.unwrap_err());
    let (_registry, reference) = serve(&bundle());
    named(pulled(&daemon, "team", &reference).await.err().unwrap());

    let served = behind.start().await;
    services.content.write_blob(&first, bytes, labels()).await.unwrap();
    assert_eq!(services.content.read_all(&first, 10).await.unwrap(), "first");

    // At the commit: what was brought stays, and is committed when it runs again.
    let key = "key".parse().unwrap();
    let mut writer = services.content.writer(&key, content::Expected::default()).await.unwrap();
    let large: Bytes = vec![7; 3 << 20].into();
    writer.write(large.clone()).await.unwrap();
    writer.status().await.unwrap();
    served.stop().await;
    named(writer.commit(content::Commit::default()).await.unwrap_err());
    assert_eq!(services.content.status(&key).await.unwrap().offset, 3 << 20);
    // At a read, and at a removal.
    named(services.content.reader(&first).await.unwrap().read_at(0, 5).await.unwrap_err());
    named(services.content.delete(&first.digest).await.unwrap_err());
    named(daemon.engine().collector().collect().await.unwrap_err());

    let served = behind.start().await;
    let mut writer = services.content.writer(&key, content::Expected::default()).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset, 3 << 20);
    let commit = content::Commit { labels: labels(), ..content::Commit::default() };
    let info = writer.commit(commit).await.unwrap();
    let large = Descriptor::of("application/octet-stream", &large);
    assert_eq!(info.digest, large.digest);
    services.content.verify(&large).await.unwrap();
    daemon.engine().collector().collect().await.unwrap();
    let left: Vec<_> = infos(&*there(&behind.socket()).await.content).await;
    assert_eq!(left.into_iter().map(|info| info.digest).collect::<Vec<_>>(), [large.digest], "{} went", first.digest);
    daemon.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vanished_behind_is_found_by_checks_and_fetched_again_by_a_repair() {
    let (behind, front) = (Place::new(), Place::new());
    let served = behind.start().await;
    let bundle = bundle();
    let (_registry, reference) = serve(&bundle);
    let config = with_content_behind(front.config(), &behind.socket());
    let daemon = start(config.clone()).await;
    pulled(&daemon, "team", &reference).await.unwrap();
    let services = services_of(&front, "team").await;
    let layer = bundle.image().layers[0].clone();
    there(&behind.socket()).await.content.delete(&layer.digest).await.unwrap();
    let error = services.content.read_all(&layer, 16 << 20).await.unwrap_err();
    assert!(error.is(Kind::DataLoss) && error.to_string().contains("content store blobs at"), "{error}");
    let checked = status(&services).await;
    assert_eq!((checked.status, checked.missing.len()), (Status::Incomplete, 1), "{checked:?}");
    assert_eq!(checked.missing[0].digest, layer.digest);
    daemon.stop().await;

    let root = front.path("root");
    let wait = windlass::LockWait::UpTo(Duration::from_secs(10));
    let fsck = || Fsck::new(&root).lock_wait(wait).content(content_of(&root).unwrap().unwrap());
    let found = fsck().check(&Tracker::new()).await.unwrap();
    let missing = Problem::BlobMissing { digest: layer.digest.clone(), size: layer.size };
    assert_eq!(found.iter().map(|finding| &finding.problem).collect::<Vec<_>>(), [&missing], "{found:?}");
    let repaired = fsck().repair(&Remote::new(Options::default()).unwrap(), &Tracker::new()).await.unwrap();
    assert!(!repaired.iter().any(remains), "{repaired:?}");
    let daemon = start(config).await;
    assert_eq!(status(&services_of(&front, "team").await).await.status, Status::Complete);
    daemon.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_client_has_open_is_read_by_the_daemon() {
    let place = Place::new();
    let daemon = place.start().await;
    let content = place.services().await.content;
    let file = Arc::new(tempfile::tempfile().unwrap());
    let bytes = Bytes::from(vec![7; 9 << 20]);
    file.write_all_at(&bytes, 0).unwrap();
    let mut writer = content.writer(&"file".parse().unwrap(), content::Expected::default()).await.unwrap();
    assert!(writer.write_file(&file, 0..5 << 20).await.unwrap());
    assert!(!writer.write_file(&file, 5 << 20..5 << 20 | 7).await.unwrap(), "so little is sent");
    assert!(writer.write_file(&file, 5 << 20..9 << 20).await.unwrap());
    let info = writer.commit(content::Commit::default()).await.unwrap();
    assert_eq!((info.digest, info.size), (Digest::sha256(&bytes), 9 << 20));
    daemon.stop().await;
}

/// How often this process, which is both ends, has a blob open.
fn times_open(digest: &Digest) -> usize {
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().contains(digest.hex())).count()
}

/// Waits until this process has a blob open no more.
async fn closed(digest: &Digest) {
    let closed = async {
        while times_open(digest) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), closed).await.is_ok(), "both ends close it");
}

/// Connects as the command does, and returns the content of the default namespace.
async fn content_at(socket: &Path) -> Arc<dyn content::Store> {
    let client = Client::connect(socket).await.unwrap();
    client.services(&Namespace::default().into()).await.unwrap().content
}

/// Makes a blob of three MiB.
async fn sevens(content: &dyn content::Store) -> Descriptor {
    let bytes = Bytes::from(vec![7; 3 << 20]);
    let blob = Descriptor::of("application/octet-stream", &bytes);
    content.write_blob(&blob, bytes, Labels::new()).await.unwrap();
    blob
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_read_on_is_read_from_the_daemons_file() {
    let place = Place::new();
    let daemon = start(without_collections(place.config())).await;
    let content = content_at(&place.socket()).await;
    let bytes: Bytes = (0..5_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<u8>>().into();
    let blob = Descriptor::of("application/octet-stream", &bytes);
    content.write_blob(&blob, bytes.clone(), Labels::new()).await.unwrap();
    let reader = content.reader(&blob).await.unwrap();
    assert_eq!(reader.read_at(0, 1_000_000).await.unwrap(), bytes.slice(..1_000_000));
    assert!(reader.in_file().is_none(), "nobody read on");
    assert_eq!(reader.read_at(1_000_000, 2_000_000).await.unwrap(), bytes.slice(1_000_000..3_000_000));
    let place_of_it = reader.in_file().expect("its file is open");
    assert_eq!((place_of_it.begin, place_of_it.file.metadata().unwrap().len()), (0, 5_000_000));
    assert!(place_of_it.file.write_at(b"x", 0).is_err(), "it can be read only");
    content.delete(&blob.digest).await.unwrap();
    assert_eq!(reader.read_at(3_000_000, 9_000_000).await.unwrap(), bytes.slice(3_000_000..));
    assert_eq!(reader.read_at(5_000_000, 1).await.unwrap(), Bytes::new());
    assert!(times_open(&blob.digest) > 0, "it is looked for where it is");
    drop((reader, place_of_it));
    closed(&blob.digest).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ask_for_files_and_take_none_hold_nobody_up_and_leave_none_open() {
    let place = Place::new();
    let daemon = start(without_collections(place.config())).await;
    let content = content_at(&place.socket()).await;
    let blob = sevens(&*content).await;
    let mut client = ContentClient::new(place.channel().await);
    let mut answers = Vec::new();
    for _ in 0..200 {
        let mut request = tonic::Request::new(ReadContentRequest {
            digest: blob.digest.to_string(),
            ..ReadContentRequest::default()
        });
        request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
        request.metadata_mut().insert("windlass-file", "1".parse().unwrap());
        let answer = client.read(request).await.unwrap();
        assert!(answer.metadata().get_bin("windlass-file-bin").is_some());
        answers.push(answer);
    }
    assert_eq!(times_open(&blob.digest), 200);
    assert_eq!(content.info(&blob.digest).await.unwrap().size, blob.size);
    drop(answers);
    closed(&blob.digest).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_daemon_that_became_shorter_is_an_error() {
    let place = Place::new();
    let daemon = start(without_collections(place.config())).await;
    let content = content_at(&place.socket()).await;
    let blob = sevens(&*content).await;
    let reader = content.reader(&blob).await.unwrap();
    for offset in [0, 1 << 20] {
        reader.read_at(offset, 1 << 20).await.unwrap();
    }
    let path = place.path("root/content/blobs/sha256").join(blob.digest.hex());
    std::fs::File::options().write(true).open(path).unwrap().set_len(2 << 20).unwrap();
    let error = reader.read_at(2 << 20, 1 << 20).await.unwrap_err();
    assert!(error.is(Kind::DataLoss) && error.to_string().contains(blob.digest.hex()), "{error}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_daemon_has_in_no_file_is_read_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let [behind, front] =
        ["behind", "front"].map(|name| without_collections(config_below(&below(directory.path(), name))));
    let config = with_content_behind(front, &behind.grpc.address);
    let (socket, behind, front) = (config.grpc.address.clone(), start(behind).await, start(config).await);
    let content = content_at(&socket).await;
    let blob = sevens(&*content).await;
    for _ in 0..2 {
        let reader = content.reader(&blob).await.unwrap();
        for offset in [0, 1 << 20, 2 << 20] {
            assert_eq!(reader.read_at(offset, 1 << 20).await.unwrap(), vec![7; 1 << 20]);
        }
        assert!(reader.in_file().is_none());
    }
    front.stop().await;
    behind.stop().await;
}
