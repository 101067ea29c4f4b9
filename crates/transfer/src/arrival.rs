//! The arrival of a blob, as those see it who wait for it: an unpacker reads behind the download, and goes on reading when
//! a download that broke is continued by the next one.
//!
//! Neither side can wait for the other for ever. A reader waits for a download that has begun, which holds its place
//! until the blob is here or the pull has failed. A download waits for a reader only while that one is more than the
//! lead behind, so there are bytes that it can read.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};
use windlass_core::content::{Provider, ReaderAt, Store};
use windlass_core::{Descriptor, Error, Kind, Result};

/// The arrival of one blob. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Arrival(Arc<Inner>);

struct Inner {
    stage: watch::Sender<Stage>,
    /// How far the reader is that follows; none when nobody does.
    reader: watch::Sender<Option<u64>>,
    /// How far ahead of its reader a download may be, in bytes.
    lead: u64,
}

type Tail = Arc<dyn ReaderAt>;

#[derive(Clone, Default)]
struct Stage {
    /// Grows when bytes that were read are not those of the blob.
    round: u64,
    phase: Phase,
}

#[derive(Clone, Default)]
enum Phase {
    /// Nothing is known of it.
    #[default]
    Ahead,
    /// It is being downloaded, and can be read behind the writer if that has a tail.
    Coming(Option<Tail>),
    /// A download broke, and will be continued.
    Paused,
    /// It is here, verified.
    Here,
}

impl Arrival {
    /// Makes one of which nothing is known yet.
    pub(crate) fn new(lead: u64) -> Self {
        Self(Arc::new(Inner { stage: watch::Sender::default(), reader: watch::Sender::default(), lead }))
    }

    fn enter(&self, phase: Phase) {
        self.0.stage.send_modify(|stage| stage.phase = phase);
    }

    /// Says that a download goes on, and how to read behind it.
    pub(crate) fn comes(&self, tail: Option<Tail>) {
        self.enter(Phase::Coming(tail));
    }

    /// Says that a download broke off and will be continued.
    pub(crate) fn pauses(&self) {
        self.enter(Phase::Paused);
    }

    /// Says that what could be read so far is not the blob: whoever read it has to start over.
    pub(crate) fn starts_over(&self) {
        self.0.stage.send_modify(|stage| *stage = Stage { round: stage.round + 1, phase: Phase::Paused });
    }

    /// Says that the blob is here.
    pub(crate) fn is_here(&self) {
        self.enter(Phase::Here);
    }

    /// Waits until the reader that follows, if there is one, is near enough for a byte at that offset to be written.
    pub(crate) async fn room(&self, at: u64) {
        let near = |reader: &Option<u64>| reader.is_none_or(|reader| at <= reader.saturating_add(self.0.lead));
        // The sender is alive as long as `self` is, so waiting cannot fail.
        let _ = self.0.reader.subscribe().wait_for(near).await;
    }

    /// Waits until the blob can be read, be it behind its writer.
    pub(crate) async fn readable(&self) {
        let readable = |stage: &Stage| matches!(stage.phase, Phase::Coming(Some(_)) | Phase::Here);
        let _ = self.0.stage.subscribe().wait_for(readable).await;
    }

    /// Waits until the blob is here, which is true, or what could be read before was not the blob.
    pub(crate) async fn verdict(&self, round: u64) -> bool {
        let known = |stage: &Stage| stage.round != round || matches!(stage.phase, Phase::Here);
        match self.0.stage.subscribe().wait_for(known).await {
            Ok(stage) => stage.round == round,
            Err(_) => false,
        }
    }

    /// Returns what tells whether readers had to start over: it changes when they have.
    pub(crate) fn round(&self) -> u64 {
        self.0.stage.borrow().round
    }

    /// Returns the blob as it can be read from its first byte on, while it comes.
    pub(crate) fn follow(&self, content: Arc<dyn Store>) -> Following {
        Following { arrival: self.clone(), content }
    }
}

/// Where a blob can be read that may still be coming.
pub(crate) struct Following {
    arrival: Arrival,
    content: Arc<dyn Store>,
}

#[async_trait]
impl Provider for Following {
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        self.arrival.0.reader.send_replace(Some(0));
        Ok(Box::new(Follower {
            arrival: self.arrival.clone(),
            content: self.content.clone(),
            descriptor: descriptor.clone(),
            round: self.arrival.round(),
            tail: Mutex::default(),
            blob: OnceCell::new(),
        }))
    }
}

