//! The front door: a layer out of a content store, into the directory of a snapshot.

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{Provider, ReaderAt};
use windlass_core::diff::{Applied, Applier, Whiteouts};
use windlass_core::media_type::Role;
use windlass_core::progress::{State, Task};
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, Error, Result, ResultExt as _};

use crate::Options;
use crate::pipeline::{PART, Pipeline};
use crate::sink::Destination;
use crate::writeback::Writeback;

/// Applies layers to the directories behind snapshots' mounts.
///
/// ```no_run
/// # async fn example(store: &dyn windlass_core::content::Provider, layer: &windlass_core::Descriptor,
/// #     mounts: &[windlass_core::snapshot::Mount]) -> windlass_core::Result<()> {
/// use windlass_core::diff::{Applied, Applier, Whiteouts};
/// use windlass_layer::{Differ, Options};
///
/// let differ = Differ::new(Options::default());
/// match differ.apply(store, layer, mounts, Whiteouts::AsMounted, None).await? {
///     Applied::Complete { diff_id, size } => println!("{diff_id}: {size} bytes"),
///     Applied::NeedsParent { path } => println!("{path} stands on the layers below"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Differ {
    options: Options,
    writeback: Writeback,
}

impl Differ {
    /// Makes one.
    pub fn new(options: Options) -> Self {
        Self { options, writeback: Writeback::default() }
    }
}

#[async_trait]
impl Applier for Differ {
    async fn apply(
        &self,
        content: &dyn Provider,
        layer: &Descriptor,
        mounts: &[Mount],
        whiteouts: Whiteouts,
        task: Option<&Task>,
    ) -> Result<Applied> {
        let attempt = || format!("apply layer {}", layer.digest);
        if !matches!(layer.media_type.role(), Role::Layer(_)) {
            return Err(Error::failed_precondition(format!("media type {} is not one of a layer", layer.media_type))
                .hint("tar archives can be applied, plain or compressed with gzip or zstd")
                .context(attempt()));
        }
        let destination = Destination::of(mounts, whiteouts).context(attempt)?;
        let reader = content.reader(layer).await.context(attempt)?;
        let writeback = (!self.options.lazy_writeback).then(|| self.writeback.clone());
        let options = Options { max_size: self.options.size_limit(layer.size), ..self.options.clone() };
        let pipeline = Pipeline::start(destination, &options, writeback).context(attempt)?;
        feed(pipeline, &*reader, task).await.context(attempt)
    }
}

/// Reads the layer from beginning to end, one part ahead of what the pipeline takes.
async fn feed(mut pipeline: Pipeline, reader: &dyn ReaderAt, task: Option<&Task>) -> Result<Applied> {
    let total = reader.size();
    let mut part = read(reader, 0).await?;
    let mut offset = 0;
    loop {
        if let Some(task) = task {
            task.set(State::Unpacking { offset, total });
        }
        offset += part.len() as u64;
        let (pushed, next) = futures::join!(pipeline.push(part), read(reader, offset));
        // A pipeline that takes no more has come to a result before the end.
        if !pushed || offset >= total {
            break;
        }
        part = next?;
    }
    let applied = pipeline.finish().await?;
    if let Some(task) = task {
        task.set(State::Unpacking { offset: total, total });
    }
    Ok(applied)
}

async fn read(reader: &dyn ReaderAt, offset: u64) -> Result<Bytes> {
    let total = reader.size();
    if offset >= total {
        return Ok(Bytes::new());
    }
    let part = reader.read_at(offset, PART).await?;
    if part.is_empty() {
        return Err(Error::data_loss(format!("the blob ends at {offset} of its {total} bytes")));
    }
    Ok(part)
}
