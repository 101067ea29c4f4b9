//! Loop devices: a file as a block device, for kernels that mount nothing else. loop(4).

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use windlass_core::error::{Error, IoResultExt as _, Result};

use super::sys;

/// A device over a file. It goes when nobody uses it any more: neither this value nor a mount.
pub(super) struct Loop {
    path: PathBuf,
    _device: File,
}

impl Loop {
    /// Finds a free device and attaches a file to it, read-only.
    pub(super) fn attach(path: &Path) -> Result<Self> {
        const CONTROL: &str = "/dev/loop-control";
        let missing = |error: Error| {
            error.hint(
                "this kernel mounts EROFS images from block devices only: it needs loop devices (`modprobe loop`), or \
                 Linux 6.12; or use the overlayfs snapshotter",
            )
        };
        let control = File::options().read(true).write(true).open(CONTROL);
        let control = control.attempt(|| format!("open {CONTROL}")).map_err(missing)?;
        let file = File::open(path).attempt(|| format!("open {}", path.display()))?;
        // Somebody else may take the device between the question and the answer.
        for _ in 0..100 {
            let number = sys::free_loop(control.as_fd()).attempt(|| "find a free loop device".to_owned())?;
            let device_path = PathBuf::from(format!("/dev/loop{number}"));
            let device =
                File::open(&device_path).attempt(|| format!("open {}", device_path.display())).map_err(missing)?;
            match sys::configure_loop(device.as_fd(), file.as_fd()) {
                Ok(()) => return Ok(Self { path: device_path, _device: device }),
                Err(Errno::BUSY) => {}
                attached => attached.attempt(|| format!("attach {} to a loop device", path.display()))?,
            }
        }
        Err(Error::unavailable("others take every free loop device").hint("try again"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
