//! A small disk of its own: ext4 on a loop device, which can be full, and whose power can be cut.
//!
//! Needs root, loop devices and `mkfs.ext4` (Debian: e2fsprogs). Where one of them is missing, making a disk fails and
//! says so: a test that needs one has to fail then.

#![expect(clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::ioctl::{Setter, opcode};
use rustix::mount::{MountFlags, UnmountFlags};

/// `EXT4_IOC_SHUTDOWN`, `fs/ext4/ext4.h` of Linux: `_IOR('X', 125, __u32)`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, ibid.: what is not on the disk by now never gets there, the journal's tail included.
const WITHOUT_FLUSH: u32 = 2;
/// How long an unmount is tried while somebody has a file open.
const BUSY: Duration = Duration::from_secs(20);

/// A disk that is mounted; gone when it is dropped.
#[derive(Debug)]
pub struct Loopback {
    /// The loop device, such as `/dev/loop0`. It stays when the filesystem is unmounted: one that is taken down with it
    /// may still be busy when the next mount comes.
    device: String,
    at: PathBuf,
    options: String,
}

impl Loopback {
    /// Makes a disk of that many bytes and mounts it on a directory, which is created. Its bytes are in a file beside the
    /// directory.
    ///
    /// `options` are mount options, such as `data=writeback`, and `format` further arguments of `mkfs.ext4`, such as
    /// `-N 500`; either may be empty.
    pub fn mount(at: &Path, bytes: u64, format: &str, options: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "mounting a loop device needs root");
        let image = at.with_extension("img");
        File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .unwrap_or_else(|e| panic!("{}: {e}", image.display()));
        let format = format.split_whitespace();
        run(tool("mkfs.ext4").args(["-q", "-F"]).args(format).arg(&image), "make a filesystem (Debian: e2fsprogs)");
        std::fs::create_dir_all(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        let what = "set up a loop device (is the kernel's loop driver there?)";
        let device = run(tool("losetup").args(["--find", "--show"]).arg(&image), what);
        let disk = Self { device, at: at.to_owned(), options: options.to_owned() };
        disk.attach();
        disk
    }

    /// Returns where the disk is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Returns what the filesystem is called: its device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Returns how many bytes are free for root.
    pub fn free(&self) -> u64 {
        let there = rustix::fs::statvfs(&self.at).unwrap_or_else(|error| panic!("{}: {error}", self.at.display()));
        there.f_bfree * there.f_frsize
    }

    /// Cuts the power: from now on nothing more reaches the disk, and every access fails. [`Loopback::restore`] is next.
    #[expect(unsafe_code, reason = "the ioctl has no safe wrapper")]
    pub fn cut(&self) {
        let directory = File::open(&self.at).unwrap_or_else(|error| panic!("{}: {error}", self.at.display()));
        // SAFETY: the kernel reads one u32 at the pointer, which is what a setter of a u32 hands over.
        let cut = unsafe { rustix::ioctl::ioctl(&directory, Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH)) };
        cut.unwrap_or_else(|error| panic!("cut the power of {}: {error}", self.at.display()));
    }

    /// Mounts the disk anew, which replays its journal. Whoever had a file open there has to be gone.
    pub fn restore(&self) {
        let started = Instant::now();
        while started.elapsed() < BUSY {
            match rustix::mount::unmount(&self.at, UnmountFlags::empty()) {
                Ok(()) => {
                    self.attach();
                    // A mount namespace that somebody made meanwhile has a copy of the mount, and for as long as it lives
                    // the filesystem without power is the one that is mounted again.
                    if File::open(&self.at).and_then(|directory| directory.sync_all()).is_ok() {
                        return;
                    }
                }
                Err(Errno::BUSY) => {}
                Err(error) => panic!("unmount {}: {error}", self.at.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} stays busy or without power; open there: {:?}", self.at.display(), self.holders());
    }

    /// Lists what processes have open on the disk, for the message of a disk that stays busy.
    fn holders(&self) -> Vec<String> {
        let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let processes = entries("/proc".into());
        let links = processes.flat_map(|process| entries(process.join("fd")).chain([process.join("cwd")]));
        let targets = links.filter_map(|link| Some((std::fs::read_link(&link).ok()?, link)));
        let held = targets.filter(|(target, _)| target.starts_with(&self.at));
        held.map(|(target, link)| format!("{} has {}", link.display(), target.display())).collect()
    }

    fn attach(&self) {
        let mut mount = tool("mount");
        if !self.options.is_empty() {
            mount.args(["-o", &self.options]);
        }
        run(mount.args(["-t", "ext4", &self.device]).arg(&self.at), "mount a loop device");
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        // It may be busy when a test failed; the kernel then frees the loop device when the last file is closed.
        if let Err(error) = rustix::mount::unmount(&self.at, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.at.display());
        }
        run(tool("losetup").args(["--detach", &self.device]), "take down a loop device");
    }
}

/// A filesystem in memory, for tests that sync often and whose point is not the disk; gone when it is dropped.
#[derive(Debug)]
pub struct Memory(PathBuf);

impl Memory {
    /// Mounts a tmpfs of that many bytes on a directory, which is created. Needs root.
    pub fn mount(at: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        let size = CString::new(format!("size={bytes}")).unwrap_or_default();
        rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))
            .unwrap_or_else(|error| panic!("mount a tmpfs on {}: {error}", at.display()));
        Self(at.to_owned())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

/// Returns a command that may be where only root looks for it.
fn tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin"));
    command
}

/// Runs a command that must succeed, and returns what it printed.
fn run(command: &mut Command, what: &str) -> String {
    let program = command.get_program().display().to_string();
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {program}: {error}"));
    assert!(output.status.success(), "{what}: {program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
