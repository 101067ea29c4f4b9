//! Pulls onto a real root: mounted trees, roots that change hands, pulls that died.

use std::path::Path;

use futures::TryStreamExt;
use tempfile::TempDir;
use windlass::core::content::{FETCH_AGAIN, IngesterExt};
use windlass::core::progress::{State, Tracker};
use windlass::core::snapshot::Key;
use windlass::core::{
    Descriptor, Digest, Host, Kind, Labels, Namespace, Platform, Reference, Services, lease, snapshot,
};
use windlass::transfer::{self, Pull, Pulled, rootfs};
use windlass::{EROFS, Engine, LockWait, NATIVE, OVERLAYFS, mount};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::memory::{Fault, Gate, Remote};

const REFERENCE: &str = "registry.test/app:1";

fn bundle() -> Bundle {
    Image::new(&Platform::host().to_string())
        .layer(Layer::new().dir("etc", 0o755).file("etc/keep", "kept\n").file("etc/gone", "gone\n"))
        .layer(Layer::new().dir("bin", 0o755).file("bin/tool", "tool\n").mode(0o4755).owner(1, 2))
        .layer(Layer::new().dir("etc", 0o750).whiteout("etc/gone").hardlink("bin/same", "bin/tool"))
        .build()
}

fn remote(bundle: &Bundle) -> Remote {
    let remote = Remote::new();
    remote.serve(&REFERENCE.parse().unwrap(), bundle);
    remote
}

async fn pull(engine: &Engine, remote: &Remote, namespace: &str, options: &Pull) -> Pulled {
    let (namespace, reference): (Namespace, Reference) = (namespace.parse().unwrap(), REFERENCE.parse().unwrap());
    transfer::pull(engine, &namespace, remote, &reference, options, &Tracker::new()).await.unwrap()
}

async fn services(engine: &Engine, namespace: &str) -> Services {
    engine.services(&namespace.parse::<Namespace>().unwrap().into()).await.unwrap()
}

/// Mounts the image read-only, looks at it, and takes the view away again.
async fn look(services: &Services, snapshotter: &str, check: impl FnOnce(&Path)) {
    let target = TempDir::new().unwrap();
    let key: Key = "look".parse().unwrap();
    let name = REFERENCE.parse().unwrap();
    let mounts =
        rootfs::view(services, &name, &Platform::host(), Some(snapshotter), &key, Labels::new()).await.unwrap();
    mount::mount_all(&mounts, target.path()).unwrap();
    check(target.path());
    mount::unmount(target.path()).unwrap();
    services.snapshotters.get(snapshotter).unwrap().remove(&key).await.unwrap();
}

fn check_tree(root: &Path) {
    use std::os::unix::fs::MetadataExt;
    let metadata = |path: &str| std::fs::symlink_metadata(root.join(path));
    assert_eq!(std::fs::read_to_string(root.join("etc/keep")).unwrap(), "kept\n");
    assert!(metadata("etc/gone").is_err());
    assert_eq!(metadata("etc").unwrap().mode() & 0o7777, 0o750);
    let tool = metadata("bin/tool").unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.uid(), tool.gid()), (0o4755, 1, 2));
    assert_eq!(std::fs::read_to_string(root.join("bin/same")).unwrap(), "tool\n");
    assert_eq!(std::fs::write(root.join("new"), "x").unwrap_err().raw_os_error(), Some(30));
}

#[tokio::test]
async fn a_pulled_image_mounts_as_its_layers_say_with_every_snapshotter() {
    let root = TempDir::new().unwrap();
    let engine = Engine::open(root.path().join("root")).await.unwrap();
    let remote = remote(&bundle());
    for snapshotter in [OVERLAYFS, EROFS, NATIVE] {
        let options = Pull { snapshotter: Some(snapshotter.to_owned()), ..Pull::default() };
        pull(&engine, &remote, "default", &options).await;
        look(&services(&engine, "default").await, snapshotter, check_tree).await;
    }
}

#[tokio::test]
async fn another_namespace_downloads_nothing_that_is_here() {
    let root = TempDir::new().unwrap();
    let engine = Engine::open(root.path().join("root")).await.unwrap();
    let bundle = bundle();
    let remote = remote(&bundle);
    pull(&engine, &remote, "default", &Pull::default()).await;
    let again = pull(&engine, &remote, "other", &Pull::default()).await;

    for layer in &bundle.image().layers {
        assert_eq!(remote.fetches(&layer.digest).len(), 1);
    }
    assert_eq!(again.totals.downloaded + again.totals.reused, bundle.size());
    look(&services(&engine, "other").await, OVERLAYFS, check_tree).await;
}

