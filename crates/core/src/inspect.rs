//! What an image consists of, and what of it is here.
//!
//! The one walk over an image's documents: a list of images sums it up, an inspection prints it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::content::{DROPPED_LABEL, ProviderExt, Store};
use crate::document::{ImageConfig, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Root};
use crate::filter::Filter;
use crate::media_type::Role;
use crate::{ChainId, Descriptor, DiffId, Digest, Kind, Labels, Listing, Platform, Result, image};

/// How many images are looked at at once: over a wire, that many questions are on their way.
const AT_ONCE: usize = 32;
/// How many targets of one list are remembered; names that mean the same are summed up once.
const REMEMBERED: usize = 16 << 10;

/// A blob of an image, and what it refers to.
#[derive(Debug, Serialize)]
pub struct Node {
    /// The blob.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// Whether the blob is in the content store.
    pub present: bool,
    /// Whether it is a layer whose blob was not kept on purpose.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    /// Why nothing below is known, of a document that is here and cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What a manifest's config says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// What the document refers to; left out where the same blob stands in the tree before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
}

/// What the config of a runnable image says.
#[derive(Debug, Serialize)]
pub struct Image {
    /// What it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// When it was made, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The layers, bottom first.
    pub layers: Vec<Layer>,
    /// What a runtime reads: entrypoint, command, environment and the rest, as written.
    pub config: serde_json::Value,
}

/// A layer as the config names it.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// The digest of it and those below it.
    pub chain_id: ChainId,
    /// The snapshotters in which it is unpacked.
    pub snapshotters: Vec<String>,
}

/// A recorded image, and what it comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summarized {
    /// The record.
    #[serde(flatten)]
    pub image: image::Image,
    /// What it comes to.
    #[serde(flatten)]
    pub summary: Summary,
}

/// Lists images with what they come to, for a host that can do so without sending their documents.
pub trait Summaries: Send + Sync {
    /// Lists the images that any of the filters matches, in the order of their names; all when there are none.
    fn list(&self, filters: &[Filter]) -> Listing<Summarized>;
}

/// Sums up images by reading their documents, several at once, in order.
pub fn summarize(images: Listing<image::Image>, content: Arc<dyn Store>) -> Listing<Summarized> {
    let known = Arc::new(Mutex::new(HashMap::<Digest, Summary>::new()));
    let sum_up = move |image: image::Image| {
        let (content, known) = (content.clone(), known.clone());
        async move {
            // Whatever a panic elsewhere left in the map is a summary.
            let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known().get(&image.target.digest).cloned();
            let summary = if let Some(summary) = before {
                summary
            } else {
                let summary = Node::read(&*content, &image.target).await?.summary();
                let mut known = known();
                if known.len() < REMEMBERED {
                    known.insert(image.target.digest.clone(), summary.clone());
                }
                summary
            };
            Ok(Summarized { image, summary })
        }
    };
    images.map_ok(sum_up).try_buffered(AT_ONCE).boxed()
}

/// An image in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The bytes of the image for the platforms that are here, as its documents say.
    pub size: u64,
    /// The bytes of it that are in the content store.
    pub stored: u64,
    /// The platforms that are here: those whose manifest is.
    pub platforms: Vec<Platform>,
}

impl Node {
    /// Reads the tree below a target.
    ///
    /// # Errors
    /// Those of the store. A document that is missing or damaged is no error: the node says so.
    pub async fn read(content: &dyn Store, target: &Descriptor) -> Result<Self> {
        let mut seen = HashSet::new();
        read(content, target.clone(), &mut seen).await
    }

