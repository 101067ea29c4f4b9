//! Archives of images: those of others are imported, and others read those that are exported.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::dist::{Dist, Run};
use crate::fixture;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The image of this machine from the fixture, as `skopeo` writes it to such an archive.
fn written_by_skopeo(dist: &Dist, transport: &str, name: &str) -> PathBuf {
    let (archive, layout) = (dist.path(&format!("{transport}.tar")), fixture::directory(dist));
    let (from, to) = (format!("oci:{}:1", layout.display()), format!("{transport}:{}:{name}", archive.display()));
    run("skopeo", &["copy", "-q", &from, &to]);
    archive
}

/// Mounts an image and returns what it greets with.
fn greeting(dist: &Dist, name: &str) -> String {
    let directory = dist.path("mounted");
    dist.ok(&format!("images mount {name} {}", directory.display()));
    let greeting = std::fs::read_to_string(directory.join("etc/greeting")).unwrap();
    dist.ok(&format!("images unmount {}", directory.display()));
    greeting
}

#[test]
fn archives_of_skopeo_are_imported() {
    let dist = Dist::new();
    let (oci, docker) =
        (written_by_skopeo(&dist, "oci-archive", "v1"), written_by_skopeo(&dist, "docker-archive", "busybox:2"));
    let imported = dist.json(&format!("images import --base-name quay.io/x/y {}", oci.display()));
    assert_eq!(imported["images"][0]["name"], "quay.io/x/y:v1");
    assert_eq!(imported["images"][0]["snapshots"].as_array().unwrap().len(), 1);
    assert!(imported["downloaded"].as_u64().unwrap() > 0, "{imported}");
    let imported = dist.json(&format!("load {}", docker.display()));
    assert_eq!(imported["images"][0]["name"], "docker.io/library/busybox:2");
    for name in ["quay.io/x/y:v1", "busybox:2"] {
        assert_eq!(greeting(&dist, name), "hello from above\n");
    }
    let again = dist.json(&format!("images import --no-unpack --digests {}", oci.display()));
    let names: Vec<&str> = again["images"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    let [tag, digest] = names.as_slice() else { panic!("{names:?}") };
    assert!(tag.starts_with("import-20") && tag.ends_with(":v1") && digest.contains("@sha256:"), "{names:?}");
    assert_eq!(again["downloaded"], 0);
}

#[test]
fn an_image_that_is_not_unpacked_is_unpacked_by_what_its_error_says() {
    let dist = Dist::new();
    let archive = written_by_skopeo(&dist, "docker-archive", "busybox:2");
    dist.ok(&format!("images import --no-unpack {}", archive.display()));
    let refused = dist.run(&format!("images mount busybox:2 {}", dist.path("mounted").display()));
    assert!(refused.code != Some(0) && refused.stderr.contains("is not unpacked"), "{}", refused.stderr);
    let unpack = refused.stderr.split('`').find_map(|said| said.strip_prefix("dist ")).unwrap();
    assert!(unpack.starts_with("snapshots unpack "), "{unpack}");
    dist.ok(unpack);
    assert_eq!(greeting(&dist, "busybox:2"), "hello from above\n");
}

#[test]
fn standard_input_is_imported_and_standard_output_is_exported_to() {
    let (dist, other) = (Dist::new(), Dist::new());
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let exported = dist.run(&format!("images export - {reference}"));
    assert_eq!(exported.code, Some(0), "{}", exported.stderr);
    let imported = other.feed("--format json images import -", &exported.stdout).ok();
    let imported: Value = serde_json::from_str(&imported).unwrap();
    assert_eq!(imported["images"][0]["name"], json!(reference));
    let file = other.path("again.tar");
    let report = other.json(&format!("images export {} {reference}", file.display()));
    assert_eq!(report["size"].as_u64(), Some(exported.stdout.len() as u64));
    assert!(std::fs::read(&file).unwrap() == exported.stdout, "the same image makes the same bytes");
    assert_eq!(other.json("images ls")[0]["stored"], dist.json("images ls")[0]["stored"]);
}

#[test]
fn others_read_what_is_exported() {
    let dist = Dist::new();
    let archive = written_by_skopeo(&dist, "oci-archive", "v1");
    dist.ok(&format!("images import --base-name example.org/app {}", archive.display()));
    let out = dist.path("out.tar");
    dist.ok(&format!("images export {} example.org/app:v1", out.display()));
    for from in
        [format!("oci-archive:{}:v1", out.display()), format!("docker-archive:{}:example.org/app:v1", out.display())]
    {
        let copied = dist.path("copied");
        run("skopeo", &["copy", "-q", &from, &format!("dir:{}", copied.display())]);
        assert!(copied.join("manifest.json").exists(), "{from}");
    }
    let (layout, bundle) = (dist.path("unpacked"), dist.path("bundle"));
    std::fs::create_dir(&layout).unwrap();
    run("tar", &["-xf", text(&out), "-C", text(&layout)]);
    run("umoci", &["unpack", "--image", &format!("{}:v1", layout.display()), text(&bundle)]);
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/etc/greeting")).unwrap(), "hello from above\n");
    let listed = run("tar", &["-tf", text(&out)]);
    assert!(listed.contains("manifest.json"), "{listed}");
    dist.ok(&format!("images export --skip-manifest-json {} example.org/app:v1", out.display()));
    assert!(!run("tar", &["-tf", text(&out)]).contains("manifest.json"));
}

/// Debian's containerd, for as long as the value lives.
pub(crate) struct Containerd {
    process: Child,
    pub(crate) socket: String,
}

impl Containerd {
    pub(crate) fn start(dist: &Dist) -> Self {
        let socket = dist.path("containerd.sock").display().to_string();
        let configuration = dist.path("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = {socket:?}\n",
            dist.path("containerd root").display(),
            dist.path("containerd state").display(),
        );
        std::fs::write(&configuration, text).unwrap();
        let log = std::fs::File::create(dist.path("containerd.log")).unwrap();
        let mut command = Command::new("containerd");
        let process =
            command.arg("-c").arg(&configuration).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let containerd = Self { process, socket };
        for _ in 0..200 {
            if containerd.ctr(&["version"]).code == Some(0) {
                return containerd;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("containerd does not answer: {}", std::fs::read_to_string(dist.path("containerd.log")).unwrap());
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Run {
        Run::of(Command::new("ctr").args(["-a", &self.socket]).args(arguments).output().unwrap())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn archives_go_to_containerd_and_come_back() {
    let (dist, back) = (Dist::new(), Dist::new());
    let containerd = Containerd::start(&dist);
    let archive = written_by_skopeo(&dist, "oci-archive", "v1");
    dist.ok(&format!("images import --base-name example.org/app {}", archive.display()));
    let out = dist.path("out.tar");
    dist.ok(&format!("images export {} example.org/app:v1", out.display()));
    containerd.ctr(&["images", "import", text(&out)]).ok();
    assert_eq!(containerd.ctr(&["images", "ls", "-q"]).ok(), "example.org/app:v1\n");
    let returned = dist.path("returned.tar");
    containerd.ctr(&["images", "export", text(&returned), "example.org/app:v1"]).ok();
    let imported = back.json(&format!("images import {}", returned.display()));
    assert_eq!(imported["images"][0]["name"], "example.org/app:v1");
    assert_eq!(imported["images"][0]["target"], dist.json("images ls")[0]["target"]);
    assert_eq!(greeting(&back, "example.org/app:v1"), "hello from above\n");
}

#[test]
fn what_is_wrong_leaves_nothing() {
    let dist = Dist::new();
    let archive = written_by_skopeo(&dist, "oci-archive", "v1");
    let bytes = std::fs::read(&archive).unwrap();
    let import = |bytes: &[u8]| dist.feed("images import -", bytes).failed();
    let cut = import(&bytes[..bytes.len() / 2]);
    assert!(cut.contains("import an archive"), "{cut}");
    let none = import(b"this is no archive");
    assert!(none.contains("hint: only archives of images"), "{none}");
    let garbage: Vec<u8> = (0..2000_u32).map(|at| (at * at % 251) as u8).collect();
    let none = import(&garbage);
    assert!(none.contains("hint: only archives of images"), "{none}");
    let directory = dist.run(&format!("images import {}", fixture::directory(&dist).display())).failed();
    assert!(directory.contains("dist pull oci:"), "{directory}");
    let unnamed = dist.path("unnamed.tar");
    let from = format!("oci:{}:1", fixture::directory(&dist).display());
    run("skopeo", &["copy", "-q", &from, &format!("oci-archive:{}", unnamed.display())]);
    assert!(dist.run(&format!("images import {}", unnamed.display())).failed().contains("--digests"));
    dist.assert_empty();
    let missing = dist.run(&format!("images export {} nothing:1", dist.path("out.tar").display())).failed();
    assert!(missing.contains("nothing:1"), "{missing}");
    let left = std::fs::read_dir(dist.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("out.tar")), "no part of an archive stays");
}

#[test]
fn a_layer_that_was_dropped_is_said_by_name() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull --content drop {reference}"));
    let error = dist.run(&format!("images export - {reference}")).failed();
    assert!(error.contains("was not kept") && error.contains("dist fetch"), "{error}");
    dist.ok(&format!("fetch {reference}"));
    dist.ok(&format!("images export {} {reference}", dist.path("out.tar").display()));
}
