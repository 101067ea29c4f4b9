//! A connection on which what follows each other at once goes to the other end at once.
//!
//! HTTP/2 cuts content into frames as large as the other end takes, which with clients written in Go is 16 KiB, and hands over
//! one after the other. Each would be a call of the system and wake the client, who reads a part and waits for the next one. So
//! frames with content are kept for as long as more is coming: whatever is written otherwise takes them along, and so does a
//! flush that nothing was written before. The head of a call is kept as well, because hyper hands over what it is the head of a
//! moment later, and so is the answer to a ping, because clients written in Go send one with each call: it goes with what the
//! call is answered, if that comes by the time that the connection's task is woken.
//!
//! A flush right behind such a frame is put off. Who writes has more, or flushes again; should it do neither, a task of the
//! connection's wakes it, and it does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::transport::server::Connected;

/// How large a frame is at most that is kept: copying it takes less than a call. Its head comes with it.
const LARGEST: usize = (16 << 10) + 64;
/// How many bytes are kept at most.
const MOST: usize = 64 << 10;

/// What the answer to a ping begins with: its length, type and flags (RFC 9113, section 6.7).
const PONG: &[u8] = &[0, 0, 8, 6, 1];
/// How long it is.
const PONG_LENGTH: usize = 17;

/// How long the head of a frame is, and the type of the one that a call begins with; whether nothing follows it is one of its
/// flags (RFC 9113, sections 4.1 and 6.2).
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// Tells whether something is to follow what begins a call, or an answer, and is all that is written.
fn is_followed(bytes: &[u8]) -> bool {
    let &[high, middle, low, HEADERS, flags, ..] = bytes else { return false };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    flags & END_STREAM == 0 && bytes.len() == FRAME_HEAD + length
}

/// A connection that gathers what is written.
#[derive(Debug)]
pub struct Gathering<S> {
    inner: S,
    kept: BytesMut,
    /// Whether something was kept since the last flush.
    fresh: bool,
    /// Whether every flush is put off until the writer has been woken.
    waits: bool,
    reminder: Arc<Reminder>,
    // Reminds until it is dropped.
    _reminding: JoinSet<()>,
}

/// Who is to be woken because of a flush that was put off.
#[derive(Debug, Default)]
struct Reminder {
    asked: Notify,
    writer: Mutex<Option<Waker>>,
}

