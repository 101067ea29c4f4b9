//! Content into an OCI layout directory by descriptor, which is made when it is not there.
//!
//! The order, each on the disk before the next begins: the bytes of a blob, its name, the entry in `index.json`. A crash in
//! between leaves a file whose name begins with [`UNFINISHED`], or a blob that nothing refers to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use windlass_core::content::{Commit, Info, Status, Writer};
use windlass_core::digest::Hasher;
use windlass_core::document::MAX_MANIFEST_SIZE;
use windlass_core::reference::Object;
use windlass_core::remote::{Push, Pusher};
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, MediaType, Reference, Result};

use super::directory::{Directory, NewFile, blocking};
use super::{REF_NAME, VERSION, blob_path};

/// How the names of files begin that are being written.
const UNFINISHED: &str = ".dist-";

/// Pushes into a layout.
pub(crate) struct LayoutPusher(Arc<Target>);

struct Target {
    directory: Directory,
    /// What the name says beside the directory.
    object: Option<Object>,
    written: AtomicU64,
}

impl LayoutPusher {
    /// Opens a layout, or makes an empty one.
    ///
    /// # Errors
    /// `FailedPrecondition` for a directory that is something else.
    pub(crate) async fn open(path: &str, reference: &Reference) -> Result<Self> {
        let (path, object) = (path.to_owned(), reference.object().cloned());
        let target = blocking(move || {
            let directory = Directory::make(&path)?;
            match super::Layout::open(&path) {
                Err(error) if error.is(Kind::NotFound) && directory.names(".")?.is_empty() => {}
                Err(error) if error.is(Kind::NotFound) => {
                    return Err(Error::failed_precondition(format!("{path} is neither empty nor an OCI layout"))
                        .hint("name another directory; a new one is made"));
                }
                opened => drop(opened?),
            }
            let target = Target { directory, object, written: AtomicU64::new(0) };
            target.begin().map(|()| target)
        });
        Ok(Self(Arc::new(target.await?)))
    }
}

#[async_trait]
impl Pusher for LayoutPusher {
    async fn push(&self, descriptor: &Descriptor) -> Result<Push> {
        let (target, wanted) = (self.0.clone(), descriptor.clone());
        let file = blocking(move || {
            if target.has(&wanted)? && !target.is_named(&wanted) {
                return Ok(None);
            }
            target.new_file().map(Some)
        });
        let Some(file) = file.await? else { return Ok(Push::Exists) };
        Ok(Push::Upload(Box::new(BlobWriter {
            target: self.0.clone(),
            file: Some((file, descriptor.digest.algorithm().hasher())),
            descriptor: descriptor.clone(),
            offset: 0,
            started_at: SystemTime::now(),
        })))
    }
}

/// What a layout is written with. Its methods block.
impl Target {
    /// Writes what every layout has, as far as it is not there.
    fn begin(&self) -> Result<()> {
        let version = json!({ "imageLayoutVersion": VERSION }).to_string();
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [] }).to_string();
        let _others_wait = self.directory.lock()?;
        for (name, content) in [("index.json", index), ("oci-layout", version)] {
            if !self.directory.has(name)? {
                self.replace(name, content.as_bytes())?;
            }
        }
        self.directory.make_below("blobs")
    }

    fn new_file(&self) -> Result<NewFile> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        self.directory.create(&format!("{UNFINISHED}{}-{number}", std::process::id()))
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.new_file()?;
        file.write(content)?;
        file.commit(name)
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        match self.directory.file(&blob_path(&descriptor.digest)) {
            Ok(file) => Ok(file.size() == descriptor.size),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells whether the name means this manifest, so that it belongs into the index.
    fn is_named(&self, descriptor: &Descriptor) -> bool {
        let digest = self.object.as_ref().and_then(Object::digest);
        descriptor.media_type.is_manifest_or_index() && digest.is_none_or(|digest| *digest == descriptor.digest)
    }

    /// Gives a finished file the name of its digest.
    fn commit(&self, file: NewFile, descriptor: &Descriptor) -> Result<()> {
        self.directory.make_below(&format!("blobs/{}", descriptor.digest.algorithm()))?;
        file.commit(&blob_path(&descriptor.digest))?;
        if self.is_named(descriptor) { self.enter(descriptor) } else { Ok(()) }
    }

    /// Has the index name a manifest; the tag is taken from whatever had it.
    fn enter(&self, descriptor: &Descriptor) -> Result<()> {
        let _others_wait = self.directory.lock()?;
        let path = self.directory.path();
        let bytes = self.directory.read("index.json", MAX_MANIFEST_SIZE)?;
        let malformed = || Error::invalid_argument(format!("index.json in layout {path} is malformed"));
        let mut index: Value = serde_json::from_slice(&bytes).map_err(|e| malformed().source(e))?;
        let entries = index.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(malformed)?;
        let tag = self.object.as_ref().and_then(Object::tag);
        let digest = descriptor.digest.to_string();
        entries.retain(|entry| {
            let named = entry.pointer("/annotations").and_then(|it| it.get(REF_NAME)).and_then(Value::as_str);
            named != tag || (tag.is_none() && entry.get("digest").and_then(Value::as_str) != Some(&digest))
        });
        let mut entry = Descriptor::new(descriptor.media_type.clone(), descriptor.digest.clone(), descriptor.size);
        entry.platform.clone_from(&descriptor.platform);
        entry.artifact_type.clone_from(&descriptor.artifact_type);
        entry.annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
        entries.push(serde_json::to_value(entry).map_err(|e| Error::internal("a descriptor").source(e))?);
        self.replace("index.json", index.to_string().as_bytes())
    }
}

