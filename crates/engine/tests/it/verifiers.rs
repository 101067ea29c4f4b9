//! Programs and files that decide whether an image may be here: real programs, started as containerd starts them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use windlass::transfer::verify::{Documents, Subject, Verdict};
use windlass::transfer::{Verifier, verify};
use windlass::verify::{PolicyFile, Programs, Verification};
use windlass_core::{Descriptor, Error, Kind, Result};
use windlass_testkit::image::Signer;

const NAME: &str = "registry.test/app:1";

struct Nothing;

#[async_trait]
impl Documents for Nothing {
    async fn tagged(&self, _: &str) -> Result<Option<Descriptor>> {
        Ok(None)
    }

    async fn read(&self, descriptor: &Descriptor, _: u64) -> Result<Bytes> {
        Err(Error::not_found(descriptor.digest.to_string()))
    }
}

fn image() -> Descriptor {
    let mut image = Descriptor::of("application/vnd.oci.image.index.v1+json", b"an index");
    image.annotations.insert("a".to_owned(), "b".to_owned());
    image
}

async fn asked(verifier: &dyn Verifier) -> Result<Verdict> {
    verifier.verify(&Subject { name: NAME, descriptor: &image() }, &Nothing).await
}

/// Writes a program of the shell.
fn program(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn directory() -> (TempDir, Programs) {
    let directory = tempfile::tempdir().unwrap();
    let programs = Programs::new(directory.path());
    (directory, programs)
}

fn allowed(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allowed { reason } => reason,
        Verdict::Refused { by, reason } => panic!("refused by {by}: {reason}"),
    }
}

fn refused(verdict: Verdict) -> (String, String) {
    match verdict {
        Verdict::Refused { by, reason } => (by, reason),
        Verdict::Allowed { reason } => panic!("allowed: {reason}"),
    }
}

#[tokio::test]
async fn a_program_gets_what_containerd_gives_it() {
    let (directory, programs) = directory();
    let log = directory.path().with_extension("log");
    program(directory.path(), "one", &format!("{{ printf '%s\\n' \"$@\"; cat; }} > {}; echo fine", log.display()));
    assert_eq!(allowed(asked(&programs).await.unwrap()), "verifier one: fine");
    let image = image();
    let expected = format!(
        "-name\n{NAME}\n-digest\n{}\n-stdin-media-type\napplication/vnd.oci.descriptor.v1+json\n{}",
        image.digest,
        serde_json::to_string(&image).unwrap()
    );
    assert_eq!(std::fs::read_to_string(&log).unwrap(), expected);
    std::fs::remove_file(log).unwrap();
}

#[tokio::test]
async fn the_exit_code_decides_and_all_have_to_agree() {
    let (directory, programs) = directory();
    program(directory.path(), "a", "exit 0");
    program(directory.path(), "b", "echo 'not\ton Sundays'; echo really; exit 7");
    let never = program(directory.path(), "c", "touch $0.ran");
    let (by, reason) = refused(asked(&programs).await.unwrap());
    assert_eq!((by.as_str(), reason.as_str()), ("verifier b (exit code 7)", "not on Sundays really"));
    assert!(!never.with_extension("ran").exists());

    program(directory.path(), "b", "exit 1");
    assert_eq!(refused(asked(&programs).await.unwrap()).1, "it says nothing");
}

#[tokio::test]
async fn a_directory_without_programs_refuses_nothing() {
    let (directory, programs) = directory();
    assert!(allowed(asked(&programs).await.unwrap()).starts_with("there are no verifiers in"));
    drop(directory);
    assert!(allowed(asked(&programs).await.unwrap()).starts_with("there are no verifiers in"));
}

#[tokio::test]
async fn those_first_by_name_are_asked_when_there_are_too_many() {
    let (directory, programs) = directory();
    program(directory.path(), "1", "echo first");
    program(directory.path(), "2", "exit 1");
    let limited = Programs { limit: Some(1), ..programs.clone() };
    assert_eq!(allowed(asked(&limited).await.unwrap()), "verifier 1: first");
    refused(asked(&Programs { limit: None, ..programs }).await.unwrap());
}

#[tokio::test]
async fn what_is_no_program_and_what_a_signal_ends_is_an_error() {
    let (directory, programs) = directory();
    std::fs::write(directory.path().join("text"), "no program").unwrap();
    let error = asked(&programs).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("start verifier"), "{error}");
    std::fs::remove_file(directory.path().join("text")).unwrap();

    program(directory.path(), "dies", "kill -9 $$");
    let error = asked(&programs).await.unwrap_err();
    assert!(error.to_string().contains("was ended by signal 9"), "{error}");
}

