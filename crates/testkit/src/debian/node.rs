//! Node's packages, brought with npm from the index that it is configured for.

use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_core::Result;
use windlass_core::error::IoResultExt as _;

use super::failed;
use super::source::{Pinned, pinned_or_another};

/// Returns the archive of a package; brings it if it is not in the cache.
pub(super) fn bring(cache: &Path, wanted: Pinned<'_>) -> Result<PathBuf> {
    let bring = |directory: &Path, version: Option<&str>| {
        let package = version.map_or(wanted.name.to_owned(), |version| format!("{}@{version}", wanted.name));
        let mut npm = Command::new("npm");
        npm.args(["pack", "--silent", &package]).current_dir(directory);
        let output = npm.output().attempt(|| "run npm".to_owned())?;
        if output.status.success() { Ok(()) } else { Err(failed("npm pack", output.status, &output.stderr)) }
    };
    pinned_or_another(cache, wanted, |file, version| is_it(file, wanted.name, version), bring)
}

/// `npm help pack`: the scope without what marks it, the name and the version, between hyphens.
fn is_it(file: &str, name: &str, version: Option<&str>) -> bool {
    let name = name.trim_start_matches('@').replace('/', "-");
    let rest = file.strip_suffix(".tgz").and_then(|file| file.strip_prefix(&name)?.strip_prefix('-'));
    rest.is_some_and(|rest| version.map_or(rest.starts_with(|it: char| it.is_ascii_digit()), |version| rest == version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_found_by_its_name_and_version() {
        assert!(is_it("mui-material-5.16.7.tgz", "@mui/material", Some("5.16.7")));
        assert!(is_it("rxjs-7.8.1.tgz", "rxjs", None));
        assert!(!is_it("rxjs-7.8.1.tgz", "rxjs", Some("7.8")));
        assert!(!is_it("rxjs-more-7.8.1.tgz", "rxjs", None));
    }
}
