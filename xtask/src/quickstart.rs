//! `cargo xtask quickstart`: the main job on a fresh machine, from nothing to a mounted root filesystem.
//!
//! It uses what a user has, the command and a registry, and prints every command as one would type it. What it made stays
//! in a temporary directory, which it names, so that one can go on by hand; its registry ends with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::peer::Registry;
use crate::{image, packages, process};

/// What to bring.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The image to pull; without it one is made of this machine's Debian packages and served by a registry of its own
    reference: Option<String>,
}

/// Runs the main job.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut tour = Tour::begin()?;
    let result = tour.take(options);
    if result.is_err() {
        eprintln!("\nwhat was made is left in {}", tour.directory.display());
    }
    result
}

/// One run: where its things are, and the commands that a user can type again.
struct Tour {
    directory: PathBuf,
    /// Where the commands find programs.
    path: OsString,
    commands: Vec<String>,
}

impl Tour {
    fn begin() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("windlass-quickstart-").tempdir();
        let directory = directory.context("create a temporary directory")?.keep();
        Ok(Self { directory, path: OsString::new(), commands: Vec::new() })
    }

    fn take(&mut self, options: &Options) -> Result<()> {
        if !process::is_root() {
            println!("not root: unpacking and mounting need it, so only the content will be fetched");
            println!("hint: `sudo env \"PATH=$PATH\" cargo xtask quickstart` does everything\n");
        }
        if options.reference.is_none() {
            heading("system packages");
            packages::install(packages::QUICKSTART).context("step: system packages")?;
        }
        heading("build the command `dist`");
        self.find_programs_in(&process::build_dist().context("step: build")?)?;
        let dist = Dist { root: self.directory.join("root") };
        let Some(reference) = &options.reference else {
            let registry = self.serve()?;
            let reference = self.push(&registry)?;
            self.main_job(&dist, &reference, Look::Inside)?;
            self.end(&dist, Some(&registry));
            return Ok(());
        };
        self.main_job(&dist, reference, Look::FromOutside)?;
        self.end(&dist, None);
        Ok(())
    }

    /// Has the commands find `dist`, and what is not on everybody's path, by name.
    fn find_programs_in(&mut self, dist: &Path) -> Result<()> {
        let release = dist.parent().context("dist is in no directory")?;
        let before = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(release.to_owned()).chain(std::env::split_paths(&before));
        let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        self.path = std::env::join_paths(path.chain(sbin)).context("make a search path")?;
        self.commands.push(format!("export PATH=\"{}:$PATH:/usr/sbin:/sbin\"", release.display()));
        Ok(())
    }

    /// Starts the registry.
    fn serve(&mut self) -> Result<Registry> {
        heading("start a registry");
        let directory = self.directory.join("registry");
        std::fs::create_dir(&directory).context("step: start a registry")?;
        let registry = Registry::start(&directory).context("step: start a registry")?;
        println!("$ {} &", registry.again()?);
        println!("docker-registry listens on {} (pid {})", registry.address(), registry.pid());
        // Whoever pastes the commands all at once needs the registry to listen first.
        self.commands.push(format!("{} & sleep 1", registry.again()?));
        Ok(registry)
    }

    /// Makes the image and puts it into the registry.
    fn push(&mut self, registry: &Registry) -> Result<String> {
        heading("make an image of this machine's Debian packages");
        let layout = image::small().context("step: make an image")?;
        println!("{}", image::describe(&layout)?);
        let (reference, mut skopeo) = registry.push(&layout, "debian:small");
        self.step("push it into the registry", &mut skopeo)?;
        Ok(reference)
    }

    /// Pulls, lists, mounts, looks and unmounts, as far as this user may.
    fn main_job(&mut self, dist: &Dist, reference: &str, look: Look) -> Result<()> {
        if !process::is_root() {
            self.step("fetch the content", &mut dist.command(&["fetch", reference]))?;
            return self.step("the content", &mut dist.command(&["content", "ls"]));
        }
        self.step("pull", &mut dist.command(&["pull", reference]))?;
        self.step("the images", &mut dist.command(&["images", "ls"]))?;
        let tree = self.directory.join("tree");
        self.step("a place for the root filesystem", Command::new("mkdir").arg("-p").arg(&tree))?;
        let place = tree.to_string_lossy();
        self.step("mount it", &mut dist.command(&["images", "mount", reference, &place]))?;
        let seen = self.look(&tree, look);
        self.step("unmount it", &mut dist.command(&["images", "unmount", &place]))?;
        seen
    }

    fn look(&mut self, tree: &Path, look: Look) -> Result<()> {
        self.step("a look into it", Command::new("ls").arg("-l").arg(tree))?;
        let release = tree.join("etc/os-release");
        if release.exists() {
            self.step("what it says it is", Command::new("cat").arg(release))?;
        }
        if look == Look::Inside {
            let script = "echo \"hello from $BASH in a tree of $(ls -R / | wc -l) lines of ls -R\"";
            self.step("a shell in it", Command::new("chroot").arg(tree).args(["/bin/bash", "-c", script]))?;
        }
        Ok(())
    }

    /// Says what to do next.
    fn end(&self, dist: &Dist, registry: Option<&Registry>) {
        heading("done; the commands were");
        for command in &self.commands {
            println!("{command}");
        }
        println!("\nthe store is kept in {}", dist.root.display());
        if let Some(registry) = registry {
            println!("the registry (pid {}) ends now; the second command starts it again", registry.pid());
        }
        let mut clean = Command::new("rm");
        println!("to clean up: {}", process::show(clean.arg("-r").arg(&self.directory)));
    }

    fn step(&mut self, what: &str, command: &mut Command) -> Result<()> {
        heading(what);
        let shown = process::show(command);
        println!("$ {shown}");
        self.commands.push(shown);
        process::run(command.env("PATH", &self.path)).with_context(|| format!("step: {what}"))
    }
}

/// How to look into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is our own image, for this machine: a shell in it runs.
    Inside,
    /// It may be for another machine, or without a shell.
    FromOutside,
}

/// The command `dist` with a root of its own.
struct Dist {
    root: PathBuf,
}

impl Dist {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("dist");
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }
}

fn heading(what: &str) {
    println!("\n==> {what}");
}
