//! A layer, compressed otherwise: from the content store and back into it, a part at a time.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_archive::compression::{Compressor, Expander, MAGIC_LEN, detect};
use windlass_archive::parts::{PART, Parts};
use windlass_core::content::{Commit, Expected, ReaderAt};
use windlass_core::diff::UNCOMPRESSED_LABEL;
use windlass_core::digest::{Algorithm, Hasher};
use windlass_core::field::FieldMask;
use windlass_core::media_type::Compression;
use windlass_core::progress::{State, Task};
use windlass_core::{Descriptor, DiffId, Digest, Error, Kind, Labels, Leased, Result, ResultExt as _};

/// How many parts may wait, on either side.
const WAITING: usize = 4;

/// Compresses a layer; `None` when it is compressed like that. What comes out of it has to have the diff id.
pub(super) async fn compress(
    leased: &Leased,
    layer: &Descriptor,
    compression: Compression,
    diff_id: Option<&DiffId>,
    task: &Task,
) -> Result<Option<Descriptor>> {
    let reader = leased.content.reader(layer).await?;
    if detect(&reader.read_at(0, MAGIC_LEN).await?) == compression {
        task.set(State::Exists);
        return Ok(None);
    }
    let made = make(leased, &*reader, layer, compression, diff_id, task).await;
    task.set(match &made {
        Ok(_) => State::Done,
        Err(error) => State::Failed { reason: error.to_string() },
    });
    made.map(Some).context(|| format!("compress layer {}", layer.digest))
}

async fn make(
    leased: &Leased,
    reader: &dyn ReaderAt,
    layer: &Descriptor,
    compression: Compression,
    diff_id: Option<&DiffId>,
    task: &Task,
) -> Result<Descriptor> {
    let ingest = format!("convert-{}-{}", leased.lease(), layer.digest).parse()?;
    let mut writer = leased.content.writer(&ingest, Expected::default()).await?;
    writer.truncate(0).await?;
    let (parts_in, parts) = mpsc::channel::<Bytes>(WAITING);
    let (compressed_in, mut compressed) = mpsc::channel::<Bytes>(WAITING);
    let work = tokio::task::spawn_blocking(move || work(parts, compression, compressed_in));
    let into = &mut writer;
    // Whoever fails first lets the others end: a channel that is closed ends both sides.
    let writing = async move {
        let (mut hasher, mut size) = (Algorithm::Sha256.hasher(), 0);
        while let Some(part) = compressed.recv().await {
            hasher.update(&part);
            size += part.len() as u64;
            into.write(part).await?;
        }
        Ok::<_, Error>(Descriptor::new(layer.media_type.clone(), hasher.finish(), size))
    };
    let (read, written) = futures::join!(feed(reader, layer, parts_in, task), writing);
    let found = work.await.map_err(|error| Error::internal("a conversion panicked").source(error))?;
    let outcome = read.and(written).and_then(|new| Ok((matches(diff_id, found?)?, new)));
    let (found, new) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            drop(writer);
            if let Err(kept) = leased.content.abort(&ingest).await {
                tracing::warn!(error = %kept, %ingest, "what there is of a layer was not discarded");
            }
            return Err(error);
        }
    };
    let labels = Labels::new().with(UNCOMPRESSED_LABEL, found.to_string());
    match writer.commit(Commit { expected: (&new).into(), labels: labels.clone() }).await {
        Err(error) if error.is(Kind::AlreadyExists) => {
            let mut info = leased.content.info(&new.digest).await?;
            info.labels.extend(&labels);
            let mask = FieldMask::parse([format!("labels.{UNCOMPRESSED_LABEL}").as_str()])?;
            leased.content.update(&info, &mask).await?;
        }
        committed => drop(committed?),
    }
    Ok(new)
}

fn matches(expected: Option<&DiffId>, found: Digest) -> Result<Digest> {
    match expected {
        Some(expected) if expected.0 != found => {
            Err(Error::data_loss(format!("it unpacks to {found}, the image config lists {expected}"))
                .hint("`dist fsck` tells whether the layer is damaged"))
        }
        _ => Ok(found),
    }
}

/// Reads a blob from its beginning to its end, as long as somebody takes it.
async fn feed(reader: &dyn ReaderAt, layer: &Descriptor, parts: mpsc::Sender<Bytes>, task: &Task) -> Result<()> {
    let (mut offset, total) = (0, reader.size());
    while offset < total {
        task.set(State::Fetching { offset, total });
        let part = reader.read_at(offset, PART).await?;
        if part.is_empty() {
            return Err(Error::data_loss(format!("blob {} ends at {offset}", layer.digest)));
        }
        offset += part.len() as u64;
        if parts.send(part).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Expands and compresses, on a thread that may block. Returns the digest of what was in between.
fn work(mut parts: mpsc::Receiver<Bytes>, compression: Compression, into: mpsc::Sender<Bytes>) -> Result<Digest> {
    let take = move |part| into.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe.into());
    let mut compressor = Compressor::new(compression, Parts::new(take))?;
    let mut hasher: Hasher = Algorithm::Sha256.hasher();
    let mut expander = Expander::default();
    let mut take = |plain: &[u8]| {
        hasher.update(plain);
        compressor.write_all(plain).map_err(stopped)
    };
    while let Some(part) = parts.blocking_recv() {
        expander.push(&part, &mut take)?;
    }
    expander.finish(&mut take)?;
    compressor.finish().and_then(Parts::finish).map_err(stopped)?;
    Ok(hasher.finish())
}

fn stopped(error: io::Error) -> Error {
    Error::canceled("nobody takes the layer any more").source(error)
}
