//! Copying: from wherever content can be read to a writer, continued where the writer stands.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};

use super::{InFile, ReaderAt, Status, Writer};
use crate::ByteStream;
use crate::error::{Error, Result};
use crate::progress::{State, Task};
use crate::remote::Body;

/// How much of a blob is read at once, in bytes.
const PART: usize = 1 << 20;
/// How much of a file a writer is asked to read by itself at once, in bytes: between two of these a copy can be given up, and says
/// where it is.
const STEP: u64 = 8 << 20;

/// Content that can be read from some offset on.
#[async_trait]
pub trait Source: Send {
    /// Opens the content at an offset. A source that cannot seek there begins earlier, and says so in the body; the
    /// reader skips what it has.
    ///
    /// # Errors
    /// Those of the source; `OutOfRange` when the content is known to be shorter than the offset.
    async fn open(&mut self, offset: u64) -> Result<Body>;

    /// Returns where the bytes are, and how many, when a file has them.
    fn in_file(&self) -> Option<(InFile, u64)> {
        None
    }
}

/// Brings a writer's content to its end: asks where the writer stands, opens the source there, skips what the source
/// sends again, and writes the rest. Returns where the writer then stands; committing is the caller's.
///
/// # Errors
/// Those of source and writer, with what was written before kept. `DataLoss` when the source has another size than was
/// declared, or begins after where the writer stands; `Unavailable` when it ends before what was declared; `OutOfRange`
/// when nothing was, and it ends before where the writer stands.
///
/// # Cancel safety
/// A copy that is dropped has written a part of it; the next one continues.
pub async fn copy(writer: &mut dyn Writer, source: &mut dyn Source, task: Option<&Task>) -> Result<u64> {
    let mut report = |offset, total| {
        if let Some(task) = task {
            task.set(State::Fetching { offset, total });
        }
    };
    copy_telling(writer, source, &mut report).await
}

/// As [`copy`], and tells of every step where the writer then stands, and of how many bytes.
///
/// # Errors
/// As [`copy`].
///
/// # Cancel safety
/// As [`copy`].
pub async fn copy_telling(
    writer: &mut dyn Writer,
    source: &mut dyn Source,
    report: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<u64> {
    let status = writer.status().await?;
    let mut at = status.offset;
    report(at, status.total.unwrap_or(at));
    if at > 0 && status.total == Some(at) {
        return Ok(at);
    }
    if let Some(place) = source.in_file() {
        at = copy_file(writer, place, &status, report).await?;
    }
    let status = Status { offset: at, ..status };
    let Body { offset, size, mut stream } = source.open(at).await?;
    let mut skip = to_skip(&status, offset, size)?;
    while let Some(part) = stream.next().await {
        let mut part = part?;
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(part.len());
        let part = part.split_off(skipped);
        skip -= skipped as u64;
        if part.is_empty() {
            continue;
        }
        let after = at + part.len() as u64;
        if let Some(total) = status.total.filter(|total| after > *total) {
            return Err(wrong_size(&format!("{after} or more"), total));
        }
        writer.write(part).await?;
        at = after;
        report(at, status.total.unwrap_or(at));
    }
    let end = at - skip;
    match status.total {
        // It was cut off, wherever that was.
        Some(total) if end < total => {
            Err(Error::unavailable(format!("the source ended after {end} of {total} bytes")).coded("truncated"))
        }
        _ if skip > 0 => Err(Error::out_of_range(format!(
            "the source ended {skip} bytes before byte {at}, which it is to be continued at"
        ))),
        _ => Ok(at),
    }
}

/// Has the writer read for itself what it reads of a source that is in a file. Returns where it then stands.
async fn copy_file(
    writer: &mut dyn Writer,
    (InFile { file, begin }, size): (InFile, u64),
    status: &Status,
    report: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<u64> {
    let mut at = status.offset;
    to_skip(status, at, Some(size))?;
    while at < size {
        let end = size.min(at.saturating_add(STEP));
        if !writer.write_file(&file, begin.saturating_add(at)..begin.saturating_add(end)).await? {
            break;
        }
        at = end;
        report(at, status.total.unwrap_or(at));
    }
    Ok(at)
}

/// Returns how many bytes of a source are here already.
fn to_skip(status: &Status, begins: u64, size: Option<u64>) -> Result<u64> {
    if let (Some(size), Some(total)) = (size, status.total)
        && size != total
    {
        return Err(wrong_size(&size.to_string(), total));
    }
    status.offset.checked_sub(begins).ok_or_else(|| {
        let asked = status.offset;
        Error::data_loss(format!("the source begins at byte {begins}, {asked} was asked for")).coded("size-mismatch")
    })
}

fn wrong_size(found: &str, declared: u64) -> Error {
    Error::data_loss(format!("the source has {found} bytes, {declared} are declared")).coded("size-mismatch")
}

/// Bytes at hand.
#[async_trait]
impl Source for Bytes {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        let size = self.len() as u64;
        let rest =
            usize::try_from(offset).ok().filter(|offset| *offset <= self.len()).map(|offset| self.slice(offset..));
        let rest = rest.ok_or_else(|| beyond(offset, size))?;
        Ok(Body { offset, size: Some(size), stream: stream::iter([Ok(rest)]).boxed() })
    }
}

/// A blob, or anything else that can be read anywhere.
#[async_trait]
impl Source for Arc<dyn ReaderAt> {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        let size = self.size();
        if offset > size {
            return Err(beyond(offset, size));
        }
        let parts = stream::try_unfold((self.clone(), offset), |(reader, at)| async move {
            let part = reader.read_at(at, PART).await?;
            let next = at + part.len() as u64;
            Ok((!part.is_empty()).then_some((part, (reader, next))))
        });
        Ok(Body { offset, size: Some(size), stream: parts.boxed() })
    }

    fn in_file(&self) -> Option<(InFile, u64)> {
        ReaderAt::in_file(&**self).map(|place| (place, self.size()))
    }
}

fn beyond(offset: u64, size: u64) -> Error {
    Error::out_of_range(format!("the source has {size} bytes, and is to be continued at byte {offset}"))
}

/// A stream that goes one way, once: what is here of it is read again and dropped.
pub struct OneWay(Option<ByteStream>);

impl OneWay {
    /// Makes a source of a stream that stands at its beginning.
    pub fn new(stream: ByteStream) -> Self {
        Self(Some(stream))
    }
}

#[async_trait]
impl Source for OneWay {
    async fn open(&mut self, _: u64) -> Result<Body> {
        let stream = self.0.take().ok_or_else(|| Error::failed_precondition("a stream can be read only once"))?;
        Ok(Body { offset: 0, size: None, stream })
    }
}
