//! System packages: which of the programs that a command needs are missing, and installing them from Debian.
//!
//! A program counts, not its package: whoever has a skopeo of another origin keeps it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// A program, or a file by its whole path, and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
}

/// Says which package has a file that is no program: `path` is where it is.
pub(crate) const fn file(path: &'static str, package: &'static str) -> Program {
    Program { name: path, package }
}

/// Says which package has a program.
pub(crate) const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package }
}

/// What the quickstart runs.
pub(crate) const QUICKSTART: &[Program] = &[
    program("docker-registry", "docker-registry"),
    program("skopeo", "skopeo"),
    program("apt-get", "apt"),
    program("dpkg-deb", "dpkg"),
];

/// What the tests compare with.
pub(crate) const TEST: &[Program] = &[
    program("docker-registry", "docker-registry"),
    program("skopeo", "skopeo"),
    program("umoci", "umoci"),
    program("nginx", "nginx-light"),
    program("squid", "squid"),
    program("git", "git"),
    program("python3", "python3"),
    program("script", "bsdutils"),
    program("mkfs.ext4", "e2fsprogs"),
    program("fsck.erofs", "erofs-utils"),
    program("losetup", "mount"),
    program("mount", "mount"),
    program("tar", "tar"),
    program("apt-get", "apt"),
    program("dpkg-deb", "dpkg"),
    program("containerd", "containerd"),
    program("ctr", "containerd"),
    program("protoc", "protobuf-compiler"),
    file(CONTAINERDS_PROTOS, "golang-github-containerd-containerd-dev"),
];

/// What containerd's API says of itself.
const CONTAINERDS_PROTOS: &str =
    "/usr/share/gocode/src/github.com/containerd/containerd/api/services/content/v1/content.proto";

/// What the benchmarks measure against, and with, and what the images are made with.
pub(crate) const BENCH: &[Program] = &[
    program("docker-registry", "docker-registry"),
    program("skopeo", "skopeo"),
    program("nginx", "nginx-light"),
    program("time", "time"),
    program("igzip", "isal"),
    program("sha256sum", "coreutils"),
    program("tar", "tar"),
    program("apt-get", "apt"),
    program("dpkg-deb", "dpkg"),
    program("pip3", "python3-pip"),
    program("npm", "npm"),
];

/// The peers that are only measured when they are asked for.
pub(crate) const BENCH_PEERS: &[Program] =
    &[program("umoci", "umoci"), program("containerd", "containerd"), program("ctr", "containerd")];

/// What the benchmark of the store measures against, and with.
pub(crate) const BENCH_STORE: &[Program] = &[
    program("containerd", "containerd"),
    program("ctr", "containerd"),
    program("time", "time"),
    program("tar", "tar"),
    program("sha256sum", "coreutils"),
];

/// What the benchmark of the daemon measures against.
pub(crate) const BENCH_API: &[Program] = &[
    program("containerd", "containerd"),
    program("ctr", "containerd"),
    program("docker-registry", "docker-registry"),
    program("skopeo", "skopeo"),
    program("tar", "tar"),
    program("sha256sum", "coreutils"),
];

/// Installs the packages of those programs that are not there, and says which.
///
/// # Errors
/// When something is missing and this machine has no apt, or this user may not install: the error has the command to run.
pub(crate) fn install(programs: &[Program]) -> Result<()> {
    let missing = missing(programs, |name| find(name).is_some());
    if missing.is_empty() {
        println!("system packages: all there");
        return Ok(());
    }
    let names = missing.join(" ");
    println!("system packages that are missing: {names}");
    if find("apt-get").is_none() {
        bail!("missing: {names}; this machine has no apt-get\nhint: install them and run this command again");
    }
    if !process::is_root() {
        bail!(
            "missing: {names}; installing needs root\nhint: run `sudo apt-get install {names}` and this command again"
        );
    }
    process::run(apt().arg("update")).context("update the list of packages")?;
    process::run(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
        .with_context(|| format!("install {names}"))?;
    println!("installed: {names}");
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "--quiet", "--option", "Dpkg::Use-Pty=0"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Returns the packages of the programs that are not there, each once.
fn missing(programs: &[Program], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = programs.iter().filter(|program| !is_there(program.name)).map(|it| it.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Returns where a program is, if it is on the path, or a file that is named by its whole path.
pub(crate) fn find(name: &str) -> Option<std::path::PathBuf> {
    if name.starts_with('/') {
        return Some(name.into()).filter(|file: &std::path::PathBuf| file.is_file());
    }
    let path = std::env::var_os("PATH")?;
    // Some of what root runs is not on everybody's path.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Path::new).map(Path::to_owned);
    std::env::split_paths(&path).chain(more).map(|directory| directory.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed_and_each_package_once() {
        let programs = [program("a", "first"), program("b", "second"), program("c", "second"), program("d", "third")];
        assert_eq!(missing(&programs, |name| name == "d"), ["first", "second"]);
        assert!(missing(&programs, |_| true).is_empty());
    }

    #[test]
    fn a_program_is_found_on_the_path() {
        assert!(find("sh").is_some());
        assert!(find("/etc/passwd").is_some() && find("/etc/no-such-file-here").is_none());
        assert!(find("no-such-program-here").is_none());
    }
}
