//! What is sent with a request.
//!
//! Bytes that are at hand can be sent again; a stream is sent once, and whoever sends it has to know what to do when that
//! fails.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use hyper::body::{Body, Frame, SizeHint};
use windlass_core::ByteStream;

use crate::transport::BoxError;

/// The body of a request.
#[derive(Debug, Default)]
pub(crate) enum Payload {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes that are at hand.
    Bytes(Bytes),
    /// Bytes that come while they are sent.
    Stream(Outgoing),
}

impl Payload {
    /// Returns the same once more; `None` when it can be sent only once.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream(_) => None,
        }
    }

    /// Returns how far a stream has come, while it is being sent.
    pub(crate) fn pace(&self) -> Option<Arc<Pace>> {
        match self {
            Self::Empty | Self::Bytes(_) => None,
            Self::Stream(outgoing) => Some(outgoing.pace.clone()),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Bytes(bytes) }
    }
}

/// A stream of a known length on its way out.
pub(crate) struct Outgoing {
    stream: ByteStream,
    left: u64,
    pace: Arc<Pace>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// Makes one of a stream that has so many bytes; one that ends earlier breaks the connection off.
    pub(crate) fn new(stream: ByteStream, length: u64) -> Self {
        Self { stream, left: length, pace: Arc::default() }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.stream).poll_next(context);
        self.pace.starved.store(polled.is_pending(), Ordering::Relaxed);
        polled.map(|next| {
            let bytes = match next? {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error.into())),
            };
            self.left = self.left.saturating_sub(bytes.len() as u64);
            self.pace.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Some(Ok(Frame::data(bytes)))
        })
    }
}

/// How far a stream has come.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    taken: AtomicU64,
    starved: AtomicBool,
}

impl Pace {
    /// Returns how many bytes the connection has taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Tells whether the connection waits for bytes, and not the other way round.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            Self::Stream(outgoing) => outgoing.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stream(outgoing) => outgoing.left,
        })
    }
}
