//! Debian's packages, brought into the cache with `apt-get download`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

use super::failed;

/// A file that `apt-get` knows where to get.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: String,
    size: u64,
}

/// Makes sure that the packages are in the cache, and returns their files in the same order.
pub(super) fn bring(cache: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let sources = sources(names)?;
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| {
            let source = find(&sources, name);
            !source.is_some_and(|source| is_here(cache, source))
        })
        .collect();
    if !missing.is_empty() {
        let output = apt_get(cache, &["--quiet", "download"], &missing)?;
        if !output.status.success() {
            return Err(failed("apt-get download", output.status, &output.stderr));
        }
    }
    let file = |name: &&str| match find(&sources, name) {
        Some(source) if is_here(cache, source) => Ok(cache.join(&source.name)),
        _ => Err(Error::not_found(format!("package {name} did not arrive in {}", cache.display()))),
    };
    names.iter().map(file).collect()
}

fn is_here(cache: &Path, source: &Source) -> bool {
    std::fs::metadata(cache.join(&source.name)).is_ok_and(|metadata| metadata.len() == source.size)
}

/// Asks where the packages are to be had; brings the lists of packages up to date once when some are not known.
fn sources(names: &[&str]) -> Result<Vec<Source>> {
    // apt keeps silent about what is in the current directory already.
    let nowhere = tempfile::tempdir().attempt(|| "make a temporary directory".to_owned())?;
    let ask = || apt_get(nowhere.path(), &["--quiet", "--print-uris", "download"], names);
    let mut answer = ask()?;
    if !answer.status.success() {
        let update = apt_get(nowhere.path(), &["--quiet", "update"], &[])?;
        if !update.status.success() {
            return Err(failed("apt-get update", update.status, &update.stderr)
                .hint("`apt-get update` as root brings the lists of packages"));
        }
        answer = ask()?;
    }
    let sources: Vec<Source> = String::from_utf8_lossy(&answer.stdout).lines().filter_map(parse_source).collect();
    let unknown: Vec<&str> = names.iter().copied().filter(|name| find(&sources, name).is_none()).collect();
    if !unknown.is_empty() {
        return Err(Error::not_found(format!("no mirror has the packages {}", unknown.join(", ")))
            .hint("the recipes are made for Debian 12"));
    }
    Ok(sources)
}

/// Finds the file of a package: its name goes up to the first underscore.
fn find<'a>(sources: &'a [Source], package: &str) -> Option<&'a Source> {
    sources.iter().find(|source| source.name.split('_').next() == Some(package))
}

/// apt-get(8), `--print-uris`: the quoted address, the file's name, its size, its hash.
fn parse_source(line: &str) -> Option<Source> {
    let mut words = line.strip_prefix('\'')?.split(' ');
    let (_, name, size) = (words.next()?, words.next()?, words.next()?);
    (!name.contains('/')).then(|| Some(Source { name: name.to_owned(), size: size.parse().ok()? }))?
}

fn apt_get(directory: &Path, options: &[&str], packages: &[&str]) -> Result<Output> {
    Command::new("apt-get")
        // As root, apt would drop its privileges and then fail to write into the cache.
        .args(["-o", "APT::Sandbox::User=root"])
        .args(options)
        .args(packages)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .attempt(|| "run apt-get".to_owned())
        .map_err(|error| error.hint("packages can only be brought on a Debian system"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_line_gives_name_and_size() {
        let line =
            "'http://deb.example/pool/b/bash/bash_5.2.15-2%2bb8_amd64.deb' bash_5.2.15-2+b8_amd64.deb 1491 SHA256:ab";
        let source = Source { name: "bash_5.2.15-2+b8_amd64.deb".into(), size: 1491 };
        assert_eq!(parse_source(line), Some(source.clone()));
        assert_eq!(find(std::slice::from_ref(&source), "bash"), Some(&source));
        assert_eq!(find(&[source], "ba"), None);
        for line in ["", "E: Unable to locate package x", "'http://x' ../../y.deb 1", "'http://x' y.deb many"] {
            assert_eq!(parse_source(line), None, "{line:?}");
        }
    }
}
