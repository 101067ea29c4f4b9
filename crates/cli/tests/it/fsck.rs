//! `dist fsck`: every kind of damage is done to a root that real pulls made, and found.

mod cases;
mod damage;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use windlass_core::Platform;
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::registry::DockerRegistry;

use crate::dist::Dist;
use crate::fixture;

use cases::CASES;

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
fn every_kind_of_damage_is_found() {
    let pristine = Pristine::pull();
    assert_eq!(check(&pristine.dist, ""), [] as [Value; 0], "a root that was only pulled into");
    for case in CASES {
        let dist = pristine.copy();
        let scene = damage::Scene::new(&dist, &pristine);
        (case.damage)(&scene);
        let before = tree(&dist.root());
        let found = check(&dist, "");
        assert_eq!(tree(&dist.root()), before, "{}: a check changes nothing", case.name);
        scene.settle();
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
}
