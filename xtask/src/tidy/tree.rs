//! What the rules look at: the files of the repository, and the packages of the workspace.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The repository as the rules see it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Every text file that is or will be tracked.
    pub(super) files: Vec<File>,
    /// Every path that is there, directories too, relative to the root.
    pub(super) paths: std::collections::BTreeSet<String>,
    /// The packages of the workspace.
    pub(super) packages: Vec<Package>,
}

/// A text file.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the workspace's root.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    /// Whether its name has that extension.
    pub(super) fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|it| it == extension)
    }
}

/// A package of the workspace.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its folder, relative to the workspace's root.
    pub(super) folder: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// What a package says it depends on.
#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) purpose: Purpose,
}

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The product.
    Normal,
    /// Tests, examples and benches.
    Development,
    /// The build script.
    Build,
}

impl Tree {
    /// Reads the workspace that this program was built from.
    pub(super) fn read() -> Result<Self> {
        let root = process::workspace();
        let mut git = std::process::Command::new("git");
        git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = process::output(&mut git).context("list the files of the repository")?;
        let mut tree = Self::default();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            // A tracked file may just have been deleted or replaced by a link; what is no text has no conventions.
            let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
            tree.add_path(path);
            if let Ok(text) = String::from_utf8(bytes) {
                tree.files.push(File { path: path.to_owned(), text });
            }
        }
        tree.files.sort_by(|one, other| one.path.cmp(&other.path));
        tree.files.dedup_by(|one, other| one.path == other.path);
        let metadata = process::output(process::cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
        tree.packages = packages(&serde_json::from_str(&metadata)?).context("read what cargo metadata says")?;
        Ok(tree)
    }

    fn add_path(&mut self, path: &str) {
        let parents = Path::new(path).ancestors().filter_map(Path::to_str);
        self.paths.extend(parents.filter(|path| !path.is_empty()).map(str::to_owned));
    }

    /// Returns the Rust sources.
    pub(super) fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is("rs"))
    }

    /// Returns the documents.
    pub(super) fn documents(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is("md"))
    }

    /// Returns one file.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// Reads the packages out of `cargo metadata`; `None` when it is not of the shape that cargo documents.
fn packages(metadata: &Value) -> Option<Vec<Package>> {
    let root = Path::new(metadata.get("workspace_root")?.as_str()?);
    let package = |package: &Value| {
        let folder = Path::new(package.get("manifest_path")?.as_str()?).parent()?.strip_prefix(root).ok()?;
        let dependencies = package.get("dependencies")?.as_array()?.iter().map(dependency).collect::<Option<_>>()?;
        Some(Package {
            name: package.get("name")?.as_str()?.to_owned(),
            folder: folder.to_str()?.to_owned(),
            dependencies,
        })
    };
    metadata.get("packages")?.as_array()?.iter().map(package).collect()
}

fn dependency(dependency: &Value) -> Option<Dependency> {
    let purpose = match dependency.get("kind")?.as_str() {
        Some("dev") => Purpose::Development,
        Some("build") => Purpose::Build,
        _ => Purpose::Normal,
    };
    Some(Dependency { name: dependency.get("name")?.as_str()?.to_owned(), purpose })
}

#[cfg(test)]
impl Tree {
    /// Makes a tree of those files.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add_path(path);
            tree.files.push(File { path: (*path).to_owned(), text: (*text).to_owned() });
        }
        tree
    }

    /// Adds a package with those dependencies.
    pub(super) fn package(mut self, name: &str, folder: &str, dependencies: &[(&str, Purpose)]) -> Self {
        let dependency = |(name, purpose): &(&str, Purpose)| Dependency { name: (*name).to_owned(), purpose: *purpose };
        self.packages.push(Package {
            name: name.to_owned(),
            folder: folder.to_owned(),
            dependencies: dependencies.iter().map(dependency).collect(),
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_the_workspace_are_read_with_what_their_dependencies_are_for() {
        let metadata = serde_json::json!({"workspace_root": "/w", "packages": [{
            "name": "windlass-store", "manifest_path": "/w/crates/store/Cargo.toml",
            "dependencies": [{"name": "redb", "kind": null}, {"name": "tempfile", "kind": "dev"}],
        }]});
        let [package] = &packages(&metadata).unwrap()[..] else { panic!("not one package") };
        assert_eq!((package.name.as_str(), package.folder.as_str()), ("windlass-store", "crates/store"));
        let purposes: Vec<_> = package.dependencies.iter().map(|it| (it.name.as_str(), it.purpose)).collect();
        assert_eq!(purposes, [("redb", Purpose::Normal), ("tempfile", Purpose::Development)]);
    }
}
