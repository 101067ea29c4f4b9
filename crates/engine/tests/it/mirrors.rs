//! Mirrors that send something else than they were asked for, before a registry that is right: the image comes, who failed is told,
//! and nothing that was not verified is kept.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use windlass::core::content::ProviderExt as _;
use windlass::core::progress::Tracker;
use windlass::core::{Descriptor, Error, Host as _, Kind, Namespace, Platform, Reference, Result, snapshot};
use windlass::registry::{Fallback, Options, PassedOver, Remote, Retry};
use windlass::transfer::push::Object;
use windlass::transfer::{self, Content, Parts, Pull, Pulled};
use windlass::{Engine, OVERLAYFS};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::registry::{DockerRegistry, Fake, Fault};

/// How each connection to the mirror comes: slowly enough for more of them to be worth it.
const PACE: Fault = Fault::Trickle { piece: 32 << 10, pause: Duration::from_millis(8) };
const PART: u64 = 256 << 10;

/// A registry, a mirror of it that misbehaves, and who pulls from them.
struct Site {
    engine: Engine,
    mirror: Fake,
    registry: DockerRegistry,
    directory: TempDir,
    bundle: Bundle,
}

fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// An image with a small layer and a large one.
fn image() -> Bundle {
    let small = Layer::new().file("small", noise(1, 20_000));
    let large = Layer::new().file("large", noise(2, 6 << 20));
    Image::new(&Platform::host().to_string()).layer(small).layer(large).build()
}

