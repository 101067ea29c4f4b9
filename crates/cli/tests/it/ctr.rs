//! Debian's `ctr` on our daemon and on Debian's containerd: the same command lines print the same.
//!
//! What differs between any two runs is blanked: times, ages, durations, directories of the test, rates, random names. Of some lines
//! only success is compared, and the table says why.

use std::process::Command;

use windlass_core::Digest;
use windlass_testkit::registry::DockerRegistry;

use crate::archives::Containerd;
use crate::dist::{Dist, Run};
use crate::fixture;
use crate::remote::Daemon;

/// What is compared of a command line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// The exit code, and what is printed.
    Output,
    /// The exit code, and what is printed, in any order.
    Lines,
    /// The exit code: what is printed is the implementation's, such as where its directories are.
    Success,
}
use Compared::{Lines, Output, Success};

fn ctr(dist: &Dist, socket: &str, line: &str) -> Run {
    let mut command = Command::new("ctr");
    command.args(["-a", socket]).args(line.split(' ')).current_dir(dist.path(""));
    Run::of(command.output().unwrap())
}

/// What a run shows, without what differs between any two of them.
fn shown(dist: &Dist, run: &Run, compared: Compared) -> String {
    let code = format!("{:?}", run.code);
    if compared == Success {
        return code;
    }
    let printed = String::from_utf8_lossy(&run.stdout).replace(&dist.path("").display().to_string(), "DIR/");
    let mut lines: Vec<String> = printed.split(['\n', '\r']).map(blanked).filter(|line| !line.is_empty()).collect();
    if compared == Lines {
        lines.sort();
        lines.dedup();
    }
    format!("{code}\n{}", lines.join("\n"))
}

/// Blanks times, durations and rates, and puts one space where there are several.
fn blanked(line: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let bare = word.trim_matches(['"', ',']);
        let is_time = windlass_core::timestamp::parse(bare).is_some();
        let digits = bare.starts_with(|c: char| c.is_ascii_digit());
        let is_duration = digits && ["ms", "µs", "s"].iter().any(|unit| bare.ends_with(unit)) && bare.contains('.');
        // Of an age, such as `3 seconds`, the number is blanked as well.
        let is_age = ["second", "seconds", "minute", "minutes", "Less", "than", "a", "About"].contains(&bare);
        let is_rate = bare.starts_with('(') || bare.ends_with("/s)");
        if is_age {
            words.pop_if(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        } else if is_time || is_duration || is_rate {
            words.push("TIME");
        } else {
            words.push(word);
        }
    }
    // Labels come in the order of a hash table.
    let sorted = |word: &str| {
        let mut parts: Vec<&str> = word.split(',').collect();
        parts.sort_unstable();
        parts.join(",")
    };
    words.into_iter().map(sorted).collect::<Vec<_>>().join(" ")
}

