//! Namespaces: records apart, bytes shared.

use serde_json::json;

use crate::dist::Dist;

#[test]
fn a_namespace_is_created_labelled_listed_and_removed() {
    let dist = Dist::new();
    dist.ok("namespaces create team owner=me empty=");
    dist.ok("namespaces label team a.b=c owner=");
    assert_eq!(dist.json("namespaces ls"), json!([{ "name": "team", "labels": { "a.b": "c" } }]));
    assert_eq!(dist.ok("ns ls"), "NAME  LABELS\nteam  a.b=c\n");
    assert_eq!(dist.ok("namespaces ls -q"), "team\n");
    let said = dist.run("namespaces create team").failed();
    assert!(said.contains("team"), "{said}");
    assert_eq!(dist.ok("namespaces rm team"), "team\n");
    assert_eq!(dist.json("namespaces ls"), json!([]));
}

#[test]
fn a_namespace_that_holds_something_is_not_removed_and_says_what() {
    let dist = Dist::new();
    let digest = dist.feed("-n team content ingest x", b"bytes").ok();
    let said = dist.run("namespaces rm team").failed();
    assert!(said.contains("team") && (said.contains("content") || said.contains("blob")), "{said}");
    dist.ok(&format!("-n team content rm {}", digest.trim()));
    dist.ok("namespaces rm team");
}

#[test]
fn the_namespace_is_named_by_option_or_environment() {
    let dist = Dist::new();
    dist.feed("-n one content ingest x", b"1").ok();
    let list = |arguments: &[&str], environment: &str| {
        let output = dist.command(arguments).env("CONTAINERD_NAMESPACE", environment).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    assert_eq!(list(&["content", "ls", "-q"], "one"), 1);
    assert_eq!(list(&["content", "ls", "-q"], "two"), 0);
    assert_eq!(list(&["content", "ls", "-q", "--namespace", "one"], "two"), 1);
    assert_eq!(list(&["content", "ls", "-q"], ""), 0);
}
