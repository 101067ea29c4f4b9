//! A connection whose thread looks for what comes next for a moment before it sleeps.
//!
//! To wake a thread that sleeps takes about 40 µs on a virtual machine, because the processor that it slept on sleeps too. That is
//! as long as many calls take to be answered, and clients make them one after another. So a connection that wrote something asks
//! again and again whether something has come, for as long as [`LONGEST`], and then waits as others do. Where the other end is
//! slower than that, or what comes is nothing that is answered, such as how much more may be sent, it does so ever more rarely. So it
//! does where others want the processor: who gives way has it back when they have done what they were about, but who sleeps is woken
//! wherever there is room. One of a process does it at a time, and none where there is one processor, which the other end needs.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::transport::server::Connected;

/// How long a connection looks for what comes next.
const LONGEST: Duration = Duration::from_micros(100);
/// How long it takes at most until a thread that gave way goes on, when the other end alone went first.
const AWAY: Duration = Duration::from_micros(60);
/// How often a connection looks before its thread does what else there may be to do.
const LOOKS: u32 = 4;
/// How many chances to look a connection lets pass at most after it has looked for nothing.
const MOST_SKIPPED: u32 = 256;
/// How long a frame is at most that is neither a call nor an answer: a ping, or how much more may be sent (RFC 9113, sections 6.7
/// and 6.9).
const CONTROL: usize = 17;

/// A connection that can be read whether or not its runtime was told that something has come.
pub trait ReadNow {
    /// Reads what there is.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; those of reading.
    fn read_now(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()>;
}

/// Which connection looks: one of all that share this at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Whether the turn is taken; for good where nobody is to look.
    taken: Arc<AtomicBool>,
    /// The thread's share in it, by the number of those that hold it.
    thread: Arc<()>,
}

impl Default for Turn {
    fn default() -> Self {
        let alone = std::thread::available_parallelism().map_or(1, usize::from) == 1;
        Self { taken: Arc::new(AtomicBool::new(alone)), thread: Arc::default() }
    }
}

impl Turn {
    /// Returns a turn for connections on the threads of this runtime. Where threads steal work from each other nobody is to look: a
    /// thread that looks wakes others.
    pub(crate) fn here() -> Self {
        let turn = Self::default();
        let alone = |runtime: Handle| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
        if !Handle::try_current().is_ok_and(alone) {
            turn.taken.store(true, Ordering::Relaxed);
        }
        turn
    }

    /// Returns the same turn for the connections of another thread.
    #[must_use]
    pub fn of_another_thread(&self) -> Self {
        Self { taken: self.taken.clone(), thread: Arc::default() }
    }

    /// Says how many connections there are of the thread, given that this is not one of them.
    pub fn connections(&self) -> usize {
        Arc::strong_count(&self.thread) - 1
    }

    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::Relaxed)
    }

    fn give_back(&self) {
        self.taken.store(false, Ordering::Relaxed);
    }
}

/// A connection that lingers.
#[derive(Debug)]
pub struct Lingering<S> {
    inner: S,
    turn: Turn,
    longest: Duration,
    away: Duration,
    /// Since when it looks, if it does.
    since: Option<Instant>,
    /// Since when something is here that came while it looked, and that nothing was written for yet.
    unanswered: Option<Instant>,
    /// How many chances it lets pass before it looks again.
    skips: u32,
    /// How many it is to let pass when it looks for nothing the next time.
    next_skips: u32,
}

impl<S> Lingering<S> {
    /// Makes a connection linger.
    pub fn new(inner: S, turn: Turn) -> Self {
        let (longest, away) = (LONGEST, AWAY);
        Self { inner, turn, longest, away, since: None, unanswered: None, skips: 0, next_skips: 1 }
    }

