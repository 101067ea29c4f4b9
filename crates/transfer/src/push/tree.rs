//! What is pushed, and in which order: plain data, made of documents.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use windlass_core::content::Source;
use windlass_core::document::{ImageConfig, Root};
use windlass_core::media_type::Role;
use windlass_core::platform::Selection;
use windlass_core::{Descriptor, Digest, Error, Kind, Platform, Result};

use super::Push;
use crate::export::is_non_distributable;

/// How deep indexes may be nested, and how many documents and blobs there may be.
const MAX_DEPTH: usize = 4;
const MAX_OBJECTS: usize = 100_000;
/// Which manifest an attestation is of, as BuildKit writes it.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// Where what is pushed is read.
#[async_trait]
pub(crate) trait Origin: Send + Sync {
    /// Reads a document whole, and verifies it; the parent is what refers to it.
    async fn document(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Bytes>;

    /// Opens content that is to be sent.
    async fn source(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Box<dyn Source>>;

    /// Returns where content came from, as annotations.
    async fn came_from(&self, descriptor: &Descriptor) -> Result<BTreeMap<String, String>>;

    /// Says that what was read of content is not it. Where that helps, it is read elsewhere from now on.
    ///
    /// # Errors
    /// The error that is given, when there is no elsewhere.
    fn is_wrong(&self, _descriptor: &Descriptor, error: Error) -> Result<()> {
        Err(error)
    }

    /// Takes note that content is where it was pushed to.
    async fn is_there(&self, descriptor: &Descriptor) -> Result<()>;
}

/// What is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// What the destination is going to mean.
    pub(crate) target: Descriptor,
    /// Blobs, the largest first.
    pub(crate) blobs: Vec<Descriptor>,
    /// Manifests and indexes: each refers only to those in the groups before it, and the last group is the target.
    pub(crate) documents: Vec<Vec<Descriptor>>,
    /// What refers to what.
    pub(crate) parents: BTreeMap<Digest, Digest>,
    /// The index that was made because some platforms are left out.
    pub(crate) made: Option<(Digest, Bytes)>,
}

impl Tree {
    /// Makes the tree of an object that is pushed without what it refers to.
    pub(crate) fn alone(target: &Descriptor) -> Self {
        let mut tree = Self::new(target.clone(), None);
        if is_document(target) {
            tree.documents = vec![vec![target.clone()]];
        } else {
            tree.blobs = vec![target.clone()];
        }
        tree
    }

    fn new(target: Descriptor, made: Option<(Digest, Bytes)>) -> Self {
        Self { target, blobs: Vec::new(), documents: Vec::new(), parents: BTreeMap::new(), made }
    }

    /// Finds out what belongs to an object.
    ///
    /// # Errors
    /// Those of the origin; `NotFound` when there is no image for a platform; `FailedPrecondition` for documents that are
    /// nested too deeply, or refer to too much.
    pub(crate) async fn of(origin: &dyn Origin, target: &Descriptor, options: &Push) -> Result<Self> {
        if !is_document(target) {
            return Ok(Self::alone(target));
        }
        let (target, made) = subset(origin, target, &options.platforms).await?;
        let mut tree = Self::new(target.clone(), made);
        // The greatest distance from the target, by which documents are in order.
        let mut depths: BTreeMap<Digest, (Descriptor, usize)> = BTreeMap::new();
        let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        let mut stack = vec![(target, 0)];
        while let Some((descriptor, depth)) = stack.pop() {
            if depth > MAX_DEPTH || depths.len() + blobs.len() + stack.len() > MAX_OBJECTS {
                return Err(Error::failed_precondition(format!("{} refers to too much", tree.target.digest))
                    .hint("an image has not nearly as many parts; look at what it is"));
            }
            if depths.get(&descriptor.digest).is_some_and(|(_, known)| *known >= depth) {
                continue;
            }
            depths.insert(descriptor.digest.clone(), (descriptor.clone(), depth));
            let root = tree.read(origin, &descriptor).await?;
            for child in root.children() {
                if options.skip_non_distributable && is_non_distributable(&child) {
                    continue;
                }
                tree.parents.entry(child.digest.clone()).or_insert_with(|| descriptor.digest.clone());
                if is_document(&child) {
                    stack.push((child, depth + 1));
                } else {
                    blobs.entry(child.digest.clone()).or_insert(child);
                }
            }
        }
        tree.blobs = blobs.into_values().collect();
        tree.blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let deepest = depths.values().map(|(_, depth)| *depth).max().unwrap_or(0);
        tree.documents = vec![Vec::new(); deepest + 1];
        for (descriptor, depth) in depths.into_values() {
            if let Some(group) = tree.documents.get_mut(deepest - depth) {
                group.push(descriptor);
            }
        }
        Ok(tree)
    }

