//! Making layers of differences: two trees in, a layer in a content store out.
//!
//! ```text
//!   mounts ──► sources::Stack (directories, topmost first) ──┐
//!                                                            ├──► walk: pairs of entries, in order
//!   mounts ──► sources::Stack ───────────────────────────────┘      │
//!                                      links: whose names changed ◄─┤ once
//!                                    changes: what is written down ◄┘ and once more
//!                                      │
//!                                      └──► tar::Writer ──► diff id ──► Compressor ──► parts ──► content::Writer
//! ```
//!
//! A tree is a stack of directories, as overlayfs stacks them, and is merged here: nothing has to be mounted, and where two
//! stacks end in the same directories, those are not read. So the change of one layer costs what is in that layer. Images
//! are mounted where nobody sees them, each by itself, and are directories then.
//!
//! Memory holds the names of a directory and those of files with several names, and a few buffers.

mod changes;
mod entry;
mod links;
mod output;
mod sources;
mod stack;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_core::content::{self, Commit, Expected, IngestRef};
use windlass_core::diff::{self, CompareOptions, UNCOMPRESSED_LABEL};
use windlass_core::digest::Algorithm;
use windlass_core::field::FieldMask;
use windlass_core::media_type::{Compression, Role};
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, Error, Kind, Labels, Result, ResultExt as _};

pub use sources::Mounter;

use changes::Written;
use output::PARTS_AT_MOST;

/// Makes layers of the differences between snapshots, in a content store.
///
/// Directories, overlays and EROFS images are read as they are; whatever else mounts are made of is left to a [`Mounter`].
pub struct Comparer {
    content: Arc<dyn content::Store>,
    mounter: Arc<dyn Mounter>,
}

impl Comparer {
    /// Makes one that writes into a content store.
    pub fn new(content: Arc<dyn content::Store>, mounter: Arc<dyn Mounter>) -> Self {
        Self { content, mounter }
    }
}

#[async_trait]
impl diff::Comparer for Comparer {
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor> {
        let attempt = || "compare two snapshots".to_owned();
        let Role::Layer(compression) = options.media_type.role() else {
            return Err(Error::unimplemented(format!("a comparison makes no {}", options.media_type))
                .hint("ask for a layer: application/vnd.oci.image.layer.v1.tar, +gzip or +zstd, or Docker's"));
        };
        let ingest = options.ingest.clone().map_or_else(unique, Ok)?;
        let made = self.make(&ingest, lower, upper, compression, &options).await;
        if made.is_err() {
            // Nobody can go on with half a layer.
            match self.content.abort(&ingest).await {
                Err(error) if !error.is(Kind::NotFound) && !error.is(Kind::Unavailable) => {
                    tracing::warn!(%error, %ingest, "what a comparison left behind was not discarded");
                }
                _ => {}
            }
        }
        made.context(attempt)
    }
}

impl Comparer {
    async fn make(
        &self,
        ingest: &IngestRef,
        lower: &[Mount],
        upper: &[Mount],
        compression: Compression,
        options: &CompareOptions,
    ) -> Result<Descriptor> {
        let mut writer = self.content.writer(ingest, Expected::default()).await?;
        let mut reading = sources::Reading::Layers;
        let (diff_id, mut descriptor) = loop {
            writer.truncate(0).await?;
            let (written, descriptor) =
                self.attempt(&mut *writer, (lower, upper), reading, compression, options).await?;
            match written {
                Written::Layer(diff_id) => break (diff_id, descriptor),
                // What is read as mounted has no records of overlayfs.
                Written::Redirected if reading == sources::Reading::Layers => reading = sources::Reading::AsMounted,
                Written::Redirected => return Err(Error::internal("a mounted overlay shows its records")),
            }
        };
        descriptor.media_type = options.media_type.clone();
        let labels = options.labels.clone().with(UNCOMPRESSED_LABEL, diff_id.to_string());
        let commit = Commit { expected: (&descriptor).into(), labels: labels.clone() };
        match writer.commit(commit).await {
            Ok(_) => {}
            Err(error) if error.is(Kind::AlreadyExists) => self.label(&descriptor, labels).await?,
            Err(error) => return Err(error),
        }
        Ok(descriptor)
    }

    /// Writes the layer; the descriptor is of the bytes that were written.
    async fn attempt(
        &self,
        writer: &mut dyn content::Writer,
        (lower, upper): (&[Mount], &[Mount]),
        reading: sources::Reading,
        compression: Compression,
        options: &CompareOptions,
    ) -> Result<(Written, Descriptor)> {
        let (sender, mut parts) = mpsc::channel::<Bytes>(PARTS_AT_MOST);
        let (lower, upper, mounter) = (lower.to_vec(), upper.to_vec(), Arc::clone(&self.mounter));
        let epoch = options.source_date_epoch;
        // It ends soon when nobody takes the parts.
        let writing = tokio::task::spawn_blocking(move || {
            let trees = sources::open(&lower, &upper, reading, &*mounter)?;
            changes::write(&trees, compression, epoch, sender)
        });
        let (mut hasher, mut size) = (Algorithm::Sha256.hasher(), 0);
        while let Some(part) = parts.recv().await {
            hasher.update(&part);
            size += part.len() as u64;
            writer.write(part).await?;
        }
        let written = writing.await.map_err(|error| Error::internal("a comparison panicked").source(error))??;
        Ok((written, Descriptor::new(options.media_type.clone(), hasher.finish(), size)))
    }

    /// Labels a blob that was here before.
    async fn label(&self, descriptor: &Descriptor, labels: Labels) -> Result<()> {
        let mut info = self.content.info(&descriptor.digest).await?;
        let paths: Vec<String> = labels.iter().map(|(key, _)| format!("labels.{key}")).collect();
        info.labels.extend(&labels);
        self.content.update(&info, &FieldMask::parse(paths.iter().map(String::as_str))?).await.map(drop)
    }
}

/// Returns a ref that no other comparison has.
fn unique() -> Result<IngestRef> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("compare-{}-{now}-{number}", std::process::id()).parse()
}

impl std::fmt::Debug for Comparer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comparer").finish_non_exhaustive()
    }
}
