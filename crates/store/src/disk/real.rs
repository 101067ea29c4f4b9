//! The disk as the operating system offers it.
#![expect(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Backend, How, Look, OpenFile, OpenFilesystem};

/// The operating system.
#[derive(Debug)]
pub(super) struct Real;

impl Backend for Real {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(path)
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn OpenFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != How::Read);
        match how {
            How::Read | How::Write => {}
            How::Create(mode) => drop(options.create(true).mode(mode)),
            How::CreateNew(mode) => drop(options.create_new(true).mode(mode)),
            How::Replace(mode) => drop(options.create(true).truncate(true).mode(mode)),
        }
        Ok(Arc::new(options.open(path)?))
    }

    /// openat2(2), `RESOLVE_CACHED`.
    fn open_at_once(&self, path: &Path) -> Option<Arc<dyn OpenFile>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
        opened.ok().map(|file| Arc::new(File::from(file)) as Arc<dyn OpenFile>)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn list(&self, path: &Path, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
        for entry in std::fs::read_dir(path)? {
            visit(&entry?.file_name().to_string_lossy());
        }
        Ok(())
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        look(&std::fs::metadata(path)?)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn filesystem(&self, path: &Path) -> io::Result<Arc<dyn OpenFilesystem>> {
        Ok(Arc::new(Filesystem(File::open(path)?)))
    }

    fn unwritten(&self) -> Option<u64> {
        unwritten(&std::fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn boot(&self) -> Option<String> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned()).filter(|boot| !boot.is_empty())
    }
}

impl OpenFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn read_more_at(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(self, rustix::buffer::spare_capacity(buffer), offset)?)
    }

    /// preadv2(2), `RWF_NOWAIT`.
    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut parts = [IoSliceMut::new(buffer)];
        Ok(rustix::io::preadv2(self, &mut parts, offset, ReadWriteFlags::NOWAIT)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn write_parts_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, parts, offset)?)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let before = self.metadata()?.len();
        if length > before {
            // A file that has its blocks can be written to when the disk is full: removing something is a write, too. The
            // length is not touched by that: an allocation that stops halfway would leave one that nobody asked for.
            match rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, before, length - before) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {}
                Err(error) => {
                    // Gives back what there was before it stopped; the first error is the one to tell.
                    let _ = Self::set_len(self, before);
                    return Err(error.into());
                }
            }
        }
        Self::set_len(self, length)
    }

    fn keep_room(&self, length: u64) {
        let Ok(metadata) = self.metadata() else { return };
        // Where this cannot be done, or where there is no room, the file grows when it has to.
        let _ = rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, metadata.len(), length);
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }

    fn look(&self) -> io::Result<Look> {
        look(&self.metadata()?)
    }

    fn duplicate(&self) -> Option<File> {
        self.try_clone().ok()
    }

    fn set_modified(&self, at: SystemTime) -> io::Result<()> {
        Self::set_modified(self, at)
    }

    fn start_writeback(&self, offset: u64, length: u64) {
        let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
        // SAFETY: the call takes numbers only, and the descriptor is open for as long as the file is borrowed.
        unsafe { libc::sync_file_range(self.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    }
}

/// A directory of a filesystem. syncfs(2) tells of the errors since it was opened (Linux 5.8).
#[derive(Debug)]
struct Filesystem(File);

impl OpenFilesystem for Filesystem {
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

/// Adds up what proc_meminfo(5) says of pages that are to be written and of those that are being written, in bytes.
fn unwritten(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    kib("Dirty:")?.checked_add(kib("Writeback:")?)?.checked_mul(1024)
}

fn look(metadata: &Metadata) -> io::Result<Look> {
    Ok(Look { length: metadata.len(), mode: metadata.mode() & 0o7777, modified_at: metadata.modified()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unwritten_is_what_is_dirty_and_what_is_being_written() {
        let text = "MemFree:  100 kB\nDirty:           252 kB\nWriteback:         4 kB\nWritebackTmp:    0 kB\n";
        assert_eq!(unwritten(text), Some(256 << 10));
        assert_eq!(unwritten("Dirty: 252 kB\n"), None);
        assert_eq!(unwritten("Dirty: 252 MB\nWriteback: 4 kB\n"), None);
        assert!(Real.unwritten().is_some());
    }
}
