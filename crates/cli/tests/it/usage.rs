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
            "--wait=soon images ls",
            "--log-level loud images ls",
        ])
    );
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