    /// So many bytes were written: an answer to it may come soon.
    fn wrote(&mut self, length: usize, context: &mut Context<'_>) {
        if length <= CONTROL {
            return;
        }
        if self.unanswered.take().is_some() {
            self.next_skips = 1;
        }
        if self.since.is_none() {
            if self.skips > 0 {
                self.skips -= 1;
                return;
            }
            if !self.turn.take() {
                return;
            }
        }
        self.since = Some(Instant::now());
        // Who wrote need not read before he waits.
        look_again(context);
    }

    /// Something came.
    fn read(&mut self) {
        let longest = self.longest;
        if self.unanswered.take_if(|since| since.elapsed() > longest).is_some() {
            self.looked_for_nothing();
        }
        if self.since.is_some() {
            self.unanswered = Some(Instant::now());
            self.rest();
        }
    }

    /// Nothing is there: others go first, and then it looks again, unless they took long or nothing has come for long.
    fn waits(&mut self, context: &mut Context<'_>) {
        let Some(since) = self.since else { return };
        let goes_on = since.elapsed() < self.longest && {
            let left = Instant::now();
            // The other end may be waiting for this very processor.
            std::thread::yield_now();
            left.elapsed() <= self.away
        };
        if goes_on {
            look_again(context);
        } else {
            self.looked_for_nothing();
            self.rest();
        }
    }

    fn looked_for_nothing(&mut self) {
        self.skips = self.next_skips;
        self.next_skips = (self.next_skips * 2).min(MOST_SKIPPED);
    }

    fn rest(&mut self) {
        if self.since.take().is_some() {
            self.turn.give_back();
        }
    }
}

/// Has a task polled again once its thread has looked what has come for anybody.
fn look_again(context: &mut Context<'_>) {
    // That is what this does when it is polled the first time.
    let yielded = pin!(tokio::task::yield_now()).poll(context);
    debug_assert!(yielded.is_pending());
}

impl<S> Drop for Lingering<S> {
    fn drop(&mut self) {
        self.rest();
    }
}