    /// Sums the tree up.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.add_to(&mut summary, &mut HashSet::new());
        summary
    }

    fn add_to<'a>(&'a self, summary: &mut Summary, seen: &mut HashSet<&'a Digest>) {
        let role = self.descriptor.media_type.role();
        if matches!(role, Role::Index | Role::Manifest) && !self.present {
            return;
        }
        if seen.insert(&self.descriptor.digest) {
            summary.size += self.descriptor.size;
            summary.stored += if self.present { self.descriptor.size } else { 0 };
        }
        if let (Role::Manifest, Some(platform)) = (role, self.platform())
            && !summary.platforms.contains(platform)
        {
            summary.platforms.push(platform.clone());
        }
        for child in &self.children {
            child.add_to(summary, seen);
        }
    }

    /// Returns what a manifest is for; an attestation, which is for nothing, says `unknown`.
    pub fn platform(&self) -> Option<&Platform> {
        let of_config = self.image.as_ref().and_then(|image| image.platform.as_ref());
        of_config.or(self.descriptor.platform.as_ref()).filter(|platform| platform.os != "unknown")
    }

    /// Calls `each` on every manifest that has an image config.
    pub fn images_mut<'a>(&'a mut self, each: &mut dyn FnMut(&'a mut Image)) {
        if let Some(image) = &mut self.image {
            each(image);
        }
        for child in &mut self.children {
            child.images_mut(each);
        }
    }
}

/// Each blob is descended into once: what hostile indexes list again and again is read once.
fn read<'a>(
    content: &'a dyn Store,
    descriptor: Descriptor,
    seen: &'a mut HashSet<Digest>,
) -> BoxFuture<'a, Result<Node>> {
    Box::pin(async move {
        let labels = match content.info(&descriptor.digest).await {
            Ok(info) => Some(info.labels),
            Err(error) if error.is(Kind::NotFound) => None,
            Err(error) => return Err(error),
        };
        let present = labels.is_some();
        let mut node = Node { descriptor, present, dropped: false, problem: None, image: None, children: Vec::new() };
        let document = matches!(node.descriptor.media_type.role(), Role::Index | Role::Manifest);
        if !present || !document || !seen.insert(node.descriptor.digest.clone()) {
            return Ok(node);
        }
        let root = match root(content, &node.descriptor).await {
            Ok(root) => root,
            Err(error) => {
                node.problem = Some(error.to_string());
                return Ok(node);
            }
        };
        let children = match root {
            Root::Index(index) => index.manifests,
            Root::Manifest(manifest) => {
                if manifest.is_image() {
                    match image(content, &manifest.config).await {
                        Ok(image) => node.image = image,
                        Err(error) => node.problem = Some(error.to_string()),
                    }
                }
                std::iter::once(manifest.config).chain(manifest.layers).collect()
            }
        };
        for child in children {
            let mut child = read(content, child, seen).await?;
            child.dropped = !child.present && labels.as_ref().is_some_and(|labels| is_dropped(labels, &child));
            node.children.push(child);
        }
        Ok(node)
    })
}

/// Tells whether the labels of a manifest say that a layer was not kept.
fn is_dropped(labels: &Labels, layer: &Node) -> bool {
    let digest = layer.descriptor.digest.to_string();
    labels.iter().any(|(key, value)| key.starts_with(DROPPED_LABEL) && value == digest)
}

async fn root(content: &dyn Store, descriptor: &Descriptor) -> Result<Root> {
    Root::parse(descriptor, &content.read_all(descriptor, MAX_MANIFEST_SIZE).await?)
}

/// Reads an image config; `None` when it is not here.
async fn image(content: &dyn Store, descriptor: &Descriptor) -> Result<Option<Image>> {
    let bytes = match content.read_all(descriptor, MAX_CONFIG_SIZE).await {
        Ok(bytes) => bytes,
        Err(error) if error.is(Kind::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    };
    let config = ImageConfig::parse(descriptor, &bytes)?;
    let mut whole: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let chain = ChainId::chain(&config.rootfs.diff_ids);
    let platform = config.platform();
    let layer = |(diff_id, chain_id)| Layer { diff_id, chain_id, snapshotters: Vec::new() };
    Ok(Some(Image {
        platform,
        created: config.created,
        layers: config.rootfs.diff_ids.into_iter().zip(chain).map(layer).collect(),
        config: whole.get_mut("config").map(serde_json::Value::take).unwrap_or_default(),
    }))
}
