//! Whether files can be sealed: fs-verity, by which the kernel compares a file with its digest whenever it is read.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use windlass_core::error::{IoResultExt as _, Result};

use crate::mount::sys;

/// Whether the files of a directory can be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verity {
    /// They can.
    Supported,
    /// The kind of filesystem could, and this one has it switched off.
    SwitchedOff,
    /// Neither the kernel nor the filesystem knows of it.
    Unknown,
}

/// Tells whether the files of a directory can be sealed, by asking about one that has no name and is gone at once.
///
/// # Errors
/// Those of the filesystem.
pub fn supported(directory: &Path) -> Result<Verity> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)
        .attempt(|| format!("make a file in {}", directory.display()))?;
    Ok(match sys::measure_verity(file.as_fd()) {
        // It has no seal.
        Errno::NODATA => Verity::Supported,
        Errno::OPNOTSUPP => Verity::SwitchedOff,
        _ => Verity::Unknown,
    })
}
