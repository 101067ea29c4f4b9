//! A comparer that holds a whole layer in memory, for tests of what calls one.
//!
//! It sees what the [`Applier`](super::Applier) makes: files, directories and symbolic links, and deletions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::content::{self, Commit, Expected};
use windlass_core::diff::{self, CompareOptions, UNCOMPRESSED_LABEL};
use windlass_core::error::IoResultExt as _;
use windlass_core::field::FieldMask;
use windlass_core::media_type::Role;
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, Error, Kind, Result};

use crate::image::Layer;
use crate::mounted::Mounted;

/// A comparer that writes into a content store.
pub struct Comparer {
    content: Arc<dyn content::Store>,
}

impl Comparer {
    /// Makes one.
    pub fn new(content: Arc<dyn content::Store>) -> Self {
        Self { content }
    }
}

#[async_trait]
impl diff::Comparer for Comparer {
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor> {
        let Role::Layer(compression) = options.media_type.role() else {
            return Err(Error::unimplemented(format!("a comparison makes no {}", options.media_type)));
        };
        let [lower, upper] = [Seen::of(lower)?, Seen::of(upper)?];
        let encoded = layer(&lower, &upper)?.encode(compression);
        let descriptor = Descriptor::of(options.media_type, &encoded.bytes);
        let labels = options.labels.with(UNCOMPRESSED_LABEL, encoded.diff_id.to_string());
        let ingest = options.ingest.unwrap_or_else(|| descriptor.ingest_ref());
        let mut writer = self.content.writer(&ingest, Expected::default()).await?;
        writer.truncate(0).await?;
        writer.write(encoded.bytes).await?;
        match writer.commit(Commit { labels: labels.clone(), ..Commit::default() }).await {
            Err(error) if error.is(Kind::AlreadyExists) => {
                let mut info = self.content.info(&descriptor.digest).await?;
                info.labels.extend(&labels);
                self.content.update(&info, &FieldMask::parse(["labels"])?).await?;
            }
            committed => drop(committed?),
        }
        Ok(descriptor)
    }
}

/// What mounts show.
struct Seen(Option<Mounted>);

/// What is at a path.
#[derive(PartialEq)]
enum What {
    Directory,
    File(Vec<u8>),
    Link(String),
}

impl Seen {
    fn of(mounts: &[Mount]) -> Result<Self> {
        if mounts.is_empty() { Ok(Self(None)) } else { Mounted::of(mounts).map(Some).map(Self) }
    }

    fn names(&self, directory: &str, names: &mut BTreeSet<String>) -> Result<()> {
        for layer in self.0.iter().flat_map(|mounted| &mounted.layers) {
            let Ok(entries) = std::fs::read_dir(layer.join(directory)) else { continue };
            for entry in entries {
                let entry = entry.attempt(|| format!("list {directory}"))?;
                names.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(())
    }

    fn find(&self, path: &str) -> Result<Option<What>> {
        let Some(place): Option<PathBuf> = self.0.as_ref().and_then(|mounted| mounted.find(path)) else {
            return Ok(None);
        };
        let attempt = || format!("read {}", place.display());
        let metadata = std::fs::symlink_metadata(&place).attempt(attempt)?;
        Ok(Some(if metadata.is_dir() {
            What::Directory
        } else if metadata.is_symlink() {
            What::Link(std::fs::read_link(&place).attempt(attempt)?.to_string_lossy().into_owned())
        } else {
            What::File(std::fs::read(&place).attempt(attempt)?)
        }))
    }
}

fn layer(lower: &Seen, upper: &Seen) -> Result<Layer> {
    let mut layer = Layer::new();
    let mut pending = vec![String::new()];
    while let Some(directory) = pending.pop() {
        let mut names = BTreeSet::new();
        lower.names(&directory, &mut names)?;
        upper.names(&directory, &mut names)?;
        for name in names.into_iter().rev() {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let (had, has) = (lower.find(&path)?, upper.find(&path)?);
            let same = had == has;
            layer = match has {
                None if had.is_some() => layer.whiteout(&path),
                None => layer,
                Some(What::Directory) => {
                    pending.push(path.clone());
                    if same { layer } else { layer.dir(&path, 0o755) }
                }
                _ if same => layer,
                Some(What::File(bytes)) => layer.file(&path, bytes),
                Some(What::Link(target)) => layer.symlink(&path, &target),
            };
        }
    }
    Ok(layer)
}
