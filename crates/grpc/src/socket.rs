//! A unix socket whose task is woken by what it waits for, and by nothing else.
//!
//! Whenever the other end has read enough of what was written, the kernel says that there is room for more, to everybody who asked. A socket
//! that is watched in both directions for as long as it lives makes a thread get up for that after every answer, find nothing
//! to do, and lie down again; and the other end pays for waking it. So this one is watched for what comes, and for room only
//! while a write waits for it.

use std::io::{self, IoSlice, Write as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::ReadNow;

/// A connected unix socket.
#[derive(Debug)]
pub struct Socket {
    stream: AsyncFd<StdUnixStream>,
    /// The same socket under another number, watched for room, while a write waits.
    full: Option<AsyncFd<StdUnixStream>>,
    peer: UdsConnectInfo,
}

impl Socket {
    /// Makes one of a stream that is watched in both directions. Called within a runtime.
    ///
    /// # Errors
    /// Those of the runtime.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = UdsConnectInfo { peer_addr: None, peer_cred: stream.peer_cred().ok() };
        Ok(Self { stream: watch(stream.into_std()?, Interest::READABLE)?, full: None, peer })
    }
}

/// Has the runtime tell when something holds of a stream.
#[expect(unsafe_code, reason = "the runtime goes by the number of what it watches")]
fn watch(stream: StdUnixStream, what: Interest) -> io::Result<AsyncFd<StdUnixStream>> {
    // SAFETY: a stream is open, under one number, for as long as it lives, and is the runtime's until that is told to stop.
    unsafe { AsyncFd::register_with_interest(stream, what) }.map_err(|failed| failed.into_parts().1)
}

/// Reads what there is, and returns how many bytes that were.
#[expect(unsafe_code, reason = "what is read goes to memory that nobody cleared before")]
fn read(stream: &StdUnixStream, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing of it is made uninitialized that was not.
    let unfilled = unsafe { buffer.unfilled_mut() };
    let length = rustix::io::read(stream, unfilled)?.0.len();
    // SAFETY: so many bytes were read into it, from its beginning on.
    unsafe { buffer.assume_init(length) };
    buffer.advance(length);
    Ok(length)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        loop {
            let mut ready = ready!(self.stream.poll_read_ready(context))?;
            match ready.try_io(|stream| read(stream.get_ref(), buffer)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(length) => {
                    // There was no more: the next read would only find that out.
                    if (1..room).contains(&length?) {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(_) => {}
            }
        }
    }
}

impl ReadNow for Socket {
    fn read_now(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        read(self.stream.get_ref(), buffer).map(drop)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, full, .. } = &mut *self;
        loop {
            if let Some(full) = full {
                ready!(full.poll_write_ready(context))?.clear_ready();
            }
            match stream.get_ref().write_vectored(parts) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if full.is_none() {
                        *full = Some(watch(stream.get_ref().try_clone()?, Interest::WRITABLE)?);
                    }
                }
                written => {
                    *full = None;
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

impl Connected for Socket {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.peer.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> [Socket; 2] {
        let (one, other) = UnixStream::pair().unwrap();
        [Socket::new(one).unwrap(), Socket::new(other).unwrap()]
    }

    #[tokio::test]
    async fn more_than_fits_goes_both_ways_at_once() {
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let ends = pair().map(|mut end| {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let (mut reads, mut writes) = tokio::io::split(&mut end);
                let write = async {
                    writes.write_all(&bytes).await.unwrap();
                    writes.shutdown().await.unwrap();
                };
                let mut read = Vec::new();
                tokio::join!(write, async { reads.read_to_end(&mut read).await.unwrap() });
                assert!(end.full.is_none(), "it is watched for room no more");
                read
            })
        });
        for end in ends {
            assert!(end.await.unwrap() == bytes);
        }
    }

    #[tokio::test]
    async fn a_write_that_waits_ends_when_the_other_end_is_gone() {
        let [mut one, other] = pair();
        let writing = tokio::spawn(async move { one.write_all(&vec![0; 8 << 20]).await });
        tokio::task::yield_now().await;
        drop(other);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_read_that_waits_ends_when_the_other_end_is_gone() {
        let [mut one, other] = pair();
        let reading = tokio::spawn(async move { one.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        drop(other);
        assert_eq!(reading.await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn what_was_read_before_it_was_told_of_is_waited_for_no_more() {
        let [mut one, mut other] = pair();
        let mut room = [0; 8];
        let mut read_now = |socket: &mut Socket| {
            let mut buffer = ReadBuf::new(&mut room);
            socket.read_now(&mut buffer).map(|()| buffer.filled().to_vec())
        };
        assert_eq!(read_now(&mut one).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for _ in 0..3 {
            other.write_all(b"now").await.unwrap();
            assert_eq!(read_now(&mut one).unwrap(), b"now");
            tokio::task::yield_now().await;
            let later = async {
                tokio::task::yield_now().await;
                other.write_all(b"later").await.unwrap();
            };
            let mut read = [0; 5];
            tokio::join!(later, async { one.read_exact(&mut read).await.unwrap() });
            assert_eq!(&read, b"later");
        }
        drop(other);
        assert_eq!(read_now(&mut one).unwrap(), b"", "the other end is gone");
    }

    #[tokio::test]
    async fn it_is_known_who_is_at_the_other_end() {
        let [one, _other] = pair();
        let process = one.connect_info().peer_cred.and_then(|it| it.pid());
        assert_eq!(process, Some(i32::try_from(std::process::id()).unwrap()));
    }
}
