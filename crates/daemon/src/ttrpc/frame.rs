//! The frames of ttrpc, and the two messages in them.
//!
//! A frame is a header of ten bytes, and data: length of the data (u32, big endian), stream (u32, big endian), kind (u8),
//! flags (u8). Source: the protocol's own description, `PROTOCOL.md` of containerd/ttrpc.

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use windlass_proto::google::rpc::Status;

/// The size of a header.
const HEADER: usize = 10;
/// The most data that a frame may have, in bytes.
pub(crate) const MAX_DATA: usize = 4 << 20;
/// How much of data that is too large is read at once, to get rid of it.
const DISCARDED_AT_ONCE: usize = 32 << 10;

/// The kind of a frame that asks.
pub(crate) const REQUEST: u8 = 1;
/// The kind of a frame that answers.
pub(crate) const RESPONSE: u8 = 2;

/// What is asked.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    /// The service, with its package.
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    /// The method.
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    /// The message of the method.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    /// How long the client waits, in nanoseconds; for ever when 0.
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
    /// What are headers elsewhere.
    #[prost(message, repeated, tag = "5")]
    pub(crate) metadata: Vec<KeyValue>,
}

/// A header.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// What is answered.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    /// How it went; nothing when it went well.
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    /// The message of the method.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) stream: u32,
    pub(crate) kind: u8,
    /// Nothing when there was more than may be.
    pub(crate) data: Option<Vec<u8>>,
}

/// Reads a frame; `None` when the other side has closed the connection between two. Data that is too large is read and
/// dropped, so that the client can be told.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Frame>> {
    let mut header = [0; HEADER];
    let first = from.read(&mut header).await?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(header.get_mut(first..).unwrap_or_default()).await?;
    let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    let stream = u32::from_be_bytes([s0, s1, s2, s3]);
    if length > MAX_DATA {
        discard(from, length).await?;
        return Ok(Some(Frame { stream, kind, data: None }));
    }
    // Memory is taken as bytes come, not as they are announced.
    let mut data = Vec::new();
    (&mut *from).take(length as u64).read_to_end(&mut data).await?;
    if data.len() < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame { stream, kind, data: Some(data) }))
}

async fn discard(from: &mut (impl AsyncRead + Unpin), mut length: usize) -> std::io::Result<()> {
    let mut buffer = vec![0; DISCARDED_AT_ONCE];
    while length > 0 {
        let some = length.min(buffer.len());
        length -= from.read_exact(buffer.get_mut(..some).unwrap_or_default()).await?;
    }
    Ok(())
}

/// Writes an answer.
pub(crate) async fn answer(
    to: &mut (impl AsyncWrite + Unpin),
    stream: u32,
    response: &Response,
) -> std::io::Result<()> {
    let length = response.encoded_len();
    let mut frame = Vec::with_capacity(HEADER + length);
    frame.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend([RESPONSE, 0]);
    response.encode(&mut frame).map_err(std::io::Error::other)?;
    to.write_all(&frame).await
}