/// A reader that goes on behind the next writer when one gives up.
struct Follower {
    arrival: Arrival,
    content: Arc<dyn Store>,
    descriptor: Descriptor,
    round: u64,
    /// The tail that was read last: it goes on after the commit.
    tail: Mutex<Option<Tail>>,
    /// The blob, once it is read without a tail.
    blob: OnceCell<Box<dyn ReaderAt>>,
}

impl Follower {
    fn tail(&self, of: &Phase) -> Option<Tail> {
        let mut last = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        match of {
            Phase::Coming(tail) => last.clone_from(tail),
            Phase::Here => {}
            Phase::Ahead | Phase::Paused => *last = None,
        }
        last.clone()
    }

    fn forget_tail(&self) {
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn read_blob(&self, offset: u64, length: usize) -> Result<Bytes> {
        let blob = self.blob.get_or_try_init(|| self.content.reader(&self.descriptor)).await?;
        blob.read_at(offset, length).await
    }
}

#[async_trait]
impl ReaderAt for Follower {
    fn size(&self) -> u64 {
        self.descriptor.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut stages = self.arrival.0.stage.subscribe();
        loop {
            let Stage { round, phase } = stages.borrow_and_update().clone();
            if round != self.round {
                return Err(Error::aborted(format!("the download of {} starts over", self.descriptor.digest)));
            }
            let read = match (self.tail(&phase), &phase) {
                (Some(tail), _) => tail.read_at(offset, length).await,
                (None, Phase::Here) => return self.read_blob(offset, length).await,
                (None, _) => Err(Error::aborted("nothing of it can be read")),
            };
            match read {
                Ok(bytes) => {
                    self.arrival.0.reader.send_replace(Some(offset + bytes.len() as u64));
                    return Ok(bytes);
                }
                // The writer is gone: with the blob here, or with another writer to come.
                Err(error) if error.is(Kind::Aborted) => {
                    self.forget_tail();
                    if !matches!(phase, Phase::Here) {
                        // The sender is alive as long as `self` is.
                        let _ = stages.changed().await;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.arrival.0.reader.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windlass_testkit::memory::Content;

    use super::*;

    /// A tail that has so many bytes and then waits, or is given up.
    struct Has(Bytes, bool);

    #[async_trait]
    impl ReaderAt for Has {
        fn size(&self) -> u64 {
            10
        }

        async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
            let start = usize::try_from(offset).unwrap();
            if start < self.0.len() {
                return Ok(self.0.slice(start..self.0.len().min(start + length)));
            }
            if self.1 {
                return Err(Error::aborted("the writer is gone"));
            }
            std::future::pending().await
        }
    }

    fn layer() -> Descriptor {
        Descriptor::of("application/octet-stream", b"0123456789")
    }

    async fn follower(arrival: &Arrival) -> Arc<dyn ReaderAt> {
        arrival.follow(Arc::new(Content::default())).reader(&layer()).await.unwrap().into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_goes_on_behind_the_next_writer() {
        let arrival = Arrival::new(100);
        arrival.comes(Some(Arc::new(Has(Bytes::from_static(b"01234"), true))));
        let reader = follower(&arrival).await;
        assert_eq!(reader.read_at(0, 9).await.unwrap(), "01234");
        let read = tokio::spawn(async move { reader.read_at(5, 9).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        arrival.pauses();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!read.is_finished());
        arrival.comes(Some(Arc::new(Has(Bytes::from_static(b"0123456789"), true))));
        assert_eq!(read.await.unwrap().unwrap(), "56789");
    }

    #[tokio::test]
    async fn a_reader_is_told_when_what_it_has_read_was_not_the_blob() {
        let arrival = Arrival::new(100);
        arrival.comes(Some(Arc::new(Has(Bytes::from_static(b"01234"), true))));
        let reader = follower(&arrival).await;
        let round = arrival.round();
        reader.read_at(0, 9).await.unwrap();
        arrival.starts_over();
        assert_eq!(reader.read_at(5, 9).await.unwrap_err().kind(), Kind::Aborted);
        assert!(!arrival.verdict(round).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_waits_for_a_reader_that_is_too_far_behind_and_for_nobody_else() {
        let arrival = Arrival::new(4);
        let waits = async |at| tokio::time::timeout(Duration::from_secs(1), arrival.room(at)).await.is_err();
        assert!(!waits(1_000).await, "nobody reads");
        arrival.comes(Some(Arc::new(Has(Bytes::from_static(b"0123456789"), true))));
        let reader = follower(&arrival).await;
        assert!(!waits(4).await);
        assert!(waits(5).await);
        reader.read_at(0, 1).await.unwrap();
        assert!(!waits(5).await);
        drop(reader);
        assert!(!waits(1_000).await, "nobody reads any more");
    }
}