/// Tells whether a process is there, and not merely waits to be reaped.
fn is_alive(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

fn assert_gone(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let began = Instant::now();
    while is_alive(pid.trim()) {
        assert!(began.elapsed() < Duration::from_secs(10), "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended_with_all_that_it_has_started() {
    let (directory, programs) = directory();
    let pids = [directory.path().with_extension("a"), directory.path().with_extension("b")];
    let text = format!("echo $$ > {}; sleep 100 & echo $! > {}; wait", pids[0].display(), pids[1].display());
    program(directory.path(), "slow", &text);
    let began = Instant::now();
    let error = asked(&Programs { timeout: Duration::from_millis(800), ..programs }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(20));
    for pid in &pids {
        assert_gone(pid);
        std::fs::remove_file(pid).unwrap();
    }
}

#[tokio::test]
async fn what_a_program_leaves_behind_neither_holds_the_answer_up_nor_stays() {
    let (directory, programs) = directory();
    let pid = directory.path().with_extension("pid");
    program(directory.path(), "leaves", &format!("sleep 100 & echo $! > {}; echo left; exit 0", pid.display()));
    let began = Instant::now();
    let programs = Programs { timeout: Duration::from_mins(1), ..programs };
    assert_eq!(allowed(asked(&programs).await.unwrap()), "verifier leaves: left");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_gone(&pid);
    std::fs::remove_file(pid).unwrap();
}

#[tokio::test]
async fn endless_words_are_cut_and_words_for_the_terminal_are_cleaned() {
    let (directory, programs) = directory();
    program(directory.path(), "loud", "head -c 10000000 /dev/zero | tr '\\0' x; head -c 10000000 /dev/zero >&2");
    let reason = allowed(asked(&programs).await.unwrap());
    assert!(reason.len() < 40_000 && reason.ends_with("x (the rest is left out)"), "{}", reason.len());
    program(directory.path(), "loud", "printf '\\033[31mred'");
    assert_eq!(allowed(asked(&programs).await.unwrap()), "verifier loud:  [31mred");
}

#[tokio::test]
async fn a_program_need_not_read_what_it_is_given() {
    let (directory, programs) = directory();
    program(directory.path(), "deaf", "exec <&-; echo no matter");
    let mut large = image();
    large.annotations.insert("large".to_owned(), "x".repeat(1 << 20));
    let verdict = programs.verify(&Subject { name: NAME, descriptor: &large }, &Nothing).await.unwrap();
    assert_eq!(allowed(verdict), "verifier deaf: no matter");
}

#[tokio::test]
async fn a_policy_is_read_anew_and_its_keys_are_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("default = \"allow\"\n");
    let policy = PolicyFile::open(&path).unwrap();
    allowed(asked(&policy).await.unwrap());
    write("default = \"deny\"\n");
    refused(asked(&policy).await.unwrap());

    write("default = \"deny\"\n[[rule]]\nname = \"**\"\naction = \"allow\"\nsigned_by = [\"a.pub\"]\n");
    let error = asked(&policy).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("policy.toml:5: rule.signed_by: read "), "{error}");
    std::fs::write(directory.path().join("a.pub"), Signer::new().public_key()).unwrap();
    assert!(refused(asked(&policy).await.unwrap()).1.contains("it has no signature"));

    // A policy that is broken allows nothing.
    write("default = ");
    assert_eq!(asked(&policy).await.unwrap_err().kind(), Kind::InvalidArgument);
    assert!(PolicyFile::open(&path).is_err());
    assert!(PolicyFile::open(directory.path().join("none")).is_err());
}

#[tokio::test]
async fn a_policy_and_programs_both_have_to_allow() {
    let (directory, programs) = directory();
    let path = directory.path().with_extension("toml");
    std::fs::write(&path, "default = \"allow\"\n").unwrap();
    let both = Verification { policy: Some(path.clone()), programs: Some(programs.clone()) };
    let verifier = both.verifier().unwrap().unwrap();
    allowed(asked(&*verifier).await.unwrap());
    program(directory.path(), "no", "exit 1");
    let image = image();
    let subject = Subject { name: NAME, descriptor: &image };
    let error = verify::check(Some(&verifier), &subject, &Nothing).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("is refused by verifier no (exit code 1): it says nothing"), "{error}");
    assert!(Verification::default().verifier().unwrap().is_none());
    std::fs::remove_file(path).unwrap();
}