impl Site {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let engine = Engine::open(directory.path().join("root")).await.unwrap();
        let (mirror, registry, bundle) = (Fake::start().await, DockerRegistry::start(), image());
        bundle.write_layout(&directory.path().join("layout"), "1").unwrap();
        registry.push_layout(format!("{}:1", directory.path().join("layout").display()), "a/b:1");
        for (digest, bytes) in &bundle.blobs {
            if *digest == bundle.root.digest {
                mirror.add_manifest("a/b", Some("1"), bundle.root.media_type.as_str(), bytes.clone());
            } else {
                mirror.add_blob("a/b", "application/octet-stream", bytes.clone());
            }
        }
        let hosts = directory.path().join("hosts").join(registry.host());
        std::fs::create_dir_all(&hosts).unwrap();
        std::fs::write(hosts.join("hosts.toml"), format!("[host.\"{}\"]\n", mirror.url())).unwrap();
        Self { engine, mirror, registry, directory, bundle }
    }

    fn remote(&self, fallback: Fallback) -> Remote {
        let retry = Retry { attempts: 1, first_delay: Duration::from_millis(10), ..Retry::default() };
        let hosts_dirs = vec![self.directory.path().join("hosts")];
        Remote::new(Options { hosts_dirs, fallback, retry, ..Options::default() }).unwrap()
    }

    fn layer(&self, at: usize) -> &Descriptor {
        &self.bundle.image().layers[at]
    }

    /// The path of a layer at the mirror.
    fn path(&self, at: usize) -> String {
        format!("/v2/a/b/blobs/{}", self.layer(at).digest)
    }

    async fn pull(&self, remote: &Remote, content: Content) -> Result<Pulled> {
        let parts = Parts { threshold: 1 << 20, size: PART, at_once: 4 };
        let options = Pull { parts, content, snapshotter: Some(OVERLAYFS.to_owned()), ..Pull::default() };
        let reference: Reference = format!("{}/a/b:1", self.registry.host()).parse().unwrap();
        transfer::pull(&self.engine, &Namespace::default(), remote, &reference, &options, &Tracker::new()).await
    }

    /// Pulls, and returns who failed while it came.
    async fn comes(&self, content: Content) -> Vec<PassedOver> {
        let remote = self.remote(Fallback::Allowed);
        let pulled = self.pull(&remote, content).await.unwrap();
        assert_eq!(pulled.target, self.bundle.root);
        let services = self.engine.services(&Namespace::default().into()).await.unwrap();
        let snapshotter = services.snapshotters.get(OVERLAYFS).unwrap();
        for chain_id in self.bundle.image().chain_ids() {
            let info = snapshotter.stat(snapshot::Name::from(&chain_id).as_key()).await.unwrap();
            assert_eq!(info.state, snapshot::State::Committed);
        }
        let kept = [&self.bundle.root, &self.bundle.image().config].into_iter();
        let layers = self.bundle.image().layers.iter().filter(|_| content == Content::Keep);
        for descriptor in kept.chain(layers) {
            services.content.verify(descriptor).await.unwrap();
        }
        assert_eq!(services.content.statuses(&[]).await.unwrap(), []);
        remote.passed_over()
    }

    /// Checks that the mirror is said to have failed for that reason, and says what it was told to have sent.
    #[track_caller]
    fn assert_told(&self, passed_over: &[PassedOver], reason: &str) -> String {
        let told = passed_over.iter().find(|it| it.attempt.host == self.mirror.host() && it.reason == reason);
        let told = told.unwrap_or_else(|| panic!("{reason} is not in {passed_over:?}"));
        let rule = told.attempt.rule.as_deref().unwrap_or_default();
        assert!(rule.contains("hosts.toml:1"), "{told:?}");
        told.attempt.to_string()
    }

    /// Returns how often the registry was asked for a layer.
    fn asked(&self, at: usize) -> usize {
        let (log, path) = (self.registry.log(), self.path(at));
        log.lines()
            .filter(|it| it.contains("response completed") && it.contains("\"GET\"") && it.contains(&path))
            .count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_a_mirror_changes_is_the_registrys() {
    for (fault, reason) in [
        (Fault::CorruptByte(10), "digest-mismatch"),
        (Fault::Bytes("{}".into()), "size-mismatch"),
        (Fault::Endless, "too-large"),
    ] {
        let site = Site::new().await;
        site.mirror.fault("/v2/a/b/manifests/", Fault::WithoutHeader("docker-content-digest".to_owned()));
        site.mirror.fault(format!("/v2/a/b/manifests/{}", site.bundle.root.digest), fault.clone());
        let passed_over = site.comes(Content::Keep).await;
        let told = site.assert_told(&passed_over, reason);
        assert!(told.contains(&format!("/v2/a/b/manifests/{}", site.bundle.root.digest)), "{told}");
        let config = format!("/v2/a/b/blobs/{}", site.bundle.image().config.digest);
        assert_eq!(site.mirror.count(&config), 1, "{fault:?}: it is asked for what it has not lied about");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mirror_says_of_the_size_of_a_manifest_is_not_believed() {
    let site = Site::new().await;
    // The header has the right digest, and the body is another one: HEAD says a wrong size.
    site.mirror.fault("/v2/a/b/manifests/1", Fault::Bytes(vec![b' '; 100].into()));
    let passed_over = site.comes(Content::Keep).await;
    let told = site.assert_told(&passed_over, "digest-mismatch");
    assert!(told.contains(&site.bundle.root.digest.to_string()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_a_mirror_changes_is_the_registrys_whether_it_is_kept_or_not() {
    for content in [Content::Keep, Content::Drop] {
        for (fault, reason) in [
            (Fault::CorruptByte(15), "digest-mismatch"),
            (Fault::CorruptByte(19_000), "digest-mismatch"),
            (Fault::Bytes(vec![0; 10].into()), "size-mismatch"),
            (Fault::Endless, "size-mismatch"),
            (Fault::TruncateAfter(0), "connection-broken"),
        ] {
            // What comes behind the last byte of something that is not kept is not read.
            if content == Content::Drop && matches!(fault, Fault::Endless) {
                continue;
            }
            let site = Site::new().await;
            site.mirror.fault(site.path(0), fault.clone());
            let passed_over = site.comes(content).await;
            let reason = if content == Content::Drop && reason == "size-mismatch" { "digest-mismatch" } else { reason };
            let told = site.assert_told(&passed_over, reason);
            assert!(told.contains(&site.path(0)), "{fault:?}: {told}");
            assert_eq!(
                (site.asked(0), site.asked(1)),
                (1, 0),
                "{fault:?}: the registry is asked for what is wrong, once"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_layer_that_a_mirror_changes_in_a_part_is_the_registrys_from_its_first_byte() {
    for content in [Content::Keep, Content::Drop] {
        let site = Site::new().await;
        site.mirror.fault(site.path(1), PACE);
        // Of the whole, or of a part.
        site.mirror.fault(site.path(1), Fault::CorruptByte(3_000_000));
        site.mirror.fault_when_ranged(site.path(1), Fault::CorruptByte(5_000));
        let passed_over = site.comes(content).await;
        site.assert_told(&passed_over, "digest-mismatch");
        assert!(site.asked(1) >= 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_two_hosts_sent_together_it_is_found_out_who_was_wrong() {
    let site = Site::new().await;
    site.mirror.fault_times(site.path(1), Fault::CorruptByte(100), 1);
    site.mirror.fault_times(site.path(1), Fault::ResetAfter(2 << 20), 1);
    site.mirror.fault_when_ranged(site.path(1), Fault::Hangup);
    let passed_over = site.comes(Content::Keep).await;
    assert!(passed_over.iter().any(|it| it.attempt.host == site.mirror.host()), "{passed_over:?}");
    assert!(site.asked(1) >= 2, "the rest of it, and then all of it");
}

/// Pulls in vain.
async fn fails(site: &Site, fallback: Fallback, content: Content) -> Error {
    let error = site.pull(&site.remote(fallback), content).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    let services = site.engine.services(&Namespace::default().into()).await.unwrap();
    assert_eq!(services.content.statuses(&[]).await.unwrap(), []);
    let layer = services.content.info(&site.layer(0).digest).await;
    assert!(layer.is_err_and(|error| error.is(Kind::NotFound)));
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fallback_a_mirror_that_is_wrong_is_the_end() {
    for content in [Content::Keep, Content::Drop] {
        let site = Site::new().await;
        site.mirror.fault(site.path(0), Fault::CorruptByte(19_000));
        let error = fails(&site, Fallback::Never, content).await;
        let hosts: Vec<&str> = error.trace().iter().map(|attempt| attempt.host.as_str()).collect();
        assert_eq!(hosts, [site.mirror.host()], "{error:?}");
        assert_eq!(site.mirror.count(&site.path(0)), 1, "{content:?}: it is not asked again");
        assert_eq!(site.asked(0), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_on_with_the_registry_when_the_mirror_is_wrong() {
    let site = Site::new().await;
    site.mirror.fault(site.path(0), Fault::CorruptByte(19_000));
    let to = DockerRegistry::start();
    let remote = site.remote(Fallback::Allowed);
    let reference = |host: &str| format!("{host}/a/b:1").parse::<Reference>().unwrap();
    let (from, to) = (reference(site.registry.host()), reference(to.host()));
    let copied = transfer::copy(&remote, &from, &to, &transfer::Push::default(), &Tracker::new()).await.unwrap();
    assert_eq!(copied.target, site.bundle.root);
    site.assert_told(&remote.passed_over(), "source-mismatch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_of_what_was_not_kept_goes_on_with_the_registry_when_the_mirror_is_wrong() {
    let site = Site::new().await;
    let remote = site.remote(Fallback::Allowed);
    let pulled = site.pull(&remote, Content::Drop).await.unwrap();
    assert_eq!(remote.passed_over(), []);
    let (asked, before) = (site.asked(0), site.mirror.count(&site.path(0)));
    site.mirror.fault(site.path(0), Fault::CorruptByte(19_000));
    let to = DockerRegistry::start();
    let to: Reference = format!("{}/a/b:1", to.host()).parse().unwrap();
    let object = Object { target: pulled.target, name: Some(pulled.name), alone: false };
    let (namespace, resolver, options) = (Namespace::default(), Arc::new(remote.clone()), transfer::Push::default());
    let progress = Tracker::new();
    let pushed = transfer::push(&site.engine, &namespace, resolver, &object, &to, &options, &progress).await.unwrap();
    assert_eq!(pushed.target, site.bundle.root);
    site.assert_told(&remote.passed_over(), "source-mismatch");
    assert_eq!((site.asked(0), site.mirror.count(&site.path(0))), (asked + 1, before + 1));
}
