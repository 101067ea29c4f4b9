//! What the command says of itself.

use crate::dist::bare;

fn help(arguments: &str) -> String {
    let output = bare().args(arguments.split(' ').filter(|word| !word.is_empty())).arg("--help").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_explains_itself() {
    insta::assert_snapshot!("help", help(""));
}

#[test]
fn each_command_explains_itself() {
    let all: Vec<String> = [
        "pull",
        "fetch",
        "fetch-object",
        "push",
        "push-object",
        "copy",
        "tags",
        "inspect",
        "delete",
        "referrers",
        "login",
        "logout",
        "images",
        "images ls",
        "images inspect",
        "images rm",
        "images mount",
        "images unmount",
        "images import",
        "images export",
        "images convert",
        "images tag",
        "images label",
        "images check",
        "images usage",
        "images prune",
        "content",
        "content ls",
        "content get",
        "content ingest",
        "content active",
        "content status",
        "content abort",
        "content info",
        "content label",
        "content edit",
        "content rm",
        "snapshots",
        "snapshots ls",
        "snapshots mounts",
        "snapshots prepare",
        "snapshots view",
        "snapshots commit",
        "snapshots diff",
        "snapshots unpack",
        "snapshots tree",
        "snapshots info",
        "snapshots label",
        "snapshots rm",
        "doctor",
        "leases",
        "leases ls",
        "leases create",
        "leases rm",
        "leases resources",
        "leases add",
        "leases remove-resource",
        "namespaces",
        "namespaces ls",
        "namespaces create",
        "namespaces label",
        "namespaces rm",
        "fsck",
        "events",
        "plugins",
        "plugins ls",
        "daemon",
        "daemon config",
        "daemon config dump",
        "daemon config check",
        "daemon config migrate",
    ]
    .iter()
    .map(|command| {
        let text = help(command);
        let (own, examples) = text.split_once("Global options:").unwrap();
        let examples = examples.split_once("Examples:").map(|(_, examples)| examples).unwrap_or_default();
        format!("# dist {command}\n\n{}\n{examples}", own.trim_end())
    })
    .collect();
    insta::assert_snapshot!("help_of_commands", all.join("\n\n"));
}

#[test]
fn the_version_is_derived_from_git() {
    for flag in ["-v", "--version"] {
        let output = bare().arg(flag).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let version = text.strip_prefix("dist v").and_then(|text| text.strip_suffix('\n'));
        let version = version.unwrap_or_else(|| panic!("{text:?}"));
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    }
}
