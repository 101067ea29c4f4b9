//! Files that one end has open, whose bytes need not go over the socket: the other end reads them itself.
//!
//! One says by which number it has the file open, and which file that is; the other duplicates what the process at the other end of
//! the socket has under that number, with pidfd_getfd(2), and looks whether it is that file. So it reads what that process may read, and
//! as it was opened there. Where that does not work, such as over a network, from another process namespace, or without the
//! right to, the bytes are sent as ever.
//!
//! A client names its file in the messages of `Write`. A server names that of a blob at the head of its answer to a `Read` that
//! asks for it, sends nothing, and has it open until the client ends the call.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use prost::Message as _;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::net::UnixStream;
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue, MetadataMap};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response};
use windlass_core::content::InFile;
use windlass_core::{Error, Result};
use windlass_proto::windlass::services::content::v1::FilePart;

use crate::MAX_MESSAGE;

/// The action of a message that brings a part of a file; those below are containerd's.
pub(super) const WRITE_FILE: i32 = 100;
/// How long a part is at most, in bytes: as much as a message could bring. It is read to its end even when its client is gone.
const LONGEST: u64 = MAX_MESSAGE as u64;

/// The header with which a client asks for the file of a blob instead of its bytes.
const ASKED_HEADER: &str = "windlass-file";
/// The header of the answer that says which one it is.
const OFFERED_HEADER: &str = "windlass-file-bin";

/// Which file something is: its device and inode.
type Which = (u64, u64);

/// The process that a client is connected to, as far as the client may look into it. Cheap to clone; a clone is of the same client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer(Arc<AtomicI32>);

impl Peer {
    /// Remembers who is at the other end of a socket.
    pub(crate) fn meet(&self, socket: &UnixStream) {
        let process = socket.peer_cred().ok().and_then(|it| it.pid());
        self.0.store(process.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Returns it, when it is worth asking for its files.
    pub(super) fn process(&self) -> Option<Pid> {
        // Of a process that cannot be seen from here it is zero.
        Pid::from_raw(self.0.load(Ordering::Relaxed))
    }

    /// Does not ask any more.
    pub(super) fn leave(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Asks with a call for the file of a blob.
pub(super) fn ask(headers: &mut MetadataMap) {
    headers.insert(ASKED_HEADER, AsciiMetadataValue::from_static("1"));
}

/// Tells whether a call asks for one.
pub(super) fn is_asked(headers: &MetadataMap) -> bool {
    headers.contains_key(ASKED_HEADER)
}

/// Says at the head of an answer which file it is, of which so many bytes count; the caller keeps it open.
pub(super) fn offer<T>(answer: &mut Response<T>, InFile { file, begin }: &InFile, length: u64) -> bool {
    let Some(part) = describe(file) else { return false };
    let part = FilePart { begin: *begin, length, ..part };
    answer.metadata_mut().insert_bin(OFFERED_HEADER, BinaryMetadataValue::from_bytes(&part.encode_to_vec()));
    true
}

/// Returns which file an answer offers.
pub(super) fn offered(headers: &MetadataMap) -> Option<FilePart> {
    FilePart::decode(headers.get_bin(OFFERED_HEADER)?.to_bytes().ok()?).ok()
}

/// Duplicates the file that a process has open under that number; none when it is another one, or cannot be read as one likes.
///
/// # Errors
/// Why that cannot be looked at.
pub(super) fn duplicate(process: Pid, part: &FilePart) -> Result<Option<File>, Errno> {
    if part.descriptor < 0 {
        return Err(Errno::BADF);
    }
    let process = pidfd_open(process, PidfdFlags::empty())?;
    let file = pidfd_getfd(process, part.descriptor, PidfdGetfdFlags::empty())?;
    let is_it = readable(&file) == Some((part.device, part.inode));
    Ok(is_it.then(|| file.into()))
}

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
            self.open = self.duplicate(&part).map(|file| (which, Arc::new(file)));
        }
        Ok((self.open.as_ref().map(|(_, file)| file.clone()), part.begin..end))
    }

    fn duplicate(&self, part: &FilePart) -> Option<File> {
        duplicate(self.process?, part).unwrap_or_else(|error| {
            tracing::debug!(%error, "a client's file cannot be read from here, so its bytes are to be sent");
            None
        })
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
    fn an_answer_offers_a_file_that_can_be_had() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut answer = Response::new(());
        assert!(offered(answer.metadata()).is_none());
        assert!(offer(&mut answer, &InFile { file: file.clone(), begin: 3 }, 5));
        let part = offered(answer.metadata()).unwrap();
        assert_eq!((part.begin, part.length), (3, 5));
        let process = rustix::process::getpid();
        assert!(duplicate(process, &part).unwrap().is_some());
        assert!(duplicate(process, &FilePart { inode: part.inode + 1, ..part }).unwrap().is_none());
        assert_eq!(duplicate(process, &FilePart { descriptor: -1, ..part }).unwrap_err(), Errno::BADF);
        answer.metadata_mut().insert_bin(OFFERED_HEADER, BinaryMetadataValue::from_bytes(b"\xff"));
        assert!(offered(answer.metadata()).is_none(), "that is none");
    }

    #[tokio::test]
    async fn who_is_at_the_other_end_is_known_until_it_is_not_to_be_asked() {
        let (one, _other) = UnixStream::pair().unwrap();
        let (peer, unknown) = (Peer::default(), Peer::default());
        peer.meet(&one);
        assert_eq!((peer.process(), unknown.process()), (Some(rustix::process::getpid()), None));
        peer.clone().leave();
        assert_eq!(peer.process(), None);
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