impl<S: ReadNow> Lingering<S> {
    /// Looks whether something has come. To be told of it by the runtime takes longer than to read it.
    fn look(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        for _ in 0..LOOKS {
            match self.inner.read_now(buffer) {
                Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {}
                read => return Poll::Ready(read),
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + ReadNow + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if read.is_pending() && self.since.is_some() {
            read = self.look(buffer);
        }
        if read.is_ready() {
            self.read();
        } else {
            self.waits(context);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(length)) = written {
            self.wrote(length, context);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        if let Poll::Ready(Ok(length)) = written {
            self.wrote(length, context);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Lingering<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const QUESTION: &[u8] = b"long enough for a call";

    /// Another end that answers when it has been asked so often, and wakes nobody.
    struct Slow {
        asked: usize,
        answers_at: usize,
        /// What can be read without being told of it.
        untold: &'static [u8],
    }

    impl ReadNow for Slow {
        fn read_now(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
            if self.untold.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            buffer.put_slice(std::mem::take(&mut self.untold));
            Ok(())
        }
    }

    impl AsyncRead for Slow {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.asked += 1;
            if self.asked < self.answers_at {
                return Poll::Pending;
            }
            self.asked = 0;
            buffer.put_slice(b"!");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn turn() -> Turn {
        // Also where there is one processor.
        Turn { taken: Arc::default(), thread: Arc::default() }
    }

    fn lingering(turn: &Turn, longest: Duration, answers_at: usize) -> Lingering<Slow> {
        let mut stream = Lingering::new(Slow { asked: 0, answers_at, untold: b"" }, turn.clone());
        (stream.longest, stream.away) = (longest, Duration::MAX);
        stream
    }

    fn is_taken(turn: &Turn) -> bool {
        turn.taken.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn an_answer_is_seen_though_nobody_wakes_the_task() {
        let turn = turn();
        let mut stream = lingering(&turn, Duration::MAX, 50);
        for _ in 0..3 {
            stream.write_all(QUESTION).await.unwrap();
            assert!(is_taken(&turn));
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
            assert!(!is_taken(&turn), "others may look");
        }
    }

    #[tokio::test]
    async fn what_nobody_told_of_is_read_by_who_looks_and_by_nobody_else() {
        let turn = turn();
        let mut stream = lingering(&turn, Duration::MAX, usize::MAX);
        stream.inner.untold = b"?";
        let told = tokio::time::timeout(Duration::ZERO, stream.read_u8()).await;
        assert!(told.is_err(), "nothing was written that would be answered");
        stream.write_all(QUESTION).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'?');
        assert!(!is_taken(&turn));
    }

    #[tokio::test]
    async fn who_looked_for_nothing_looks_more_rarely_until_there_was_something() {
        let turn = turn();
        let mut stream = lingering(&turn, Duration::ZERO, usize::MAX);
        let mut chances = Vec::new();
        for chance in 0..20 {
            stream.write_all(QUESTION).await.unwrap();
            if is_taken(&turn) {
                chances.push(chance);
            }
            let nothing = tokio::time::timeout(Duration::ZERO, stream.read_u8()).await;
            assert!(nothing.is_err() && !is_taken(&turn));
        }
        assert_eq!(chances, [0, 2, 5, 10, 19]);
        (stream.inner.answers_at, stream.skips) = (1, 0);
        for _ in 0..3 {
            stream.write_all(QUESTION).await.unwrap();
            assert!(is_taken(&turn));
            stream.read_u8().await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_gave_way_to_others_sleeps() {
        let turn = turn();
        let mut stream = lingering(&turn, Duration::MAX, 50);
        stream.away = Duration::ZERO;
        stream.write_all(QUESTION).await.unwrap();
        let nothing = tokio::time::timeout(Duration::ZERO, stream.read_u8()).await;
        assert!(nothing.is_err() && !is_taken(&turn));
        stream.write_all(QUESTION).await.unwrap();
        assert!(!is_taken(&turn), "and lets a chance pass");
    }

    #[tokio::test]
    async fn what_came_was_worth_it_when_something_is_written_soon() {
        let turn = turn();
        let mut stream = lingering(&turn, Duration::MAX, 1);
        // What comes soon after may be the rest of it.
        for (longest, answered, next_skips) in [
            (Duration::MAX, false, 1),
            (Duration::ZERO, false, 2),
            (Duration::ZERO, false, 4),
            (Duration::MAX, false, 4),
            (Duration::ZERO, true, 1),
        ] {
            (stream.skips, stream.longest) = (0, Duration::MAX);
            stream.write_all(QUESTION).await.unwrap();
            let before = stream.next_skips;
            stream.read_u8().await.unwrap();
            assert_eq!(stream.next_skips, before, "that tells nothing yet");
            stream.longest = longest;
            if answered {
                stream.write_all(QUESTION).await.unwrap();
            }
            stream.read_u8().await.unwrap();
            assert_eq!(stream.next_skips, next_skips);
        }
    }

    #[tokio::test]
    async fn nobody_looks_for_an_answer_to_what_is_none() {
        let turn = turn();
        let mut stream = lingering(&turn, Duration::MAX, 1);
        stream.write_all(&[0; CONTROL]).await.unwrap();
        assert!(!is_taken(&turn));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_looks_where_threads_steal_work() {
        assert!(is_taken(&Turn::here()));
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_looks_where_there_is_another_processor() {
        let alone = std::thread::available_parallelism().unwrap().get() == 1;
        assert_eq!(is_taken(&Turn::here()), alone);
    }

    #[tokio::test]
    async fn one_looks_at_a_time_and_none_that_is_gone() {
        let turn = turn();
        let [mut first, mut second] = [(); 2].map(|()| lingering(&turn, Duration::MAX, 1));
        first.write_all(QUESTION).await.unwrap();
        second.write_all(QUESTION).await.unwrap();
        assert!(first.since.is_some() && second.since.is_none());
        drop(first);
        second.write_all(QUESTION).await.unwrap();
        assert!(second.since.is_some());
    }
}