    /// Returns what refers to an object.
    pub(crate) fn parent(&self, descriptor: &Descriptor) -> Option<&Digest> {
        self.parents.get(&descriptor.digest)
    }

    /// Returns the bytes of a document that was made here.
    pub(crate) fn made(&self, descriptor: &Descriptor) -> Option<Bytes> {
        self.made.as_ref().filter(|(digest, _)| *digest == descriptor.digest).map(|(_, bytes)| bytes.clone())
    }

    async fn read(&self, origin: &dyn Origin, descriptor: &Descriptor) -> Result<Root> {
        let bytes = match self.made(descriptor) {
            Some(bytes) => bytes,
            None => origin.document(descriptor, self.parent(descriptor)).await?,
        };
        Root::parse(descriptor, &bytes)
    }
}

fn is_document(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.role(), Role::Index | Role::Manifest | Role::Schema1)
}

/// Returns what is pushed when only some platforms are: the target itself, one manifest of it, or an index that is made.
async fn subset(
    origin: &dyn Origin,
    target: &Descriptor,
    platforms: &Selection,
) -> Result<(Descriptor, Option<(Digest, Bytes)>)> {
    if *platforms == Selection::All {
        return Ok((target.clone(), None));
    }
    let bytes = origin.document(target, None).await?;
    let Root::Index(index) = Root::parse(target, &bytes)? else {
        platforms.select(&[platform(origin, target, &bytes).await?])?;
        return Ok((target.clone(), None));
    };
    let mut candidates: Vec<Option<Platform>> = Vec::new();
    for child in &index.manifests {
        candidates.push(match &child.platform {
            None if child.media_type.role() == Role::Manifest => {
                match origin.document(child, Some(&target.digest)).await {
                    Ok(bytes) => platform(origin, child, &bytes).await?,
                    // It may be of another platform, and not be needed.
                    Err(error) if error.is(Kind::NotFound) => None,
                    Err(error) => return Err(error),
                }
            }
            platform => platform.clone(),
        });
    }
    let chosen = platforms.select(&candidates)?;
    if let [only] = chosen.as_slice()
        && let Some(manifest) = index.manifests.get(*only)
    {
        let Descriptor { media_type, digest, size, .. } = manifest.clone();
        return Ok((Descriptor::new(media_type, digest, size), None));
    }
    let digests: Vec<String> =
        chosen.iter().filter_map(|at| index.manifests.get(*at)).map(|chosen| chosen.digest.to_string()).collect();
    let attests = |child: &Descriptor| child.annotations.get(ATTESTED).is_some_and(|of| digests.contains(of));
    let kept = |at: usize| chosen.contains(&at) || index.manifests.get(at).is_some_and(attests);
    let made = with_manifests(&bytes, kept)?;
    let descriptor = Descriptor::of(target.media_type.clone(), &made);
    Ok((descriptor.clone(), Some((descriptor.digest, made))))
}

/// Returns an index without those entries that are not kept.
fn with_manifests(index: &[u8], kept: impl Fn(usize) -> bool) -> Result<Bytes> {
    let malformed = |e| Error::invalid_argument("an index is malformed").source(e);
    let mut document: Value = serde_json::from_slice(index).map_err(malformed)?;
    if let Some(manifests) = document.get_mut("manifests").and_then(Value::as_array_mut) {
        let mut at = 0;
        manifests.retain(|_| {
            at += 1;
            kept(at - 1)
        });
    }
    serde_json::to_vec(&document).map(Bytes::from).map_err(|e| Error::internal("encode JSON").source(e))
}

/// Returns the platform that the config of an image says.
async fn platform(origin: &dyn Origin, manifest: &Descriptor, bytes: &[u8]) -> Result<Option<Platform>> {
    match Root::parse(manifest, bytes)? {
        Root::Manifest(parsed) if parsed.is_image() => {
            let config = origin.document(&parsed.config, Some(&manifest.digest)).await?;
            Ok(ImageConfig::parse(&parsed.config, &config)?.platform())
        }
        _ => Ok(None),
    }
}