impl Reminder {
    fn writer(&self) -> MutexGuard<'_, Option<Waker>> {
        // Every change is whole whatever panicked.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, writer: &Waker) {
        *self.writer() = Some(writer.clone());
        self.asked.notify_one();
    }

    /// Says whether somebody is still to be woken.
    fn is_set(&self) -> bool {
        self.writer().is_some()
    }

    async fn remind(&self) {
        loop {
            self.asked.notified().await;
            let writer = self.writer().take();
            if let Some(writer) = writer {
                writer.wake();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// Gathers what is written to a stream. Called within a runtime.
    #[must_use]
    pub fn new(inner: S) -> Self {
        let reminder = Arc::<Reminder>::default();
        let mut reminding = JoinSet::new();
        let reminds = reminder.clone();
        reminding.spawn(async move { reminds.remind().await });
        Self { inner, kept: BytesMut::new(), fresh: false, waits: false, reminder, _reminding: reminding }
    }

    /// Writes what is kept, and then as much as goes with it of what follows; returns how much that was of the latter.
    fn poll_write_with(&mut self, context: &mut Context<'_>, more: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let kept = self.kept.len();
            let written = if kept == 0 {
                return Pin::new(&mut self.inner).poll_write_vectored(context, more);
            } else {
                let parts: Vec<_> = std::iter::once(IoSlice::new(&self.kept)).chain(more.iter().copied()).collect();
                ready!(Pin::new(&mut self.inner).poll_write_vectored(context, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written.min(kept));
            if self.kept.is_empty() {
                // One that has nothing to say keeps no memory.
                (self.kept, self.fresh, self.waits) = (BytesMut::new(), false, false);
                self.reminder.writer().take();
            }
            if written > kept || more.is_empty() && written == kept {
                return Poll::Ready(Ok(written - kept));
            }
        }
    }

    /// Writes what is kept.
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_write_with(context, &[]).map_ok(drop)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // A head and what it is the head of; what is small, such as the end of an answer, is in one part.
        let is_content = parts.iter().filter(|part| !part.is_empty()).count() > 1;
        let is_pong = length == PONG_LENGTH && parts.iter().any(|part| part.starts_with(PONG));
        let is_head = !is_content && parts.iter().any(|part| is_followed(part));
        if !(is_content || is_pong || is_head) || length > LARGEST || this.kept.len() + length > MOST {
            return this.poll_write_with(context, parts);
        }
        for part in parts {
            this.kept.extend_from_slice(part);
        }
        this.fresh = true;
        this.waits |= is_pong;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.fresh) {
            this.reminder.set(context.waker());
            return Poll::Ready(Ok(()));
        }
        if this.waits && this.reminder.is_set() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_write_out(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_out(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Gathering<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A stream that counts calls, and takes so many bytes of each.
    struct Counting {
        calls: usize,
        written: Vec<u8>,
        most: usize,
    }

    impl AsyncWrite for Counting {
        fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            let before = self.written.len();
            for part in parts {
                let room = self.most - (self.written.len() - before);
                self.written.extend_from_slice(&part[..part.len().min(room)]);
            }
            Poll::Ready(Ok(self.written.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn counting(most: usize) -> Gathering<Counting> {
        Gathering::new(Counting { calls: 0, written: Vec::new(), most })
    }

    async fn frame(stream: &mut Gathering<Counting>, head: &[u8], content: &[u8]) {
        let mut written = 0;
        while written < head.len() + content.len() {
            let parts = [
                IoSlice::new(&head[written.min(head.len())..]),
                IoSlice::new(&content[written.saturating_sub(head.len())..]),
            ];
            written += poll_fn(|context| Pin::new(&mut *stream).poll_write_vectored(context, &parts)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn frames_go_with_the_end_of_the_answer_in_one_call() {
        let mut stream = counting(usize::MAX);
        let content = vec![7; 16 << 10];
        for _ in 0..2 {
            frame(&mut stream, b"head", &content).await;
            stream.flush().await.unwrap();
        }
        assert_eq!(stream.inner.calls, 0, "more is coming");
        stream.write_all(b"end").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.inner.calls, 1);
        let whole = [b"head", content.as_slice(), b"head", &content, b"end"].concat();
        assert!(stream.inner.written == whole, "everything came, in its order");
    }

    #[tokio::test]
    async fn what_the_other_end_takes_in_part_comes_whole_and_in_order() {
        for most in [1, 3, 1000, 20_000] {
            let mut stream = counting(most);
            let mut whole = Vec::new();
            for (at, length) in
                [200, 16 << 10, 40, 100_000, 16 << 10, 16 << 10, 16 << 10, 16 << 10, 16 << 10].iter().enumerate()
            {
                let content = vec![u8::try_from(at).unwrap(); *length];
                frame(&mut stream, b"head", &content).await;
                stream.flush().await.unwrap();
                whole.extend_from_slice(b"head");
                whole.extend_from_slice(&content);
            }
            stream.shutdown().await.unwrap();
            assert!(stream.inner.written == whole, "{most}");
        }
    }

    #[tokio::test]
    async fn the_answer_to_a_ping_goes_with_that_to_a_call() {
        let pong = [PONG, &[0; 4], b"12345678"].concat();
        let mut stream = counting(usize::MAX);
        frame(&mut stream, &pong, b"").await;
        stream.flush().await.unwrap();
        assert_eq!(stream.inner.calls, 0);
        stream.write_all(b"answer").await.unwrap();
        assert_eq!(
            (stream.inner.calls, stream.inner.written.as_slice()),
            (1, [&pong, &b"answer"[..]].concat().as_slice())
        );
        // Or alone, once the task was woken.
        frame(&mut stream, &pong, b"").await;
        for _ in 0..3 {
            stream.flush().await.unwrap();
            assert_eq!(stream.inner.calls, 1);
        }
        while stream.reminder.is_set() {
            tokio::task::yield_now().await;
        }
        stream.flush().await.unwrap();
        assert_eq!(stream.inner.calls, 2);
    }

    #[tokio::test]
    async fn the_head_of_a_call_goes_with_what_it_is_the_head_of() {
        let head = |flags: u8| [0, 0, 3, HEADERS, flags, 0, 0, 0, 1, b'a', b'b', b'c'];
        let mut stream = counting(usize::MAX);
        frame(&mut stream, &head(0x4), b"").await;
        stream.flush().await.unwrap();
        assert_eq!(stream.inner.calls, 0);
        frame(&mut stream, b"message", b"").await;
        assert_eq!((stream.inner.calls, stream.inner.written.len()), (1, 12 + 7));
        // Which a call without a message has none of; and two frames are not looked at.
        for written in [head(0x4 | END_STREAM).to_vec(), [head(0x4), head(0x4)].concat(), head(0x4)[..11].to_vec()] {
            let before = stream.inner.calls;
            frame(&mut stream, &written, b"").await;
            assert_eq!(stream.inner.calls, before + 1, "{written:?}");
        }
    }

    #[tokio::test]
    async fn no_more_is_kept_than_may_be() {
        let mut stream = counting(usize::MAX);
        let content = vec![7; 16 << 10];
        for _ in 0..100 {
            frame(&mut stream, b"head", &content).await;
            stream.flush().await.unwrap();
            assert!(stream.kept.len() <= MOST);
        }
        frame(&mut stream, b"head", &vec![7; LARGEST]).await;
        assert!(stream.kept.is_empty(), "what is large is not copied");
    }

    #[tokio::test]
    async fn who_does_not_flush_again_is_woken() {
        let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
        let mut stream = Gathering::new(near);
        let writing = tokio::spawn(async move {
            let parts = [IoSlice::new(b"head"), IoSlice::new(b"content")];
            let mut begun = false;
            // As a connection does it: a flush, and it waits until somebody wakes it.
            poll_fn(|context| {
                if !std::mem::replace(&mut begun, true) {
                    assert!(Pin::new(&mut stream).poll_write_vectored(context, &parts).is_ready());
                    assert!(Pin::new(&mut stream).poll_flush(context).is_ready());
                    return Poll::Pending;
                }
                Pin::new(&mut stream).poll_flush(context).map(Result::unwrap)
            })
            .await;
            stream
        });
        let mut came = [0; 11];
        far.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"headcontent");
        drop(writing.await.unwrap());
    }
}
