//! Bytes over a stream, as containerd's clients send and receive them.
//!
//! ```text
//! receiver ── WindowUpdate { update } ──► sender      so many bytes more may be sent
//! receiver ◄───── Data { data } ───────── sender      never more than were granted
//! ```
//!
//! The sender closes the stream at the end. Memory is bounded by the window at both ends.

use bytes::Bytes;
use windlass_core::{ByteStream, Error, Result};
use windlass_proto::containerd::types::transfer::{Data, WindowUpdate};

use super::{Stream, unpack};

/// How many bytes are granted at a time. Others grant 64 KiB, which costs a turn of both ends for each of them.
const WINDOW: i32 = 1 << 20;
/// The most bytes of one message; others take 32 KiB at a time from theirs.
const PART: usize = 256 << 10;

/// Receives the bytes of a stream. Dropping them closes it.
pub fn receive(stream: Stream) -> ByteStream {
    struct Receiving {
        stream: Stream,
        granted: i64,
    }
    let next = async |receiving: Option<Receiving>| {
        let mut receiving = receiving?;
        let part = async {
            if receiving.granted < i64::from(WINDOW / 2) {
                receiving.stream.send(&WindowUpdate { update: WINDOW }).await?;
                receiving.granted += i64::from(WINDOW);
            }
            let Some(any) = receiving.stream.receive().await? else { return Ok(None) };
            let data: Data = unpack(&any)?.ok_or_else(|| {
                Error::invalid_argument(format!("bytes were expected on the stream, not {}", any.type_url))
            })?;
            receiving.granted -= i64::try_from(data.data.len()).unwrap_or(i64::MAX);
            if receiving.granted < 0 {
                return Err(Error::invalid_argument("more bytes were sent than the window has room for"));
            }
            Ok(Some(data.data))
        };
        match part.await {
            Ok(Some(data)) => Some((Ok(data), Some(receiving))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    };
    Box::pin(futures::stream::unfold(Some(Receiving { stream, granted: 0 }), next))
}

/// The sending end of bytes. Dropping it breaks the stream off; [`Sender::finish`] ends it.
pub struct Sender {
    stream: Stream,
    granted: u64,
}

impl Sender {
    /// Sends bytes over a stream.
    pub fn new(stream: Stream) -> Self {
        Self { stream, granted: 0 }
    }

    /// Sends bytes; waits while the receiver has no room.
    ///
    /// # Errors
    /// `Aborted` when the receiver is gone.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            while self.granted == 0 {
                self.granted = self.update().await?;
            }
            let room = usize::try_from(self.granted).unwrap_or(usize::MAX);
            let data = bytes.split_to(bytes.len().min(PART).min(room));
            self.granted -= data.len() as u64;
            self.stream.send(&Data { data }).await?;
        }
        Ok(())
    }

    /// Ends the bytes, and waits until the receiver has all of them.
    ///
    /// # Errors
    /// That of the connection.
    pub async fn finish(self) -> Result<()> {
        self.stream.finish().await
    }

    async fn update(&mut self) -> Result<u64> {
        let any = self.stream.receive().await?.ok_or_else(super::gone)?;
        let WindowUpdate { update } = unpack(&any)?.ok_or_else(|| {
            Error::invalid_argument(format!("a window was expected on the stream, not {}", any.type_url))
        })?;
        u64::try_from(update).map_err(|_| Error::invalid_argument(format!("a window of {update} bytes is none")))
    }
}
