//! Bodies that come slowly, or break off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

/// The body of an answer.
pub(super) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// Long enough for what was sent before to have left, so that a test sees exactly so many bytes.
const FLUSH: Duration = Duration::from_millis(50);

/// How a body is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    pub(super) pieces: Option<(usize, Duration)>,
    pub(super) end: End,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum End {
    #[default]
    Complete,
    Close(usize),
    Reset(usize),
    Stall(usize),
    Never,
}

/// Makes a body.
pub(super) fn of(bytes: &Bytes, pace: Pace, reset: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Body {
    let sent = match pace.end {
        End::Complete | End::Never => bytes.len(),
        End::Close(after) | End::Reset(after) | End::Stall(after) => after.min(bytes.len()),
    };
    let (piece, pause) = pace.pieces.unwrap_or((64 << 10, Duration::ZERO));
    let pieces = pieces(bytes.slice(..sent), piece.max(1), pause).map(move |bytes| {
        count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(Frame::data(bytes))
    });
    let end = stream::once(async move {
        match pace.end {
            End::Complete => return None,
            End::Never | End::Stall(_) => std::future::pending::<()>().await,
            End::Close(_) => {}
            End::Reset(_) => reset.store(true, Ordering::SeqCst),
        }
        tokio::time::sleep(FLUSH).await;
        Some(Err(io::Error::other("the body ends here on purpose")))
    });
    let more = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 4096]))));
    let more = more.take(if matches!(pace.end, End::Never) { usize::MAX } else { 0 });
    StreamBody::new(pieces.chain(more).chain(end.filter_map(std::future::ready))).boxed_unsync()
}

fn pieces(bytes: Bytes, piece: usize, pause: Duration) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let next = rest.split_to(piece.min(rest.len()));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((next, rest))
    })
}
