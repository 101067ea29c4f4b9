//! Everything that can be wrong with an image or with who serves it: an error that names the object, a hint, exit
//! code 1, and nothing left behind.

use serde_json::json;
use windlass_testkit::image::{Bundle, Image, Index, Layer, Tamper, schema1};
use windlass_testkit::registry::{Auth, Fake, Fault, Identity};

use crate::dist::{Dist, Run, files_below};
use crate::fixture;

/// What a terminal would show of pulls that fail, without what changes from run to run.
struct Transcript {
    dist: Dist,
    text: String,
    secret: Vec<(String, &'static str)>,
}

impl Transcript {
    fn new() -> Self {
        let dist = Dist::new();
        let directory = dist.path("").display().to_string();
        Self { dist, text: String::new(), secret: vec![(directory, "DIRECTORY/")] }
    }

    fn hide(&mut self, text: String, name: &'static str) {
        self.secret.push((text, name));
    }

    /// Pulls what cannot be pulled.
    #[track_caller]
    fn pull(&mut self, what: &str, reference: &str) {
        let line = format!("--progress none pull --platform linux/amd64 {reference}");
        let said = self.dist.run(&line).failed();
        let between = said.lines().skip(1).filter(|line| !line.starts_with("tried: "));
        assert!(said.starts_with("dist: ") && between.clone().count() == 1, "{what}: {said}");
        assert!(between.last().is_some_and(|last| last.starts_with("hint: ")), "{what}: {said}");
        self.text.extend(["# ", what, "\n", &said, "\n"]);
        for (text, name) in &self.secret {
            self.text = self.text.replace(text, name);
        }
    }

    /// Pulls an image that is wrong out of a layout.
    #[track_caller]
    fn pull_bundle(&mut self, what: &str, bundle: &Bundle) {
        let directory = self.dist.path("layout");
        bundle.write_layout(&directory, "1").unwrap();
        self.pull(what, &format!("oci:{}:1", directory.display()));
        std::fs::remove_dir_all(&directory).unwrap();
        self.assert_nothing_left(what);
    }

