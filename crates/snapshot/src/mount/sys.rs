//! The two system calls that have no safe wrapper.
#![expect(unsafe_code, reason = "mount_setattr(2) and unshare(2) have no safe wrapper")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;

/// Sets flags of a mount, and with `recursive` of all below it. mount_setattr(2), Linux 5.12.
pub(super) fn set_attributes(mount: BorrowedFd<'_>, set: MountAttrFlags, recursive: bool) -> Result<(), Errno> {
    if set.is_empty() {
        return Ok(());
    }
    let atime = MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    // The kind of access times is a number of several bits, which has to be cleared before it is set.
    let cleared = if set.intersects(atime) { MountAttrFlags::MOUNT_ATTR__ATIME } else { MountAttrFlags::empty() };
    let attributes = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: u64::from(cleared.bits()),
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated text, and the structure has the size that is passed; the kernel writes to
    // neither of them. The descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}

/// Gives the calling thread a working directory of its own.
pub(super) fn own_working_directory() -> Result<(), Errno> {
    // SAFETY: only CLONE_FS is unshared: working directory, root and umask. What is unsafe in unshare is CLONE_FILES,
    // which would make descriptors mean different things in different threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// Gives the calling thread mounts of its own, as they are now.
pub(super) fn own_mounts() -> Result<(), Errno> {
    // SAFETY: only CLONE_NEWNS, and with it CLONE_FS, is unshared: mounts, working directory, root and umask. What is unsafe
    // in unshare is CLONE_FILES, as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}
