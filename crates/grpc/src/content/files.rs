//! Files that a client has open, whose bytes need not come over the socket: the server reads them itself.
//!
//! The client says by which number it has the file open, and which file that is; the server duplicates what the process at the other end of
//! the socket has under that number, with pidfd_getfd(2), and looks whether it is that file. So it reads what the client may read, and
//! as the client opened it. Where that does not work, such as over a network, from another process namespace, or without the
//! right to, the bytes are sent as ever.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use prost::Message as _;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;
use windlass_core::{Error, Result};
use windlass_proto::windlass::services::content::v1::FilePart;

use crate::MAX_MESSAGE;

/// The action of a message that brings a part of a file; those below are containerd's.
pub(super) const WRITE_FILE: i32 = 100;
/// How long a part is at most, in bytes: as much as a message could bring. It is read to its end even when its client is gone.
const LONGEST: u64 = MAX_MESSAGE as u64;

/// Which file something is: its device and inode.
type Which = (u64, u64);

/// Describes a file, and no part of it yet; `None` when it is none that another process can read as it likes.
pub(super) fn describe(file: &File) -> Option<FilePart> {
    let (device, inode) = readable(file)?;
    Some(FilePart { descriptor: file.as_raw_fd(), device, inode, begin: 0, length: 0 })
}

/// Returns which file this is, when it is a regular one that can be read at any offset.
fn readable(file: impl AsFd) -> Option<Which> {
    let (stat, flags) = (fstat(&file).ok()?, fcntl_getfl(&file).ok()?);
    let is_regular = FileType::from_raw_mode(stat.st_mode).is_file();
    let reads = [OFlags::RDONLY, OFlags::RDWR].contains(&(flags & OFlags::RWMODE));
    // Reads past the page cache have to be aligned in ways that are not known here.
    let is_plain = !flags.intersects(OFlags::DIRECT | OFlags::PATH);
    (is_regular && reads && is_plain).then_some((stat.st_dev, stat.st_ino))
}

/// The files of the process at the other end of a connection.
#[derive(Default)]
pub(super) struct Files {
    process: Option<Pid>,
    /// The last one.
    open: Option<(Which, Arc<File>)>,
}

impl Files {
    /// Those of who makes a call.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let credentials = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        // Of a process that cannot be seen from here it is zero.
        Self { process: credentials.and_then(|it| it.pid()).and_then(Pid::from_raw), open: None }
    }

    /// Returns the file that a message means and the part of it; no file when it cannot be had.
    ///
    /// # Errors
    /// `InvalidArgument` when the message is none, or means more than a message could bring.
    pub(super) fn find(&mut self, message: &[u8]) -> Result<(Option<Arc<File>>, Range<u64>)> {
        let part = FilePart::decode(message)
            .map_err(|error| Error::invalid_argument("the part of a file cannot be read").source(error))?;
        let end = part.begin.checked_add(part.length).filter(|_| part.length <= LONGEST).ok_or_else(|| {
            let FilePart { begin, length, .. } = part;
            Error::invalid_argument(format!(
                "{length} bytes at {begin} of a file are more than {LONGEST}, or have no end"
            ))
        })?;
        let which = (part.device, part.inode);
        if self.open.as_ref().is_none_or(|(open, _)| *open != which) {
            self.open = self.duplicate(&part, which).map(|file| (which, Arc::new(file)));
        }
        Ok((self.open.as_ref().map(|(_, file)| file.clone()), part.begin..end))
    }

    fn duplicate(&self, part: &FilePart, which: Which) -> Option<File> {
        let duplicated = pidfd_open(self.process?, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, part.descriptor, PidfdGetfdFlags::empty()));
        match duplicated {
            Ok(file) => Some(file).filter(|file| readable(file) == Some(which)).map(|file: OwnedFd| file.into()),
            Err(error) => {
                tracing::debug!(%error, "a client's file cannot be read from here, so its bytes are to be sent");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    fn of_this_process() -> Files {
        Files { process: Some(rustix::process::getpid()), open: None }
    }

    fn find(files: &mut Files, part: FilePart) -> Option<Arc<File>> {
        files.find(&part.encode_to_vec()).unwrap().0
    }

    #[test]
    fn a_file_is_had_by_its_number_when_it_is_that_file() {
        let (file, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let (right, wrong) = (describe(&file).unwrap(), describe(&other).unwrap());
        let mut files = of_this_process();
        let found = find(&mut files, right).unwrap();
        assert_eq!(describe(&found).map(|found| found.inode), Some(right.inode));
        assert!(Arc::ptr_eq(&find(&mut files, right).unwrap(), &found), "it is kept");
        assert!(find(&mut files, FilePart { descriptor: right.descriptor, ..wrong }).is_none(), "it is another one");
        assert!(find(&mut files, FilePart { descriptor: i32::MAX, ..right }).is_none(), "there is none");
        assert!(find(&mut Files::default(), right).is_none(), "nobody knows whose it is");
    }

    #[test]
    fn what_cannot_be_read_anywhere_is_not_offered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let write_only = File::create(&path).unwrap();
        let path_only = rustix::fs::open(&path, OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        for file in
            [write_only, path_only.into(), File::open(directory.path()).unwrap(), File::open("/dev/zero").unwrap()]
        {
            assert_eq!(describe(&file), None, "{file:?}");
        }
        assert!(describe(&File::open(&path).unwrap()).is_some());
    }

    #[test]
    fn what_says_no_part_of_a_file_is_refused() {
        let endless = FilePart { begin: u64::MAX, length: 1, ..FilePart::default() }.encode_to_vec();
        let too_long = FilePart { length: LONGEST + 1, ..FilePart::default() }.encode_to_vec();
        for message in [&b"\xff\xff"[..], &endless, &too_long] {
            assert_eq!(of_this_process().find(message).unwrap_err().kind(), Kind::InvalidArgument);
        }
        let longest = FilePart { length: LONGEST, ..FilePart::default() }.encode_to_vec();
        assert!(of_this_process().find(&longest).is_ok());
    }
}
