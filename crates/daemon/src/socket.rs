//! The unix sockets that the daemon listens on.
//!
//! First the directory, 0711 when it is made here; then a lock on it, so that two daemons that start do not take each other's
//! socket for a stale one; then whoever answers on a socket that is there keeps it, and a stale one goes; then the new one, 0660.
//!
//! Whoever can connect to the socket can do what root can; `docs/security.md` says so.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

/// The mode of a directory that is made for a socket: others may pass through it, not list it.
pub(crate) const DIRECTORY_MODE: u32 = 0o711;
/// The mode of a socket.
const MODE: u32 = 0o660;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that is listened on, and removed when that ends.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) name: Name,
}

/// The name of a socket in the filesystem; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, socket = %self.0.display(), "the socket stays behind");
            }
            _ => {}
        }
    }
}

impl Socket {
    /// Listens on a path.
    ///
    /// # Errors
    /// `Unavailable` naming who answers there already; `AlreadyExists` for something that is no socket; `InvalidArgument` for
    /// a path that no socket can have; those of the filesystem.
    pub(crate) fn bind(path: &Path, uid: u32, gid: u32) -> Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .attempt(|| format!("create {}", directory.display()))?;
        // Held until the socket listens.
        let lock = File::open(directory).attempt(|| format!("open {}", directory.display()))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).attempt(|| format!("lock {}", directory.display()))?;
        remove_stale(path)?;
        let socket = listen(path)?;
        let name = Name(path.to_owned());
        own(path, uid, gid)?;
        let listener = UnixListener::from_std(socket.into()).attempt(|| format!("listen on {}", path.display()))?;
        Ok(Self { listener, name })
    }
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<()> {
    let there = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        there => there.attempt(|| format!("look at {}", path.display()))?,
    };
    if !there.file_type().is_socket() {
        return Err(Error::already_exists(format!("{} is there and is no socket", path.display()))
            .hint("listen elsewhere with --address, or remove it"));
    }
    match UnixStream::connect(path) {
        Ok(stream) => Err(Error::unavailable(format!("{} is in use: {} answers there", path.display(), peer(&stream)))
            .hint("stop it, or listen elsewhere with --address")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::debug!(socket = %path.display(), "nobody listens on the socket that is there: it is replaced");
            std::fs::remove_file(path).attempt(|| format!("remove the stale socket {}", path.display()))
        }
        // It is there and does not say who it is, because its queue is full for instance.
        Err(error) => Err(Error::io(format!("ask who listens on {}", path.display()), error)
            .hint("stop it, or listen elsewhere with --address")),
    }
}

/// Says who is at the other end.
fn peer(stream: &UnixStream) -> String {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(stream) else { return "another process".to_owned() };
    let pid = credentials.pid.as_raw_nonzero();
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(command) => format!("process {pid} ({})", command.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

/// Makes a socket that nobody else can connect to before it has its owner.
fn listen(path: &Path) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).map_err(|error| {
        Error::invalid_argument(format!("{} cannot be the path of a socket: {error}", path.display()))
            .hint("a path of at most 107 bytes can")
    })?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let make = || {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Linux gives the name the mode that the socket has.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    make().map_err(|error: rustix::io::Errno| Error::io(format!("listen on {}", path.display()), error.into()))
}

fn own(path: &Path, uid: u32, gid: u32) -> Result<()> {
    // Whoever is not root owns what he makes.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .attempt(|| format!("give {} to {uid}:{gid}", path.display()))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))
        .attempt(|| format!("set the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use windlass_core::Kind;

    use super::*;

    #[tokio::test]
    async fn a_socket_has_its_modes_and_goes_with_its_value() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/windlass.sock");
        let socket = Socket::bind(&path, 0, 0).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o711));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_names_who_answers() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Socket::bind(&path, 0, 0).unwrap();
        let error = Socket::bind(&path, 0, 0).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(live);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Socket::bind(&path, 0, 0).unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let long = root.path().join("x".repeat(120));
        assert_eq!(Socket::bind(&long, 0, 0).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