#[tokio::test]
async fn what_was_pulled_is_there_after_the_root_changed_hands() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("root");
    let remote = remote(&bundle());
    let engine = Engine::open(&path).await.unwrap();
    pull(&engine, &remote, "default", &Pull::default()).await;
    assert_eq!(Engine::open(&path).await.err().unwrap().kind(), Kind::Unavailable);
    drop(engine);

    let engine = Engine::open(&path).await.unwrap();
    let again = pull(&engine, &remote, "default", &Pull::default()).await;
    assert_eq!(again.totals.downloaded, 0);
    look(&services(&engine, "default").await, OVERLAYFS, check_tree).await;
}

#[tokio::test]
async fn a_pull_that_died_leaves_its_blobs_and_no_snapshot_and_the_next_one_continues() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("root");
    let bundle = bundle();
    let remote = remote(&bundle);
    let gate = Gate::new();
    let [bottom, middle, _] = bundle.image().layers.as_slice() else { panic!("three layers") };
    remote.script(&bottom.digest, [Fault::Hold(gate.clone())]);

    let engine = Engine::open(&path).await.unwrap();
    let progress = Tracker::new();
    let (namespace, reference): (Namespace, Reference) = (Namespace::default(), REFERENCE.parse().unwrap());
    let options = Pull::default();
    let pulling = transfer::pull(&engine, &namespace, &remote, &reference, &options, &progress);
    let waits_below = async {
        let id = middle.ingest_ref().to_string();
        let waits = |tracker: &Tracker| {
            tracker.snapshot().iter().any(|object| object.id == id && matches!(object.state, State::Waiting { .. }))
        };
        while !waits(&progress) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        pulled = pulling => panic!("the pull ended: {pulled:?}"),
        () = waits_below => {}
    }
    let held = services(&engine, "default").await;
    let unfinished: Vec<_> = held.snapshotters.get(OVERLAYFS).unwrap().walk(&[]).try_collect().await.unwrap();
    assert!(!unfinished.is_empty());
    drop((held, engine));

    // The tasks of the dropped pull let go of the root when they come to their end.
    let wait = LockWait::UpTo(std::time::Duration::from_secs(10));
    let engine = Engine::builder(&path).lock_wait(wait).open().await.unwrap();
    let held = services(&engine, "default").await;
    let left: Vec<_> = held.snapshotters.get(OVERLAYFS).unwrap().walk(&[]).try_collect().await.unwrap();
    assert_eq!(left, []);
    assert!(held.content.info(&middle.digest).await.is_ok());
    assert!(held.images.get(&REFERENCE.parse().unwrap()).await.is_err());

    gate.open();
    pull(&engine, &remote, "default", &Pull::default()).await;
    assert_eq!(remote.fetches(&middle.digest).len(), 1);
    look(&held, OVERLAYFS, check_tree).await;
}

#[tokio::test]
async fn what_expired_while_nobody_had_the_root_is_gone_when_it_is_opened() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("root");
    let engine = Engine::open(&path).await.unwrap();
    let expiry = Some(std::time::Duration::from_millis(1));
    let leases = services(&engine, "default").await.leases;
    let options = |expiry| lease::Options { expiry, ..lease::Options::default() };
    leases.create(options(expiry)).await.unwrap();
    let kept = leases.create(options(None)).await.unwrap();
    drop((engine, leases));
    std::thread::sleep(std::time::Duration::from_millis(5));
    let engine = Engine::builder(&path).lock_wait(LockWait::Forever).open().await.unwrap();
    assert_eq!(services(&engine, "default").await.leases.list(&[]).await.unwrap(), [kept]);
}

#[tokio::test]
async fn layers_that_a_dead_pull_unpacked_are_kept_and_half_made_ones_are_not() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("root");
    let engine = Engine::open(&path).await.unwrap();
    let labels = Labels::new().with(transfer::pull::LEASE_LABEL, REFERENCE);
    let options = lease::Options { labels, ..lease::Options::default() };
    let lease = services(&engine, "default").await.leases.create(options).await.unwrap();
    let scope = windlass::core::Scope { lease: Some(lease.id), ..windlass::core::Scope::default() };
    let pulling = engine.services(&scope).await.unwrap();
    let snapshotter = &pulling.snapshotters[NATIVE];
    let key = |text: &str| text.parse::<Key>().unwrap();
    snapshotter.prepare(&key("one"), None, Labels::new()).await.unwrap();
    snapshotter.commit(&"layer".parse().unwrap(), &key("one"), snapshot::Commit::default()).await.unwrap();
    snapshotter.prepare(&key("two"), Some(&"layer".parse().unwrap()), Labels::new()).await.unwrap();
    drop((engine, pulling));

    let engine = Engine::builder(&path).lock_wait(LockWait::Forever).open().await.unwrap();
    engine.collector().collect().await.unwrap();
    let snapshotter = services(&engine, "default").await.snapshotters[NATIVE].clone();
    snapshotter.stat(&key("layer")).await.unwrap();
    assert!(snapshotter.stat(&key("two")).await.unwrap_err().is(Kind::NotFound));
}

