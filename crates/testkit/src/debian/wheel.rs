//! Python's packages, brought with pip from the index that it is configured for.

use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_core::Result;
use windlass_core::error::IoResultExt as _;

use super::failed;
use super::source::{Pinned, pinned_or_another};

/// Whose wheels are brought, whatever this machine is: the images are to be alike. PEP 600 and PEP 425 say what it means.
const FOR: [&str; 8] = [
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_17_x86_64",
    "--platform=manylinux2014_x86_64",
    "--python-version=3.11",
    "--implementation=cp",
    "--only-binary=:all:",
    "--no-deps",
    "--quiet",
];

/// Returns the wheel of a package; brings it if it is not in the cache.
pub(super) fn bring(cache: &Path, wanted: Pinned<'_>) -> Result<PathBuf> {
    let bring = |directory: &Path, version: Option<&str>| {
        let requirement = version.map_or(wanted.name.to_owned(), |version| format!("{}=={version}", wanted.name));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download"]).args(FOR).arg("--dest").arg(directory).arg(requirement);
        let output = pip.output().attempt(|| "run pip".to_owned())?;
        if output.status.success() { Ok(()) } else { Err(failed("pip download", output.status, &output.stderr)) }
    };
    pinned_or_another(cache, wanted, |file, version| is_it(file, wanted.name, version), bring)
}

/// PEP 427: the name, with anything between its words made an underscore, the version, and more, between hyphens.
fn is_it(file: &str, name: &str, version: Option<&str>) -> bool {
    let Some(file) = file.strip_suffix(".whl") else { return false };
    let name = name.replace(['-', '.'], "_");
    let mut parts = file.split('-');
    parts.next() == Some(name.as_str()) && (version.is_none() || parts.next() == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_is_found_by_its_name_and_version() {
        let file = "nvidia_cublas_cu12-12.4.5.8-py3-none-manylinux2014_x86_64.whl";
        assert!(is_it(file, "nvidia-cublas-cu12", Some("12.4.5.8")));
        assert!(is_it(file, "nvidia-cublas-cu12", None));
        assert!(!is_it(file, "nvidia-cublas-cu12", Some("12.4")));
        assert!(!is_it(file, "nvidia-cublas", None));
        assert!(!is_it("nvidia_cublas_cu12-12.4.5.8.tar.gz", "nvidia-cublas-cu12", None));
    }
}
