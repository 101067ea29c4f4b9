//! How a client comes to a daemon: the socket, and what can be wrong with who answers there.

use std::error::Error as StdError;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;
use tower::service_fn;
use windlass_core::{Error, Kind, Result};

use crate::content::Peer;
use crate::{Client, Gathering, Lingering, Socket, Turn};

/// How many bytes of a connection may be in the kernel; it counts its own bookkeeping twice.
const SEND_BUFFER: usize = 512 << 10;
/// How long a daemon may take to answer the first question.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do when nobody is there.
const START: &str = "`dist daemon` starts a daemon; --address, or CONTAINERD_ADDRESS, says where one listens";

impl Client {
    /// Connects to the daemon that listens on a unix socket, and asks it a first question. A connection that breaks later is
    /// made anew by the next call.
    ///
    /// # Errors
    /// `Unavailable` when nobody listens there, or when the daemon stops; `PermissionDenied`; `FailedPrecondition` when who
    /// answers does not speak gRPC; `DeadlineExceeded` after five seconds without an answer; `InvalidArgument` for a path that is
    /// no text.
    pub async fn connect(path: &Path) -> Result<Self> {
        let text = path.to_str().filter(|text| !text.is_empty());
        let no_path = || Error::invalid_argument(format!("{} cannot be the path of a socket", path.display()));
        // With or without the scheme, as other clients take it.
        let socket = PathBuf::from(text.ok_or_else(no_path)?.trim_start_matches("unix://"));
        let (turn, peer) = (Turn::here(), Peer::default());
        let met = peer.clone();
        let connector = service_fn(move |_| open(socket.clone(), turn.clone(), met.clone()));
        let connect = async {
            let endpoint = Self::tuned(Endpoint::from_static("http://localhost"));
            let channel = endpoint.connect_with_connector(connector).await.map_err(|error| refused(path, error))?;
            let client = Self::of(channel, peer);
            client.has_maintenance().await.map_err(|error| stranger(path, error))?;
            Ok(client)
        };
        tokio::time::timeout(PATIENCE, connect).await.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::DeadlineExceeded,
                format!("the daemon at {} did not answer within {} s", path.display(), PATIENCE.as_secs()),
            )
            .hint("look whether it still works; stopping and starting it keeps what it has"))
        })
    }
}

/// Connects to a socket, with room for bulk data.
async fn open(socket: PathBuf, turn: Turn, peer: Peer) -> io::Result<TokioIo<Gathering<Lingering<Socket>>>> {
    let stream = UnixStream::connect(socket).await?;
    peer.meet(&stream);
    make_room(&stream);
    Ok(TokioIo::new(Gathering::new(Lingering::new(Socket::new(stream)?, turn))))
}

/// Lets more be on its way through a socket than the kernel does by default, about 200 KiB, which is less than a frame and its
/// bookkeeping: who sends would wait for the other end in the middle of each. Where the kernel allows less it stays as it is.
pub fn make_room(socket: impl AsFd) {
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER) {
        tracing::debug!(%error, "a socket has no more room than others");
    }
}

/// Says why a socket could not be connected to.
fn refused(path: &Path, error: tonic::transport::Error) -> Error {
    let path = path.display();
    let Some(kind) = cause(&error).map(io::Error::kind) else {
        return Error::unavailable(format!("connect to {path}: {error}")).hint(START);
    };
    match kind {
        io::ErrorKind::NotFound => Error::unavailable(format!("nobody listens at {path}: there is no such socket")),
        io::ErrorKind::ConnectionRefused => {
            Error::unavailable(format!("nobody listens at {path} any more: the socket was left behind"))
        }
        io::ErrorKind::PermissionDenied => {
            return Error::permission_denied(format!("this user may not connect to {path}"))
                .hint("run the command as root, or as a member of the socket's group");
        }
        _ => Error::unavailable(format!("connect to {path}: {kind}")),
    }
    .hint(START)
    .source(error)
}

/// Says what is wrong with who answers, if that is no daemon; an error that a daemon answers with stays as it is.
fn stranger(path: &Path, error: Error) -> Error {
    // How a connection fails whose other end takes what it gets for something else.
    if ![Kind::Unknown, Kind::Internal, Kind::Canceled].contains(&error.kind()) {
        return error;
    }
    Error::failed_precondition(format!("what answers at {} does not speak gRPC", path.display()))
        .hint("the address is to be the socket of a daemon that speaks containerd's API")
        .source(error)
}

/// Returns the error of the operating system that an error comes from.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as Listener;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn nobody_there_is_said_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let absent = Client::connect(&path).await.err().unwrap();
        drop(Listener::bind(&path).unwrap());
        let left = Client::connect(&path).await.err().unwrap();
        for (error, why) in [(absent, "no such socket"), (left, "left behind")] {
            assert_eq!(error.kind(), Kind::Unavailable);
            let text = error.to_string();
            assert!(text.contains(why) && text.contains(path.to_str().unwrap()), "{text}");
            assert!(error.hint_text().unwrap().contains("dist daemon"));
        }
        assert_eq!(Client::connect(Path::new("")).await.err().unwrap().kind(), Kind::InvalidArgument);
    }

    #[tokio::test]
    async fn who_does_not_speak_grpc_is_told_from_a_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            }
        });
        let error = Client::connect(&path).await.err().unwrap();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
        assert!(error.to_string().contains("does not speak gRPC"), "{error}");
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _silent = UnixListener::bind(&path).unwrap();
        let error = Client::connect(&path).await.err().unwrap();
        assert_eq!(error.kind(), Kind::DeadlineExceeded, "{error:?}");
    }
}
