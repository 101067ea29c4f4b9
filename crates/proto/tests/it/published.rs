//! Our descriptions say what published ones say: the same messages, fields, numbers and types.
//!
//! Compared with what Debian packages of containerd 1.6, and with what the crate `containerd-client` brings for what is newer.
//! Where neither has a message, the comparison says so by [`ONLY_OURS`], so that nothing is left out by accident.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

use crate::{descriptions, home, ours};

/// What no published description here has: newer than both, or another project's.
const ONLY_OURS: [&str; 7] = [
    "containerd.events.Sandbox",
    "containerd.services.mounts.v1.",
    "containerd.services.snapshots.v1.CommitSnapshotRequest.parent",
    "containerd.types.ActivationInfo",
    "containerd.types.ActiveMount",
    "google.rpc.ErrorInfo",
    "windlass.",
];

/// The packages that ours are about; options of runtimes and of other projects are not among them.
const OURS: [&str; 6] =
    ["containerd.events", "containerd.services", "containerd.types", "containerd.v1", "google.rpc", "windlass."];

/// Debian's descriptions, of the package golang-github-containerd-containerd-dev.
const DEBIAN: &str = "/usr/share/gocode/src";

#[test]
fn messages_and_services_are_those_of_debians_containerd() {
    let root = Path::new(DEBIAN);
    assert!(root.is_dir(), "the package golang-github-containerd-containerd-dev is not installed");
    // What it imports stands in packages that it depends on.
    let imported = ["github.com/gogo/protobuf", "github.com/gogo/googleapis"].map(|path| root.join(path));
    let theirs = published(&[root, &imported[0], &imported[1]], &root.join("github.com/containerd/containerd/api"));
    let facts: BTreeMap<String, String> =
        facts_of(&theirs).into_iter().map(|(name, fact)| (moved(&name), moved(&fact))).collect();
    assert!(facts.len() > 300, "only {} facts were read", facts.len());
    compare(&facts, &facts_of(&ours()));
}

#[test]
fn messages_and_services_are_those_of_the_client_crate() {
    let root = client_crate().join("vendor");
    let theirs = published(&[&root], &root.join("github.com/containerd/containerd/api"));
    let theirs = facts_of(&theirs);
    let ours = facts_of(&ours());
    compare(&theirs, &ours);
    let unknown: Vec<&String> = ours
        .keys()
        .filter(|name| !theirs.contains_key(*name) && !ONLY_OURS.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert!(unknown.is_empty(), "nobody else has {unknown:#?}");
}

/// Names a message as it is called since it moved to another package; its bytes did not change.
fn moved(text: &str) -> String {
    text.replace("containerd.services.events.ttrpc.v1.Envelope", "containerd.types.Envelope")
        .replace("containerd.services.events.v1.Envelope", "containerd.types.Envelope")
}

/// Compiles the published descriptions that ours are about.
fn published(roots: &[&Path], api: &Path) -> FileDescriptorSet {
    let below = api.strip_prefix(roots[0]).unwrap();
    let wanted = |path: &Path| ["services", "types", "events"].iter().any(|part| path.starts_with(part));
    let files: Vec<PathBuf> =
        descriptions(api).into_iter().filter(|path| wanted(path)).map(|path| below.join(path)).collect();
    protox::compile(files, roots).unwrap()
}

/// Returns the directory of the client crate's source.
fn client_crate() -> PathBuf {
    // What other platforms need was never downloaded.
    let version = cargo(&["-vV"]);
    let platform = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let manifest = home().join("Cargo.toml");
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--offline",
        "--filter-platform",
        platform,
        "--manifest-path",
        manifest.to_str().unwrap(),
    ]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let client = packages.iter().find(|package| package["name"] == "containerd-client").unwrap();
    Path::new(client["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// Returns what cargo prints.
fn cargo(arguments: &[&str]) -> String {
    let cargo = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    String::from_utf8(cargo.stdout).unwrap()
}

/// Everything that the wire depends on, by full name: of a field its number, type and label, of a value its number, of a
/// method what goes in and out.
fn facts_of(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for file in &set.file {
        let package = file.package();
        if !OURS.iter().any(|prefix| package.starts_with(prefix)) {
            continue;
        }
        for message in &file.message_type {
            of_message(&mut facts, package, message);
        }
        for values in &file.enum_type {
            of_enum(&mut facts, package, values);
        }
        for service in &file.service {
            for method in &service.method {
                let streams = (method.client_streaming(), method.server_streaming());
                let fact = format!("{} -> {} {streams:?}", method.input_type(), method.output_type());
                facts.insert(format!("{package}.{}/{}", service.name(), method.name()), fact);
            }
        }
    }
    facts
}

fn of_message(facts: &mut BTreeMap<String, String>, outer: &str, message: &DescriptorProto) {
    let name = format!("{outer}.{}", message.name());
    for field in &message.field {
        let (kind, label): (Type, Label) = (field.r#type(), field.label());
        let fact = format!("{} {kind:?} {label:?} {}", field.number(), field.type_name());
        facts.insert(format!("{name}.{}", field.name()), fact);
    }
    for nested in &message.nested_type {
        of_message(facts, &name, nested);
    }
    for values in &message.enum_type {
        of_enum(facts, &name, values);
    }
}

fn of_enum(facts: &mut BTreeMap<String, String>, outer: &str, values: &EnumDescriptorProto) {
    for value in &values.value {
        facts.insert(format!("{outer}.{}.{}", values.name(), value.name()), value.number().to_string());
    }
}

/// Every fact of theirs is one of ours.
fn compare(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>) {
    let wrong: Vec<String> = theirs
        .iter()
        .filter(|(name, fact)| ours.get(*name) != Some(fact))
        .map(|(name, fact)| format!("{name}: they have {fact}, we have {:?}", ours.get(name)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
