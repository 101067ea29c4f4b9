//! `dist fsck`: every kind of damage is done to a root that real pulls made, and found.

mod cases;
mod damage;
mod limits;
mod of_daemon;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use windlass_core::Platform;
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::registry::DockerRegistry;

use crate::dist::Dist;
use crate::fixture;

use cases::{CASES, Case};
use damage::Scene;

/// How many cases are tried at once: they wait for the disk most of the time.
const WORKERS: usize = 4;

/// A root with images of a registry, to be copied for each case.
struct Pristine {
    dist: Dist,
    _registry: DockerRegistry,
    /// The image that is damaged, in the default namespace and in `other`.
    image: String,
    /// An image that has nothing in common with it.
    bystander: String,
    /// An image that is unpacked by copying.
    copied: String,
}

impl Pristine {
    fn pull() -> Self {
        let (dist, registry) = (Dist::new(), DockerRegistry::start());
        registry.push_layout(fixture::directory(&dist), "a/b:1");
        let single = |name: &str, text: &str| {
            let layer = Layer::new().dir("etc", 0o755).file("etc/name", text);
            let image = Image::new(&Platform::host().to_string()).layer(layer).build();
            image.write_layout(&dist.path(name), "1").unwrap();
            registry.push_layout(dist.path(name), &format!("{name}/x:1"));
            format!("{}/{name}/x:1", registry.host())
        };
        let (bystander, copied) = (single("bystander", "bystander"), single("copied", "copied"));
        let image = format!("{}/a/b:1", registry.host());
        dist.ok(&format!("--progress none pull {image}"));
        dist.ok(&format!("--progress none -n other pull {image}"));
        dist.ok(&format!("--progress none pull {bystander}"));
        dist.ok(&format!("--progress none pull --snapshotter native {copied}"));
        Self { dist, _registry: registry, image, bystander, copied }
    }

    /// Copies the root into a directory of its own.
    fn copy(&self) -> Dist {
        let copy = Dist::new();
        let status = Command::new("cp").arg("-a").arg(self.dist.root()).arg(copy.root()).status().unwrap();
        assert!(status.success());
        copy
    }
}

/// Runs a check and returns its findings; the exit code says whether there are any.
#[track_caller]
fn check(dist: &Dist, options: &str) -> Vec<Value> {
    let run = dist.run(&format!("--progress none --format json fsck{options}"));
    let Value::Array(findings) = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", run.stderr))
    else {
        panic!("no array");
    };
    let remain = findings.iter().any(|finding| finding["outcome"]["state"] != "repaired");
    assert_eq!(run.code, Some(i32::from(remain)), "{findings:?} {}", run.stderr);
    findings
}

/// Returns the kinds of findings, each once.
fn kinds(findings: &[Value]) -> Vec<String> {
    let mut kinds: Vec<String> =
        findings.iter().map(|finding| finding["problem"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Describes every file below a directory: type, mode, size, time of change, contents.
fn tree(root: &Path) -> Vec<String> {
    let list = "find . ! -name lock -printf '%p %y %m %s %T@ %l\\n' | sort; \
                find . -type f ! -name lock -print0 | sort -z | xargs -0 sha256sum";
    let output = Command::new("sh").args(["-c", list]).current_dir(root).output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    let pristine = Pristine::pull();
    assert_eq!(check(&pristine.dist, ""), [] as [Value; 0], "a root that was only pulled into");
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Each case by itself: one run tells of all that fail.
                    if std::panic::catch_unwind(AssertUnwindSafe(|| try_out(case, &pristine))).is_err() {
                        failed.lock().unwrap().push(case.name);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), [""; 0], "the panics above say why");
}

fn try_out(case: &Case, pristine: &Pristine) {
    let dist = pristine.copy();
    let scene = Scene::new(&dist, pristine);
    (case.damage)(&scene);
    found(case, pristine, &dist);
    repaired(case, &scene, pristine, &dist);
}

/// Checks and asserts that the right thing is found, and nothing is changed.
fn found(case: &Case, pristine: &Pristine, dist: &Dist) {
    let before = tree(&dist.root());
    let found = check(dist, "");
    assert_eq!(tree(&dist.root()), before, "{}: a check changes nothing", case.name);
    assert_eq!(kinds(&found), case.found, "{}: {found:#?}", case.name);
    for finding in &found {
        for text in ["message", "consequence"] {
            assert!(!finding[text].as_str().unwrap().is_empty(), "{}: {finding}", case.name);
        }
    }
    let affected: Vec<&Value> = found.iter().flat_map(|finding| finding["images"].as_array().unwrap()).collect();
    let affects = |image: &str| affected.iter().any(|affected| affected["name"] == image);
    assert_eq!(affects(&pristine.image), case.affects, "{}: {found:#?}", case.name);
    assert!(!affects(&pristine.copied), "{}: {found:#?}", case.name);
    assert_eq!(affects(&pristine.bystander), case.affects && case.name.contains("database"), "{}", case.name);
}

/// Repairs and asserts that nothing is wrong any more, and every image is what it was.
fn repaired(case: &Case, scene: &Scene<'_>, pristine: &Pristine, dist: &Dist) {
    let repaired = check(dist, " --repair");
    for finding in &repaired {
        assert_eq!(finding["outcome"]["state"], "repaired", "{}: {finding:#}", case.name);
    }
    for kind in case.found {
        assert!(kinds(&repaired).iter().any(|found| found == kind), "{}: {repaired:#?}", case.name);
    }
    assert_eq!(check(dist, ""), [] as [Value; 0], "{}: the second time", case.name);
    let renamed = format!("recovered/{}", scene.index);
    let image = if case.renamed { &renamed } else { &pristine.image };
    let [greeting, script] = read_all(dist, image, ["etc/greeting", "bin/greet"]);
    assert_eq!((greeting.as_str(), script.lines().next()), ("hello from above\n", Some("#!/bin/sh")), "{}", case.name);
    if case.name.contains("not kept") {
        assert!(!scene.blob(&scene.layers[1]).exists(), "{}: what was fetched for the repair is kept", case.name);
    }
    if !case.renamed {
        assert_eq!(read(dist, &pristine.bystander, "etc/name"), "bystander", "{}", case.name);
        assert_eq!(read(dist, &pristine.copied, "etc/name"), "copied", "{}", case.name);
        assert_eq!(dist.ok("-n other images ls -q").trim(), pristine.image, "{}", case.name);
    }
}

/// Mounts an image and reads a file of it.
fn read(dist: &Dist, image: &str, file: &str) -> String {
    let [text] = read_all(dist, image, [file]);
    text
}

/// Mounts an image and reads files of it.
fn read_all<const N: usize>(dist: &Dist, image: &str, files: [&str; N]) -> [String; N] {
    let directory = dist.path("look");
    let mounted = dist.run(&format!("images mount {image} {}", directory.display()));
    let mounted = match mounted.code {
        Some(0) => mounted,
        // The one that is unpacked by copying.
        _ => dist.run(&format!("images mount --snapshotter native {image} {}", directory.display())),
    };
    mounted.ok();
    let texts = files.map(|file| std::fs::read_to_string(directory.join(file)));
    dist.ok(&format!("images unmount {}", directory.display()));
    texts.map(Result::unwrap)
}