/// Writes a blob. What there is of one that is dropped is removed.
struct BlobWriter {
    target: Arc<Target>,
    descriptor: Descriptor,
    /// None while it is written to, and after a failure.
    file: Option<(NewFile, Hasher)>,
    offset: u64,
    started_at: SystemTime,
}

impl BlobWriter {
    fn take(&mut self) -> Result<(NewFile, Hasher)> {
        self.file.take().ok_or_else(|| Error::aborted(format!("writing blob {} has failed", self.descriptor.digest)))
    }
}

#[async_trait]
impl Writer for BlobWriter {
    async fn status(&mut self) -> Result<Status> {
        Ok(Status {
            ingest: self.descriptor.ingest_ref(),
            offset: self.offset,
            total: Some(self.descriptor.size),
            expected: Some(self.descriptor.digest.clone()),
            started_at: self.started_at,
            updated_at: SystemTime::now(),
        })
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        Ok(self.file.as_ref().map(|(_, hasher)| hasher.clone().finish()))
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let after = self.offset + bytes.len() as u64;
        if after > self.descriptor.size {
            return Err(Error::out_of_range(format!(
                "blob {} has more than the {} bytes declared",
                self.descriptor.digest, self.descriptor.size
            )));
        }
        let (mut file, mut hasher) = self.take()?;
        let written = blocking(move || {
            hasher.update(&bytes);
            file.write(&bytes).map(|()| (file, hasher))
        });
        self.file = Some(written.await?);
        self.offset = after;
        Ok(())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        if size == self.offset {
            return Ok(());
        }
        if size != 0 {
            return Err(Error::failed_precondition("what is written into a layout cannot be cut back, but to nothing"));
        }
        let target = self.target.clone();
        let file = blocking(move || target.new_file()).await?;
        (self.file, self.offset) = (Some((file, self.descriptor.digest.algorithm().hasher())), 0);
        Ok(())
    }

    async fn commit(mut self: Box<Self>, _: Commit) -> Result<Info> {
        let (file, hasher) = self.take()?;
        let Descriptor { digest, size, .. } = self.descriptor.clone();
        if self.offset != size {
            return Err(Error::failed_precondition(format!("blob {digest} has {} of {size} bytes", self.offset)));
        }
        let found = hasher.finish();
        if found != digest {
            return Err(Error::data_loss(format!("what was read of blob {digest} has the digest {found}"))
                .coded("source-mismatch")
                .hint("it is damaged where it was read from"));
        }
        let (target, descriptor) = (self.target.clone(), self.descriptor.clone());
        blocking(move || target.commit(file, &descriptor)).await?;
        let now = SystemTime::now();
        Ok(Info { digest, size, created_at: now, updated_at: now, labels: Labels::new() })
    }
}
