//! Finds out the version that `dist --version` prints, and hands it over as `DIST_VERSION`; the commit, whole, as `DIST_REVISION`.
//!
//! `v1.2.0-3-g7953e96.m`: the nearest tag, how many commits ago that was, the commit, and `.m` when the working tree has
//! local changes. Without any tag, the crate's version stands for it and all commits are counted. Outside of the
//! project's own git checkout it is the crate's version alone.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let repository = Repository::containing(&manifest);
    let described = repository.as_ref().and_then(|repository| {
        repository.watch();
        repository.describe(&version)
    });
    let revision = repository.and_then(|repository| repository.revision());
    println!("cargo::rustc-env=DIST_VERSION={}", described.unwrap_or(version));
    println!("cargo::rustc-env=DIST_REVISION={}", revision.unwrap_or_default());
}

/// The git checkout that the crate is part of.
struct Repository(PathBuf);

impl Repository {
    /// Finds the checkout, if it is this project's and not one that merely contains it.
    fn containing(manifest: &Path) -> Option<Self> {
        let root = manifest.parent()?.parent()?.canonicalize().ok()?;
        let repository = Self(root.clone());
        let top = PathBuf::from(repository.git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
        (top == root).then_some(repository)
    }

    fn git(&self, arguments: &[&str]) -> Option<String> {
        // Without optional locks: git would refresh the index, and cargo would take that for a change.
        let output =
            Command::new("git").arg("--no-optional-locks").arg("-C").arg(&self.0).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    }

    /// Has cargo run this again when the commit, a tag or the index changes, and not otherwise.
    fn watch(&self) {
        for name in ["HEAD", "index", "refs", "packed-refs"] {
            let path = self.git(&["rev-parse", "--git-path", name]).map(|path| self.0.join(path));
            // A path that does not exist would have this run every time.
            if let Some(path) = path.filter(|path| path.exists()) {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }

    /// Returns the commit, with `.m` behind it as containerd has it when the working tree has local changes.
    fn revision(&self) -> Option<String> {
        let commit = self.git(&["rev-parse", "HEAD"])?;
        let changed = self.git(&["status", "--porcelain", "--untracked-files=no"])?;
        Some(format!("{commit}{}", if changed.is_empty() { "" } else { ".m" }))
    }

    fn describe(&self, version: &str) -> Option<String> {
        if let Some(described) = self.git(&["describe", "--match", "v[0-9]*", "--dirty=.m"]) {
            return Some(described);
        }
        let commits = self.git(&["rev-list", "--count", "HEAD"])?;
        let commit = self.git(&["rev-parse", "--short", "HEAD"])?;
        let changed = self.git(&["status", "--porcelain", "--untracked-files=no"])?;
        let mark = if changed.is_empty() { "" } else { ".m" };
        Some(format!("v{version}-{commits}-g{commit}{mark}"))
    }
}
