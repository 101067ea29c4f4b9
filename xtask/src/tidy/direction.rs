//! Which crate may see which: the house has floors, and one looks down only.

use super::Finding;
use super::tree::{Dependency, Package, Purpose, Tree};

/// The folders of the first floor: each sees the contract and no neighbour.
const FIRST_FLOOR: &[&str] = &["store", "registry", "layer", "snapshot", "transfer", "proto", "shim"];
/// The packages that nothing depends on, and who may nevertheless: the daemon is a subcommand of the command.
const TOP: &[(&str, &[&str])] = &[("windlass-daemon", &["windlass-cli"]), ("windlass-cli", &[]), ("xtask", &[])];
/// What only some folders may depend on, by the beginning of its name, and who they are.
const CONFINED: &[(&str, &[&str])] = &[
    ("tonic", &["proto", "grpc", "daemon"]),
    ("prost", &["proto", "grpc", "daemon"]),
    ("ttrpc", &["shim"]),
    ("hyper", &["registry", "testkit"]),
    // The connection of a client whose socket is set up here.
    ("hyper-util", &["grpc", "registry", "testkit"]),
    ("http", &["registry", "testkit"]),
    // The bodies of answers, which a daemon ends when it stops.
    ("http-body", &["daemon", "registry", "testkit"]),
    ("reqwest", &[]),
    ("rustls", &["registry", "testkit"]),
    ("ring", &["transfer", "testkit"]),
    ("redb", &["store", "snapshot"]),
    ("clap", &["cli", "daemon", "xtask"]),
    ("indicatif", &["cli"]),
    ("anyhow", &["cli", "daemon", "xtask"]),
];
/// What the contract may never depend on: it does no I/O.
const NOT_IN_CORE: &[&str] = &["tokio", "rustix", "libc", "tempfile"];

/// The folders beside the contract: formats, which see nothing of ours.
const FORMATS: &[&str] = &["erofs"];
/// The folders beside the contract that see it, and nothing else of ours.
const BESIDE: &[&str] = &["archive"];

/// A crate of the first floor depends on the contract and on no neighbour (the shim sees `proto`); nothing depends on
/// the top; the contract and the formats depend on none of ours (archives see the contract), and the contract does no I/O.
pub(super) fn layers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &tree.packages {
        let neighbours = FIRST_FLOOR.contains(&room(package));
        for dependency in &package.dependencies {
            let ours = tree.packages.iter().find(|other| other.name == dependency.name);
            let seen = ours.map(room).unwrap_or_default();
            let above = TOP.iter().find(|(name, _)| *name == dependency.name);
            let what = if above.is_some_and(|(_, allowed)| !allowed.contains(&package.name.as_str())) {
                format!("{} depends on {}, which is at the top", package.name, dependency.name)
            } else if neighbours && FIRST_FLOOR.contains(&seen) && (room(package), seen) != ("shim", "proto") {
                format!("{} depends on its neighbour {}", package.name, dependency.name)
            } else if neighbours && ["engine", "grpc"].contains(&seen) {
                format!("{} depends on {}, which is above it", package.name, dependency.name)
            } else if room(package) == "core" && dependency.purpose != Purpose::Development && ours.is_some() {
                format!("the contract depends on {}", dependency.name)
            } else if FORMATS.contains(&room(package)) && ours.is_some() {
                format!("{} is a format by itself, and depends on {}", package.name, dependency.name)
            } else if BESIDE.contains(&room(package)) && ours.is_some() && seen != "core" {
                format!("{} sees the contract alone, and depends on {}", package.name, dependency.name)
            } else if room(package) == "core" && NOT_IN_CORE.contains(&dependency.name.as_str()) {
                format!("the contract does no I/O, and depends on {}", dependency.name)
            } else {
                continue;
            };
            findings.push(finding(tree, package, dependency, "direction", what));
        }
    }
    findings
}

/// A heavy dependency stays behind the crates that it is for. Tests may use what they like.
pub(super) fn confined(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &tree.packages {
        for dependency in package.dependencies.iter().filter(|it| it.purpose != Purpose::Development) {
            let confined = CONFINED
                .iter()
                .filter(|(prefix, _)| is_or_extends(&dependency.name, prefix))
                .max_by_key(|(prefix, _)| prefix.len());
            if let Some((_, allowed)) = confined
                && !allowed.contains(&room(package))
            {
                let what = format!(
                    "{} is only for {}",
                    dependency.name,
                    if allowed.is_empty() { "nobody".into() } else { allowed.join(", ") }
                );
                findings.push(finding(tree, package, dependency, "confined", what));
            }
        }
    }
    findings
}

/// The test kit is for tests; only this crate's commands use it outside of them.
pub(super) fn testkit(tree: &Tree) -> Vec<Finding> {
    let used = |package: &&Package| !["testkit", "xtask"].contains(&room(package));
    let mut findings = Vec::new();
    for package in tree.packages.iter().filter(used) {
        let of_product = |it: &&Dependency| it.name == "windlass-testkit" && it.purpose != Purpose::Development;
        for dependency in package.dependencies.iter().filter(of_product) {
            let what = "the test kit may only be a dev-dependency";
            findings.push(finding(tree, package, dependency, "testkit", what.into()));
        }
    }
    findings
}

