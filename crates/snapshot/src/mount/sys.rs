//! The system calls that have no safe wrapper.
#![expect(
    unsafe_code,
    reason = "mount_setattr(2), unshare(2) and the requests of loop(4) and fs-verity have no safe wrapper"
)]

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
    if result == 0 { Ok(()) } else { Err(last_error()) }
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

/// Asks for the seal of a file, which has none; what the kernel says instead tells whether it could have one.
/// `linux/fsverity.h`, `FS_IOC_MEASURE_VERITY`.
pub(crate) fn measure_verity(file: BorrowedFd<'_>) -> Errno {
    /// `_IOWR('f', 134, struct fsverity_digest)`, whose fixed part has 4 bytes.
    const MEASURE: libc::Ioctl = 0xC004_6686;
    /// `struct fsverity_digest`, with room for the longest digest.
    #[repr(C)]
    struct Measured {
        algorithm: u16,
        size: u16,
        digest: [u8; 64],
    }
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: the kernel writes the fixed part and at most `size` bytes behind it, for which there is room. The descriptor is
    // open for as long as it is borrowed.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE, &raw mut measured) };
    if result == 0 { Errno::EXIST } else { last_error() }
}

/// The requests and flags of loop(4), `linux/loop.h`.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Returns the number of a loop device that nobody uses.
pub(super) fn free_loop(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: the request takes no argument and returns a number; the descriptor is open for as long as it is borrowed.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| last_error())
}

/// Attaches a file to a loop device, read-only and until nobody has the device open. Linux 5.8.
pub(super) fn configure_loop(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: the structure has the form that the request reads, and is not written to; both descriptors are open for as
    // long as they are borrowed.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