/// What a user of `ctr` does that needs no task.
fn lines(archive: &str, registry: &str) -> Vec<(Compared, String)> {
    let one = Digest::sha256(b"one");
    let image = "example.org/app:v1";
    let pulled = format!("{registry}/app:1");
    [
        (Output, format!("images import --base-name example.org/app {archive}")),
        (Output, "images ls".into()),
        (Output, "images ls -q".into()),
        (Output, format!("images ls name=={image}")),
        (Output, "images ls bad filter".into()),
        (Output, "images check".into()),
        (Output, "images check -q".into()),
        (Output, format!("images tag {image} example.org/app:v2")),
        (Output, format!("images tag {image} example.org/app:v2")),
        (Output, format!("images tag --force {image} example.org/app:v2")),
        (Output, format!("images label {image} team=a")),
        (Output, format!("images label {image} team=")),
        (Output, format!("images label --replace-all {image} other=b")),
        (Output, "images label absent a=b".into()),
        (Success, format!("images export out.tar {image}")),
        (Success, "images export absent.tar absent".into()),
        (Output, format!("images convert --uncompress {image} example.org/app:plain")),
        (Success, format!("images mount {image} mnt")),
        (Success, "images unmount --rm mnt".into()),
        // Progress is sampled: how many states of it are seen is chance.
        (Success, format!("images pull --plain-http {pulled}")),
        (Output, "images ls".into()),
        (Success, format!("content fetch --plain-http {pulled}")),
        (Output, format!("content fetch-object --plain-http {pulled}")),
        (Success, format!("images push --plain-http {registry}/pushed:1 {image}")),
        (Output, format!("images rm {pulled}")),
        (Output, "images rm absent".into()),
        (Output, "images rm --sync example.org/app:v2 example.org/app:plain".into()),
        (Lines, "content ls".into()),
        (Lines, "content ls -q".into()),
        (Output, format!("content get {one}")),
        (Output, format!("content label {one} containerd.io/gc.root=now")),
        (Output, "content active".into()),
        (Output, format!("content rm {one}")),
        (Output, format!("content rm {one}")),
        (Output, "snapshots ls".into()),
        (Output, "snapshots tree".into()),
        (Success, "snapshots prepare work".into()),
        (Success, "snapshots prepare work".into()),
        (Success, "snapshots mounts target work".into()),
        (Output, "snapshots info work".into()),
        (Output, "snapshots label work a=b".into()),
        (Output, "snapshots commit done work".into()),
        (Output, "snapshots info done".into()),
        (Success, "snapshots view look done".into()),
        (Output, "snapshots usage done".into()),
        (Output, "snapshots rm done".into()),
        (Output, "snapshots rm look done".into()),
        (Output, "snapshots rm absent".into()),
        (Output, "namespaces create team a=b".into()),
        (Output, "namespaces create team".into()),
        (Output, "namespaces label team a=c".into()),
        (Output, "namespaces label fresh a=b".into()),
        (Output, "namespaces ls".into()),
        (Output, "namespaces rm fresh".into()),
        (Output, "-n team images ls".into()),
        (Output, "namespaces rm default".into()),
        (Output, "namespaces rm team".into()),
        (Output, "namespaces rm team".into()),
        (Output, "leases create --id build team=mine".into()),
        (Output, "leases create --id build".into()),
        (Lines, "leases ls -q".into()),
        (Output, "leases rm --sync build".into()),
        (Output, "leases rm build".into()),
        (Output, format!("containers create {image} c1")),
        (Output, format!("containers create {image} c1")),
        (Output, "containers ls".into()),
        (Output, "containers ls -q".into()),
        (Output, "containers ls id==c1".into()),
        (Output, "containers label c1 a=b".into()),
        (Success, "containers info c1".into()),
        (Output, "containers info absent".into()),
        (Output, "containers rm c1".into()),
        (Output, "containers rm c1".into()),
        (Output, "tasks ls".into()),
        (Success, "plugins ls".into()),
        (Success, "plugins ls -d id==overlayfs".into()),
        (Success, "version".into()),
        (Output, format!("images rm --sync {image}")),
        (Output, "images ls".into()),
        (Output, "snapshots ls".into()),
    ]
    .to_vec()
}

#[test]
fn what_ctr_prints_is_what_it_prints_of_containerd() {
    let (ours, theirs) = (Dist::new(), Dist::new());
    let maker = Dist::new();
    let registry = DockerRegistry::start();
    registry.push_layout(fixture::directory(&maker), "app:1");
    let archive = maker.path("image.tar");
    maker.ok(&format!("fetch --all-platforms {}", fixture::layout(&maker)));
    let name = maker.ok("images ls -q");
    maker.ok(&format!("images tag {} example.org/app:v1", name.trim()));
    maker.ok(&format!("images export {} example.org/app:v1", archive.display()));

    let (daemon, containerd) = (Daemon::start(&ours), Containerd::start(&theirs));
    let socket = daemon.socket.display().to_string();
    for dist in [&ours, &theirs] {
        std::fs::create_dir(dist.path("mnt")).unwrap();
    }
    let mut different = Vec::new();
    let lines = lines(archive.to_str().unwrap(), registry.host());
    for (compared, line) in &lines {
        let by_ours = shown(&ours, &ctr(&ours, &socket, line), *compared);
        let by_theirs = shown(&theirs, &ctr(&theirs, &containerd.socket, line), *compared);
        if by_ours != by_theirs {
            different.push(format!("$ ctr {line}\n--- ours\n{by_ours}\n--- containerd's\n{by_theirs}"));
        }
    }
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), lines.len(), different.join("\n\n"));
}