/// Every package has the workspace's lints.
pub(super) fn lints(tree: &Tree) -> Vec<Finding> {
    let manifest = |package: &Package| tree.file(&format!("{}/Cargo.toml", package.folder));
    let bare =
        tree.packages.iter().filter_map(manifest).filter(|file| !file.text.contains("[lints]\nworkspace = true"));
    bare.map(|file| Finding::new(&file.path, 1, "lints", "the workspace's lints are not inherited")).collect()
}

/// Returns the name of the folder a package lives in.
fn room(package: &Package) -> &str {
    package.folder.rsplit('/').next().unwrap_or_default()
}

fn is_or_extends(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn finding(tree: &Tree, package: &Package, dependency: &Dependency, rule: &'static str, what: String) -> Finding {
    let path = format!("{}/Cargo.toml", package.folder);
    let declares =
        |line: &str| line.strip_prefix(&*dependency.name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    let line = tree.file(&path).and_then(|file| file.text.lines().position(declares)).map_or(1, |at| at + 1);
    Finding::new(&path, line, rule, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    fn house() -> Tree {
        let core = [("windlass-core", Purpose::Normal)];
        let formats = [("windlass-core", Purpose::Normal), ("windlass-erofs", Purpose::Normal)];
        Tree::of(&[("crates/store/Cargo.toml", "[lints]\nworkspace = true\n")])
            .package("windlass-core", "crates/core", &[("serde", Purpose::Normal)])
            .package("windlass-erofs", "crates/erofs", &[("tempfile", Purpose::Development)])
            .package("windlass-archive", "crates/archive", &core)
            .package("windlass-store", "crates/store", &core)
            .package("windlass-layer", "crates/layer", &formats)
            .package("windlass-testkit", "crates/testkit", &core)
            .package("windlass", "crates/engine", &[("windlass-store", Purpose::Normal)])
            .package(
                "windlass-daemon",
                "crates/daemon",
                &[("windlass", Purpose::Normal), ("http-body", Purpose::Normal)],
            )
            .package(
                "windlass-cli",
                "crates/cli",
                &[("windlass", Purpose::Normal), ("windlass-daemon", Purpose::Normal), ("clap", Purpose::Normal)],
            )
            .package("xtask", "xtask", &[("windlass-testkit", Purpose::Normal)])
    }

    #[test]
    fn the_house_as_designed_has_no_findings() {
        let tree = house();
        let findings: Vec<_> = [layers, confined, testkit, lints].iter().flat_map(|rule| rule(&tree)).collect();
        assert_eq!(texts(&findings), Vec::<String>::new());
    }

    #[test]
    fn a_neighbour_is_not_seen_not_even_in_tests() {
        for purpose in [Purpose::Normal, Purpose::Development] {
            let tree = house().package("windlass-layer", "crates/layer", &[("windlass-store", purpose)]);
            assert_eq!(
                texts(&layers(&tree)),
                ["crates/layer/Cargo.toml:1: direction: windlass-layer depends on its neighbour windlass-store"]
            );
        }
    }

    #[test]
    fn nobody_looks_up() {
        let tree = house().package(
            "windlass-layer",
            "crates/layer",
            &[("windlass-cli", Purpose::Normal), ("windlass", Purpose::Development)],
        );
        assert_eq!(layers(&tree).len(), 2);
        let tree = Tree::default().package("windlass-store", "crates/store", &[]).package(
            "windlass-core",
            "crates/core",
            &[("windlass-store", Purpose::Normal), ("tokio", Purpose::Normal)],
        );
        assert_eq!(layers(&tree).len(), 2);
    }

    #[test]
    fn the_daemon_is_seen_by_the_command_alone() {
        let daemon = [("windlass-daemon", Purpose::Development)];
        let tree = house().package("windlass-bench", "crates/bench", &daemon);
        assert_eq!(
            texts(&layers(&tree)),
            ["crates/bench/Cargo.toml:1: direction: windlass-bench depends on windlass-daemon, which is at the top"]
        );
    }

    #[test]
    fn a_longer_name_is_confined_by_its_own_rule() {
        let body = [("http-body", Purpose::Normal), ("http-body-util", Purpose::Normal), ("http", Purpose::Normal)];
        let tree = house().package("windlass-daemon", "crates/daemon", &body);
        assert_eq!(confined(&tree).len(), 1, "http alone");
    }

    #[test]
    fn a_heavy_dependency_outside_its_room_is_found_where_it_is_declared() {
        let manifest = "[dependencies]\nhyper.workspace = true\nhyper-util.workspace = true\n";
        let tree = Tree::of(&[("crates/layer/Cargo.toml", manifest)]).package(
            "windlass-layer",
            "crates/layer",
            &[("hyper-util", Purpose::Normal), ("redb", Purpose::Development)],
        );
        assert_eq!(
            texts(&confined(&tree)),
            ["crates/layer/Cargo.toml:3: confined: hyper-util is only for grpc, registry, testkit"]
        );
    }

    #[test]
    fn the_test_kit_in_the_product_is_found() {
        let tree = house().package("windlass-layer", "crates/layer", &[("windlass-testkit", Purpose::Normal)]);
        assert_eq!(testkit(&tree).len(), 1);
    }

    #[test]
    fn a_package_without_the_lints_is_found() {
        let tree = Tree::of(&[("crates/a/Cargo.toml", "[package]\n")]).package("a", "crates/a", &[]);
        assert_eq!(lints(&tree).len(), 1);
    }
}
