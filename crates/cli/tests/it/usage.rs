//! Command lines that are wrong by themselves: exit code 2, and nothing is touched.

use crate::dist::Dist;

/// Runs command lines that must be refused, and returns what a terminal would show.
fn refused(lines: &[&str]) -> String {
    let dist = Dist::new();
    let shown = lines.iter().map(|line| format!("$ dist {line}\n{}", dist.run(line).refused()));
    let shown = shown.collect::<Vec<_>>().join("\n");
    assert!(!dist.root().exists(), "the root has been created");
    shown
}

#[test]
fn values_that_cannot_be_parsed() {
    let digest = windlass_core::Digest::sha256(b"x");
    insta::assert_snapshot!(
        "wrong_values",
        refused(&[
            "pull redis:a/b",
            "pull Redis",
            "pull https://quay.io/x",
            "pull quay.io/",
            "fetch quay.io/x@sha256:xyz",
            "fetch-object oci:",
            "fetch-object redis layer",
            "content get sha256:abc",
            "-n a--b images ls",
            "pull --platform a/b/c/d redis",
            "images ls name=",
            "namespaces label x y",
            "content info 0123456789ab",
            "content rm md5:0123456789abcdef",
            "content label sha256:0123456789ab a=b",
            &format!("content label {digest} =x"),
            "content active ref=~x",
            "leases create -x soon",
            "leases add x blobs/y",
            "leases add x content/sha256:abc",
            "--content-sharing some images ls",
            "--wait=soon images ls",
            "--log-level loud images ls",
        ])
    );
}

#[test]
fn values_that_are_too_long_are_not_repeated_in_full() {
    let dist = Dist::new();
    let digest = windlass_core::Digest::sha256(b"x");
    for (line, rule) in [
        (format!("content label {digest} key={}", "v".repeat(4096)), "4096"),
        (format!("content abort {}", "x".repeat(1025)), "1024 bytes"),
        (format!("content status {}", "x".repeat(1025)), "1024 bytes"),
        (format!("leases create --id {}", "x".repeat(1025)), "1024 bytes"),
        ("content status a\nb".to_owned(), "control characters"),
    ] {
        let said = dist.run(&line).refused();
        assert!(said.contains(rule) && said.len() < 500 && said.contains("hint: "), "{said}");
    }
    assert!(!dist.root().exists());
}

#[test]
fn arguments_that_are_missing_unknown_or_exclude_each_other() {
    insta::assert_snapshot!(
        "wrong_arguments",
        refused(&[
            "pull",
            "pull --all-platforms --platform arm64 redis",
            "pull --no-unpack --snapshotter native redis",
            "fetch-object redis --media-type x",
            "images rm",
            "images ls --format yaml",
            "frobnicate",
        ])
    );
}

#[test]
fn an_empty_namespace_in_the_environment_is_the_default_one() {
    let dist = Dist::new();
    let output = dist.command(["namespaces", "create", "x"]).env("CONTAINERD_NAMESPACE", "").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