    #[track_caller]
    fn assert_nothing_left(&self, what: &str) {
        for line in ["images ls", "content ls", "content active", "snapshots ls"] {
            assert_eq!(self.dist.json(line), json!([]), "{what}: {line}");
        }
        assert_eq!(files_below(&self.dist.root().join("content/blobs")).len(), 0, "{what}");
    }
}

fn layers() -> [Layer; 2] {
    [Layer::new().dir("etc", 0o755).file("etc/first", "1".repeat(5000)), Layer::new().file("second", "2".repeat(5000))]
}

fn image() -> Image {
    let [first, second] = layers();
    Image::new("linux/amd64").layer(first).layer(second)
}

#[test]
fn images_that_contradict_themselves() {
    let mut transcript = Transcript::new();
    for (what, tamper) in [
        ("another diff id", Tamper::DiffId(1)),
        ("another layer than the manifest says", Tamper::LayerDigest(1)),
        ("another config than the manifest says", Tamper::ConfigDigest),
        ("a layer that is larger than the manifest says", Tamper::LayerSize(1, 50)),
        ("a layer that is smaller than the manifest says", Tamper::LayerSize(1, 5000)),
        ("corrupt gzip", Tamper::LayerBytes(1)),
        ("gzip that ends early", Tamper::LayerCut(1)),
        ("fewer diff ids than layers", Tamper::MissingDiffId),
    ] {
        transcript.pull_bundle(what, &image().tamper(tamper).build());
    }
    transcript.pull_bundle("a manifest of schema 1", &schema1("a/b", "1"));
    transcript.pull_bundle(
        "a platform that is not in the index",
        &Index::new()
            .bundle(&Image::new("linux/arm64").layer(&layers()[0]).build())
            .bundle(&Image::new("linux/s390x").layer(&layers()[1]).build())
            .build(),
    );
    insta::assert_snapshot!("contradictory_images", transcript.text);
}

#[test]
fn archives_that_would_leave_their_directory() {
    let mut transcript = Transcript::new();
    for (what, layer) in [
        ("a name that climbs", Layer::new().file("../../../../escaped", "x")),
        ("a name that climbs in the middle", Layer::new().dir("a", 0o755).file("a/../../../../escaped", "x")),
        ("a hard link to outside", Layer::new().hardlink("passwd", "../../../../../../../../etc/passwd")),
    ] {
        transcript.pull_bundle(what, &Image::new("linux/amd64").layer(layer).build());
    }
    insta::assert_snapshot!("escaping_archives", transcript.text);
}

#[test]
fn archives_that_try_links_stay_within_their_directory() {
    let dist = Dist::new();
    let outside = dist.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let layer = Layer::new()
        .symlink("link", outside.to_str().unwrap())
        .file("link/escaped", "x")
        .symlink("up", "../../../../../../../../..")
        .file("up/escaped", "x")
        .file("/absolute", "x");
    Image::new("linux/amd64").layer(layer).build().write_layout(&dist.path("layout"), "1").unwrap();
    let run = dist.run(&format!("pull --platform linux/amd64 oci:{}:1", dist.path("layout").display()));
    assert!(matches!(run.code, Some(0 | 1)), "{}", run.stderr);
    assert_eq!(files_below(&outside).len(), 0, "{}", run.stderr);
    assert!(!std::path::Path::new("/escaped").exists() && !std::path::Path::new("/absolute").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn registries_that_refuse() {
    let fake = Fake::start().await;
    fixture::serve(&fake, "a/b", "1", &image().build());
    let host = fake.host();
    let mut transcript = Transcript::new();
    transcript.hide(host.clone(), "HOST");
    transcript.pull("a tag that is not there", &format!("{host}/a/b:2"));
    transcript.pull("a repository that is not there", &format!("{host}/absent:1"));
    let absent = windlass_core::Digest::sha256(b"absent");
    transcript.pull("a digest that is not there", &format!("{host}/a/b@{absent}"));
    transcript.pull("no tag", &format!("{host}/a/b@sha256:abc"));

    fake.add_manifest("a/b", Some("odd"), "application/x-odd", "{}");
    transcript.pull("a media type that is not known", &format!("{host}/a/b:odd"));
    fake.fault("/v2/a/b/", Fault::error(403, "DENIED", "requested access to the resource is denied"));
    transcript.pull("403", &format!("{host}/a/b:1"));
    fake.clear_faults();
    fake.require(Auth::Basic { username: "user".into(), password: "secret".into() });
    transcript.pull("401", &format!("{host}/a/b:1"));
    transcript.assert_nothing_left("refused");
    insta::assert_snapshot!("refusing_registries", transcript.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn hosts_that_are_not_there() {
    let mut transcript = Transcript::new();
    transcript.pull("a host that is not found", "host.invalid/a/b:1");
    transcript.pull("a host that refuses the connection", "127.0.0.1:1/a/b:1");
    transcript.pull("a directory that is not there", "oci:/absent:1");
    let tls = Fake::start_tls(&Identity::new(&["127.0.0.1"])).await;
    transcript.hide(tls.host(), "HOST");
    transcript.pull("TLS where plain HTTP is spoken", &format!("{}/a/b:1", tls.host()));
    transcript.assert_nothing_left("unreachable");
    insta::assert_snapshot!("absent_hosts", transcript.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_that_ends_early_can_be_continued() {
    let fake = Fake::start().await;
    let bundle = image().build();
    fixture::serve(&fake, "a/b", "1", &bundle);
    let layer = &bundle.image().layers[1];
    fake.fault(format!("/v2/a/b/blobs/{}", layer.digest), Fault::TruncateAfter(0));
    let dist = Dist::new();
    let reference = format!("{}/a/b:1", fake.host());
    let said = dist.run(&format!("--progress none pull --platform linux/amd64 {reference}")).failed();
    assert!(said.contains(&layer.digest.to_string()) && said.contains("\nhint: "), "{said}");
    assert_eq!(dist.json("images ls"), json!([]));
    assert_eq!(dist.json("snapshots ls kind==active"), json!([]));
    fake.clear_faults();
    dist.ok(&format!("pull --platform linux/amd64 {reference}"));
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_numbers_and_a_larger_one_is_not() {
    let dist = Dist::new();
    let root = dist.root();
    std::fs::create_dir(&root).unwrap();
    let mount = |options: &str| {
        let mut command = std::process::Command::new("mount");
        let status = command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&root).status().unwrap();
        assert!(status.success());
    };
    mount("size=8m");
    let layer = Layer::new().file("large", fixture::large());
    Image::new("linux/amd64").layer(layer).build().write_layout(&dist.path("layout"), "1").unwrap();
    let pull = format!("--progress none pull --platform linux/amd64 oci:{}:1", dist.path("layout").display());
    let said = dist.run(&pull);
    let tried = dist.run(&format!("{pull} --ignore-space"));
    mount("remount,size=80m");
    let again = dist.run(&pull);
    let unmounted = std::process::Command::new("umount").arg(&root).status().unwrap();
    assert!(unmounted.success());
    let said = said.failed();
    assert!(said.contains("needs at least 24.0 MiB") && said.contains("are free on tmpfs"), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
    let tried = tried.failed();
    assert!(tried.contains("more are needed") && tried.contains("are free on tmpfs ("), "{tried}");
    again.ok();
}

#[test]
fn a_root_on_a_filesystem_that_cannot_carry_overlays_is_refused_before_anything_is_downloaded() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| dist.path(name));
    for directory in [&lower, &upper, &work, &merged] {
        std::fs::create_dir(directory).unwrap();
    }
    // In a mount namespace of its own, so that nothing is left behind.
    let run = |arguments: &str| {
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let program = env!("CARGO_BIN_EXE_dist");
        let root = merged.join("root");
        let script = format!(
            "mount -t overlay overlay -o {options} {} && exec {program} --root {} {arguments}",
            merged.display(),
            root.display()
        );
        Run::of(std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap())
    };
    let said = run(&format!("pull {reference}")).failed();
    assert!(said.contains("which is itself on an overlay") && said.contains("native snapshotter"), "{said}");
    assert_eq!(files_below(&upper.join("root/content")), Vec::<std::path::PathBuf>::new());
    run(&format!("pull --snapshotter native {reference}")).ok();
    assert_eq!(run("images ls -q").ok().trim(), reference);
}

#[test]
fn a_blob_that_changed_on_the_disk_is_blamed_on_the_disk() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("fetch {reference}"));
    // A layer: the first bytes of gzip.
    let is_layer = |path: &std::path::Path| std::fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
    let path = files_below(&dist.root().join("content/blobs")).into_iter().find(|path| is_layer(path)).unwrap();
    let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let said = dist.run(&format!("--progress none pull {reference}")).failed();
    assert!(said.contains(&format!("blob {digest} has changed since it was stored")), "{said}");
    assert!(said.contains("hint: `dist fsck --repair`"), "{said}");
    assert_eq!(dist.json("snapshots ls kind==active"), json!([]));
    let got = dist.run(&format!("content get {digest}"));
    assert_eq!(got.code, Some(1), "{}", got.stderr);
    assert!(got.stderr.contains("has changed since it was stored"), "{}", got.stderr);
    let others = dist.ok("content ls -q");
    let sound = others.lines().find(|other| *other != digest).unwrap();
    dist.ok(&format!("content get {sound}"));
}

#[test]
fn what_a_root_has_lost_is_said_and_not_taken_for_garbage() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let kept = files_below(&dist.root().join("content/blobs"));
    std::fs::rename(dist.root().join("meta.redb"), dist.path("meta.redb")).unwrap();
    for line in ["images ls", "gc", &format!("pull {reference}")] {
        let said = dist.run(line).failed();
        assert!(said.contains("meta.redb is gone") && said.contains("hint: `dist fsck --repair`"), "{line}: {said}");
    }
    assert_eq!(files_below(&dist.root().join("content/blobs")), kept);
    std::fs::rename(dist.path("meta.redb"), dist.root().join("meta.redb")).unwrap();

    let layers: Vec<_> = std::fs::read_dir(dist.root().join("snapshots/overlayfs/snapshots")).unwrap().collect();
    assert!(layers.len() > 1, "a layer below the topmost is missed, too");
    for layer in layers {
        let layer = layer.unwrap().path();
        std::fs::rename(&layer, dist.path("layer")).unwrap();
        let said = dist.run(&format!("--progress none pull {reference}")).failed();
        assert!(said.contains("has lost its directory") && said.contains("hint: `dist fsck --repair`"), "{said}");
        std::fs::rename(dist.path("layer"), &layer).unwrap();
    }
    dist.ok(&format!("pull {reference}"));

    std::fs::rename(dist.root().join("snapshots/overlayfs/snapshots"), dist.path("lost")).unwrap();
    let said = dist.run(&format!("--progress none pull {reference}")).failed();
    assert!(said.contains("has lost its directory") && said.contains("hint: `dist fsck --repair`"), "{said}");
    std::fs::remove_file(dist.root().join("snapshots/overlayfs/records.redb")).unwrap();
    let said = dist.run(&format!("--progress none pull {reference}")).failed();
    assert!(said.contains("snapshotter overlayfs has lost it"), "{said}");
    dist.ok("fsck --repair");
    dist.ok(&format!("pull {reference}"));
    let directory = dist.path("mounted");
    dist.ok(&format!("images mount {reference} {}", directory.display()));
    assert_eq!(std::fs::read_to_string(directory.join("etc/greeting")).unwrap(), "hello from above\n");
    dist.ok(&format!("images unmount {}", directory.display()));
}