#[tokio::test]
async fn what_workflows_that_begin_anew_made_is_gone_with_their_process() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("root");
    let engine = Engine::open(&path).await.unwrap();
    let labels = [
        transfer::import::LEASE_LABEL,
        transfer::export::LEASE_LABEL,
        transfer::convert::LEASE_LABEL,
        transfer::present::LEASE_LABEL,
        transfer::difference::LEASE_LABEL,
        transfer::push::LEASE_LABEL,
    ];
    let key = |text: &str| text.parse::<Key>().unwrap();
    for (at, label) in labels.into_iter().enumerate() {
        let options = lease::Options { labels: Labels::new().with(label, "x"), ..lease::Options::default() };
        let lease = services(&engine, "team").await.leases.create(options).await.unwrap();
        let scope = windlass::core::Scope { namespace: "team".parse().unwrap(), lease: Some(lease.id) };
        let working = engine.services(&scope).await.unwrap();
        let bytes = format!("made by {label}").into_bytes();
        let blob = Descriptor::of("x/y", &bytes);
        working.content.write_blob(&blob, bytes.into(), Labels::new()).await.unwrap();
        let snapshotter = &working.snapshotters[NATIVE];
        snapshotter.prepare(&key(&format!("active-{at}")), None, Labels::new()).await.unwrap();
    }
    // Whoever holds it otherwise has it for as long as he says.
    let other = services(&engine, "team").await.leases.create(lease::Options::default()).await.unwrap();
    let held = Descriptor::of("x/y", format!("made by {}", labels[0]).as_bytes());
    let resource = lease::Resource { kind: lease::ResourceKind::Content, id: held.digest.to_string() };
    services(&engine, "team").await.leases.add_resource(&other.id, &resource).await.unwrap();
    drop(engine);

    let engine = Engine::builder(&path).lock_wait(LockWait::Forever).open().await.unwrap();
    let services = services(&engine, "team").await;
    assert_eq!(services.leases.list(&[]).await.unwrap(), [other]);
    let left: Vec<_> = services.content.list(&[]).map_ok(|info| info.digest).try_collect().await.unwrap();
    assert_eq!(left, [held.digest]);
    let snapshots: Vec<_> = services.snapshotters[NATIVE].walk(&[]).try_collect().await.unwrap();
    assert_eq!(snapshots, []);
}

#[tokio::test]
async fn a_stored_blob_that_is_damaged_is_reported_with_what_mends_it_in_every_namespace() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("root");
    let engine = Engine::open(&path).await.unwrap();
    let bundle = bundle();
    let remote = remote(&bundle);
    let content = Pull { unpack: transfer::Unpack::No, ..Pull::default() };
    for namespace in ["default", "other"] {
        pull(&engine, &remote, namespace, &content).await;
    }
    let file = |digest: &Digest| path.join("content/blobs/sha256").join(digest.hex());
    let damage = |digest: &Digest, damage: fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(file(digest)).unwrap();
        damage(&mut bytes);
        std::fs::write(file(digest), bytes).unwrap();
    };
    let services = services(&engine, "default").await;

    let layer = &bundle.image().layers[0];
    damage(&layer.digest, |bytes| bytes.truncate(10));
    let error = services.content.reader(layer).await.err().unwrap();
    assert_eq!((error.kind(), error.hint_text()), (Kind::DataLoss, Some(FETCH_AGAIN)), "{error}");

    let manifest = &bundle.root.digest;
    damage(manifest, |bytes| bytes[0] ^= 1);
    let (namespace, reference, progress) = (Namespace::default(), REFERENCE.parse().unwrap(), Tracker::new());
    let failing = transfer::pull(&engine, &namespace, &remote, &reference, &content, &progress);
    let error = failing.await.unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (Kind::DataLoss, Some(FETCH_AGAIN)), "{error}");

    // What has lost bytes is seen at once, and brought again.
    damage(manifest, |bytes| bytes.truncate(10));
    pull(&engine, &remote, "default", &content).await;
    assert_eq!(std::fs::read(file(manifest)).unwrap(), bundle.blobs[manifest]);
}
