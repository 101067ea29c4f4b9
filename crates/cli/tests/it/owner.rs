//! One process owns a root at a time, and may die at any moment.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::dist::{Dist, Run, files_below};
use crate::fixture;

/// Starts a command that has the root until its standard input is closed.
fn owner(dist: &Dist) -> Child {
    let child = dist.start("content ingest held");
    let started = Instant::now();
    while !std::fs::read_to_string(dist.root().join("lock")).is_ok_and(|text| text.contains(&child.id().to_string())) {
        assert!(started.elapsed() < Duration::from_secs(20), "the lock is not taken");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Set-uid programs of old images would be theirs to run otherwise.
#[test]
fn what_is_kept_is_out_of_reach_of_other_users() {
    use std::os::unix::process::CommandExt as _;

    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    for snapshotter in ["overlayfs", "native", "erofs"] {
        dist.ok(&format!("pull --snapshotter {snapshotter} {reference}"));
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dist.path(""), open).unwrap();
    let files = files_below(&dist.root());
    assert!(files.iter().any(|path| path.ends_with("bin/greet")), "{files:?}");
    let reached = |path: &std::path::Path| {
        let mut cat = std::process::Command::new("cat");
        cat.arg(path).uid(65534).gid(65534).output().unwrap().status.success()
    };
    let others: Vec<_> = files.iter().filter(|path| reached(path)).collect();
    // Who has the root is no secret.
    assert!(others.iter().all(|path| **path == dist.root().join("lock")), "{others:?}");
}

#[test]
fn a_root_in_use_says_who_has_it() {
    let dist = Dist::new();
    let mut owner = owner(&dist);
    let said = dist.run("images ls").failed();
    assert!(said.contains(&owner.id().to_string()) && said.contains("hint: "), "{said}");
    assert!(said.contains(dist.root().to_str().unwrap()), "{said}");
    let said = dist.run("--wait=100ms images ls").failed();
    assert!(said.contains(&owner.id().to_string()), "{said}");

    let waiting = dist.start("--wait images ls -q");
    std::thread::sleep(Duration::from_millis(200));
    drop(owner.stdin.take());
    assert!(owner.wait().unwrap().success());
    assert!(waiting.wait_with_output().unwrap().status.success());
}

#[test]
fn an_interrupt_ends_a_pull_in_order_and_the_next_one_continues() {
    let dist = Dist::new();
    let slow = fixture::Slow::start();
    let child = slow.begin(&dist);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_continues(&dist, &slow);
}

#[test]
fn a_pull_that_was_killed_leaves_nothing_half_made_and_continues() {
    let dist = Dist::new();
    let slow = fixture::Slow::start();
    let mut child = slow.begin(&dist);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_continues(&dist, &slow);
}

/// Asserts that nothing of the pull is visible, and that the next one brings only what is missing.
fn assert_continues(dist: &Dist, slow: &fixture::Slow) {
    assert_eq!(dist.json("images ls"), json!([]));
    assert_eq!(dist.json("snapshots ls kind==active"), json!([]));
    let active = dist.json("content active");
    assert!(active[0]["offset"].as_u64().unwrap() > 0, "{active}");
    slow.hurry();
    let pulled = dist.json(&format!("pull {}", slow.reference()));
    assert!(pulled["reused"].as_u64().unwrap() > 0, "{pulled}");
    assert!(pulled["downloaded"].as_u64().unwrap() < slow.size(), "{pulled}");
    assert_eq!(dist.json("content active"), json!([]));
    let directory = dist.path("mounted");
    dist.ok(&format!("images mount {} {}", slow.reference(), directory.display()));
    assert_eq!(std::fs::read(directory.join("large")).unwrap(), fixture::large());
    dist.ok(&format!("images unmount {}", directory.display()));
}

#[test]
fn nothing_is_left_of_an_interrupted_pull_once_its_image_is_removed() {
    let dist = Dist::new();
    let slow = fixture::Slow::start();
    let mut child = slow.begin(&dist);
    child.kill().unwrap();
    child.wait().unwrap();
    slow.hurry();
    dist.ok(&format!("pull {}", slow.reference()));
    dist.ok(&format!("images rm {}", slow.reference()));
    dist.assert_empty();
}

#[test]
fn two_pulls_at_once_wait_for_each_other() {
    let dist = Dist::new();
    let slow = fixture::Slow::start();
    let first = slow.begin(&dist);
    let second = dist.start(&format!("--wait --progress none pull {}", slow.reference()));
    slow.hurry();
    for child in [first, second] {
        Run::of(child.wait_with_output().unwrap()).ok();
    }
}

/// Reads lines of JSON progress until one is as wanted, and returns what brings the others.
pub(crate) fn until(child: &mut Child, wanted: impl Fn(&Value) -> bool) -> JoinHandle<Vec<String>> {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = lines.any(|line| serde_json::from_str(&line.unwrap()).is_ok_and(|line| wanted(&line)));
    assert!(found, "the command ended before it came to that");
    // The rest has to be read, or the command would wait for it.
    std::thread::spawn(move || lines.map_while(Result::ok).collect())
}
