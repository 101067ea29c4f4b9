//! What a recipe names: packages of Debian, of Python's index and of Node's, brought into the cache.

use std::path::{Path, PathBuf};

use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

use super::{deb, node, wheel};

/// A package as a recipe names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    /// `NAME`
    Debian(&'a str),
    /// `pypi:NAME==VERSION`, unpacked as pip would have done it.
    Wheel(Pinned<'a>),
    /// `pypi-file:NAME==VERSION`, the archive as it is.
    WheelFile(Pinned<'a>),
    /// `npm:NAME@VERSION`
    Node(Pinned<'a>),
}

/// A package of which one version is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pinned<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
}

/// A package that is in the cache, and where its content goes in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Package {
    /// As `dpkg` unpacks it.
    Debian(PathBuf),
    /// Below the directory of Python's modules.
    Wheel(PathBuf),
    /// One file.
    File(PathBuf),
    /// Below the directory of Node's modules, under this name.
    Node(PathBuf, String),
}

impl Package {
    /// Returns the archive.
    pub(super) fn file(&self) -> &Path {
        match self {
            Self::Debian(file) | Self::Wheel(file) | Self::File(file) | Self::Node(file, _) => file,
        }
    }
}

/// Makes sure that the packages are in the cache, and returns them in the recipe's order.
pub(super) fn bring(cache: &Path, recipe: &[&[&str]]) -> Result<Vec<Vec<Package>>> {
    std::fs::create_dir_all(cache).attempt(|| format!("create {}", cache.display()))?;
    let mut layers = Vec::new();
    for layer in recipe {
        layers.push(layer.iter().map(|name| parse(name)).collect::<Result<Vec<_>>>()?);
    }
    let debian: Vec<&str> = layers.iter().flatten().filter_map(debian).collect();
    let mut debian = deb::bring(cache, &debian)?.into_iter();
    let mut bring = |source: Source<'_>| match source {
        Source::Debian(name) => {
            debian.next().map(Package::Debian).ok_or_else(|| Error::not_found(format!("package {name}")))
        }
        Source::Wheel(wanted) => wheel::bring(cache, wanted).map(Package::Wheel),
        Source::WheelFile(wanted) => wheel::bring(cache, wanted).map(Package::File),
        Source::Node(wanted) => node::bring(cache, wanted).map(|file| Package::Node(file, wanted.name.to_owned())),
    };
    layers.into_iter().map(|layer| layer.into_iter().map(&mut bring).collect()).collect()
}

fn debian<'a>(source: &Source<'a>) -> Option<&'a str> {
    if let Source::Debian(name) = source { Some(name) } else { None }
}

fn parse(text: &str) -> Result<Source<'_>> {
    match text.split_once(':') {
        None => Ok(Source::Debian(text)),
        Some(("pypi", rest)) => pinned(text, rest, "==").map(Source::Wheel),
        Some(("pypi-file", rest)) => pinned(text, rest, "==").map(Source::WheelFile),
        Some(("npm", rest)) => pinned(text, rest, "@").map(Source::Node),
        Some((origin, _)) => Err(Error::invalid_argument(format!("the recipe names {text:?}: what is {origin:?}?"))),
    }
}

fn pinned<'a>(text: &str, rest: &'a str, between: &str) -> Result<Pinned<'a>> {
    match rest.rsplit_once(between) {
        Some((name, version)) if !name.is_empty() && !version.is_empty() => Ok(Pinned { name, version }),
        _ => Err(Error::invalid_argument(format!("the recipe names {text:?}, which has no version"))),
    }
}

/// Returns the file of a package that was brought before, or brings it: the version that is wanted, or else another one.
///
/// `is_it` says whether a file of that name is the package, in the version if one is given. `bring` brings it into a
/// directory. What arrives gets its place in the cache only when it is complete.
pub(super) fn pinned_or_another(
    cache: &Path,
    wanted: Pinned<'_>,
    is_it: impl Fn(&str, Option<&str>) -> bool,
    bring: impl Fn(&Path, Option<&str>) -> Result<()>,
) -> Result<PathBuf> {
    let mut failed = None;
    for version in [Some(wanted.version), None] {
        if let Some(file) = newest(cache, |name| is_it(name, version))? {
            return Ok(file);
        }
        let attempt = || format!("bring {} into {}", wanted.name, cache.display());
        let arriving = tempfile::tempdir_in(cache).attempt(attempt)?;
        match bring(arriving.path(), version) {
            Ok(()) => {
                let file = newest(arriving.path(), |name| is_it(name, version))?;
                let name = file.as_deref().and_then(Path::file_name).map(|name| cache.join(name));
                if let (Some(file), Some(name)) = (file, name) {
                    std::fs::rename(file, &name).attempt(attempt)?;
                    return Ok(name);
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::not_found(format!("package {} did not arrive", wanted.name))))
}

/// Returns the last by name of the files in a directory that are wanted.
fn newest(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let attempt = || format!("list {}", directory.display());
    let mut found: Option<PathBuf> = None;
    for entry in std::fs::read_dir(directory).attempt(attempt)? {
        let entry = entry.attempt(attempt)?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found = found.max(Some(entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_names_where_a_package_is_from_and_its_version() {
        let pinned = |name, version| Pinned { name, version };
        assert_eq!(parse("libc6").unwrap(), Source::Debian("libc6"));
        assert_eq!(parse("pypi:a-b==1.2").unwrap(), Source::Wheel(pinned("a-b", "1.2")));
        assert_eq!(parse("pypi-file:a==1").unwrap(), Source::WheelFile(pinned("a", "1")));
        assert_eq!(parse("npm:@scope/a@1.0").unwrap(), Source::Node(pinned("@scope/a", "1.0")));
        for text in ["pypi:a", "npm:a", "npm:@scope", "gem:a==1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_recipe_can_be_read() {
        for recipe in [super::super::SMALL, super::super::FILES, super::super::BLOBS, super::super::MANY] {
            let names: Vec<&str> = recipe.iter().copied().flatten().copied().collect();
            assert!(names.iter().all(|name| parse(name).is_ok()));
            let unique: std::collections::HashSet<&str> = names.iter().copied().collect();
            assert_eq!(unique.len(), names.len());
        }
    }

    #[test]
    fn another_version_takes_the_place_of_one_that_is_gone_and_is_brought_once() {
        let cache = tempfile::tempdir().unwrap();
        let wanted = Pinned { name: "a", version: "1" };
        let is_it =
            |file: &str, version: Option<&str>| version.map_or(file.starts_with("a-"), |it| file == format!("a-{it}"));
        let asked = std::cell::RefCell::new(Vec::new());
        let bring = |directory: &Path, version: Option<&str>| {
            asked.borrow_mut().push(version.map(str::to_owned));
            if version.is_some() {
                return Err(Error::not_found("a 1"));
            }
            std::fs::write(directory.join("a-2"), "").attempt(String::new)
        };
        for _ in 0..2 {
            let file = pinned_or_another(cache.path(), wanted, is_it, bring).unwrap();
            assert_eq!(file, cache.path().join("a-2"));
        }
        assert_eq!(*asked.borrow(), [Some("1".to_owned()), None, Some("1".to_owned())]);
        let gone = |_: &Path, _: Option<&str>| Err(Error::not_found("a"));
        assert!(pinned_or_another(tempfile::tempdir().unwrap().path(), wanted, is_it, gone).is_err());
    }
}
