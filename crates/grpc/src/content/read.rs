//! `Read`: a blob, or a part of it, as a stream of messages; or in which file it is.

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::{Response, Status};
use windlass_core::content::{ReaderAt, Store};
use windlass_core::{Descriptor, Digest, Error, MediaType, Result};
use windlass_proto::containerd::services::content::v1 as wire;

use super::{CHUNK, files};
use crate::error::to_status;
use crate::wire as messages;

/// How many messages of a call are read at once: one comes from the disk while another one is sent.
const AT_ONCE: usize = 2;

/// The messages of a call. What the client does not take is not read.
pub(super) type Parts = stream::BoxStream<'static, Result<wire::ReadContentResponse, Status>>;

/// A blob, and the part of it that a call asks for.
pub(super) struct Asked {
    reader: Arc<dyn ReaderAt>,
    part: Range<u64>,
}

impl Asked {
    /// Opens it.
    ///
    /// # Errors
    /// `NotFound` when the blob is not here; `OutOfRange` when the part begins behind its end.
    pub(super) async fn open(store: &dyn Store, request: wire::ReadContentRequest) -> Result<Self> {
        let digest: Digest = request.digest.parse()?;
        let descriptor = Descriptor::new(MediaType::OCTET_STREAM, digest, 0);
        let reader: Arc<dyn ReaderAt> = store.reader(&descriptor).await?.into();
        let size = reader.size();
        // Below zero means the beginning, and the size of nothing the rest, as in containerd.
        let begin = u64::try_from(request.offset).unwrap_or_default();
        if begin > size {
            return Err(Error::out_of_range(format!(
                "blob {} has {size} bytes and cannot be read from {begin} on",
                descriptor.digest
            )));
        }
        let wanted = u64::try_from(request.size).ok().filter(|wanted| *wanted > 0).unwrap_or(u64::MAX);
        let end = begin.saturating_add(wanted).min(size);
        Ok(Self { reader, part: begin..end })
    }

    /// Returns the messages of the part.
    pub(super) fn messages(self) -> Parts {
        let Self { reader, part: Range { start, end } } = self;
        let parts = stream::iter((start..end).step_by(CHUNK)).map(move |offset| {
            let length = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            part(reader.clone(), offset, length)
        });
        parts.buffered(AT_ONCE).map_err(|error| to_status(&error)).boxed()
    }

    /// Returns an answer that says in which file the blob is, and brings nothing; none when it is in none.
    pub(super) fn offer(&self) -> Option<Response<Parts>> {
        let place = self.reader.in_file()?;
        let mut answer = Response::new(());
        let is_offered = files::offer(&mut answer, &place, self.reader.size());
        // The file is open for as long as the client has not ended the call.
        let held = async move {
            let _place = place;
            std::future::pending().await
        };
        is_offered.then(|| answer.map(|()| stream::once(held).boxed()))
    }
}

async fn part(reader: Arc<dyn ReaderAt>, offset: u64, length: usize) -> Result<wire::ReadContentResponse> {
    let data = reader.read_at(offset, length).await?;
    if data.len() != length {
        let got = data.len();
        return Err(Error::data_loss(format!("{length} bytes at {offset} of a blob were asked for, {got} came")));
    }
    Ok(wire::ReadContentResponse { offset: messages::size_number(offset), data })
}
