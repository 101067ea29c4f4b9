//! What an image at a remote consists of: read, shown, and not kept.

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use windlass_core::document::{ImageConfig, Root};
use windlass_core::media_type::Role;
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::remote::{Fetcher, Resolver};
use windlass_core::{Descriptor, Error, Kind, Platform, Reference, Result, ResultExt as _, image};

use crate::fetch::read_document;
use crate::pull::resolve;

/// How deep indexes may be nested, and how many documents are read.
const MAX_DEPTH: usize = 4;
const MAX_DOCUMENTS: usize = 1000;

/// An image at a remote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspected {
    /// What it was asked for as.
    pub name: image::Name,
    /// What the name points at.
    pub tree: Node,
}

/// An object of an image, and what it refers to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// What refers to it says of it.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What it says itself, of an index or a manifest that was read: without what it refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Value>,
    /// What a config says, of one that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// The bytes of a manifest and of everything that it refers to.
    #[serde(rename = "totalSize", skip_serializing_if = "Option::is_none")]
    pub total_size: Option<u64>,
    /// What it refers to, of one that was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
}

impl Node {
    fn new(descriptor: Descriptor) -> Self {
        Self { descriptor, document: None, config: None, total_size: None, children: Vec::new() }
    }

    /// Returns what a manifest is for: as its index says, or else its config.
    pub fn platform(&self) -> Option<Platform> {
        let of_config = || {
            let config = self.children.iter().find_map(|child| child.config.as_ref())?;
            serde_json::from_value::<ImageConfig>(config.clone()).ok()?.platform()
        };
        self.descriptor.platform.clone().or_else(of_config)
    }
}

/// Finds out what an image at a remote consists of. Of an index, the manifests of the selected platforms are read; without a
/// selection, that of this machine, if there is one.
///
/// # Errors
/// Those of the resolver and the fetcher; `NotFound` when no image fits a platform that is selected; `InvalidArgument` for
/// documents that are none.
pub async fn inspect(
    resolver: &dyn Resolver,
    reference: &Reference,
    platforms: Option<&Selection>,
    progress: &Tracker,
) -> Result<Inspected> {
    let inspected = async {
        let resolved = resolve(resolver, reference, progress).await?;
        let fetcher = resolver.fetcher(&resolved.name).await?;
        let mut inspection = Inspection { fetcher: &*fetcher, platforms, documents: 0 };
        let tree = inspection.read(resolved.descriptor, 0).await?;
        Ok(Inspected { name: resolved.name, tree })
    };
    inspected.await.context(|| format!("inspect {reference}"))
}

struct Inspection<'a> {
    fetcher: &'a dyn Fetcher,
    platforms: Option<&'a Selection>,
    documents: usize,
}

impl Inspection<'_> {
    fn read(&mut self, descriptor: Descriptor, depth: usize) -> BoxFuture<'_, Result<Node>> {
        Box::pin(async move {
            let mut node = Node::new(descriptor);
            if !matches!(node.descriptor.media_type.role(), Role::Index | Role::Manifest) {
                return Ok(node);
            }
            self.documents += 1;
            if depth > MAX_DEPTH || self.documents > MAX_DOCUMENTS {
                return Err(Error::failed_precondition(format!("{} refers to too much", node.descriptor.digest))
                    .hint("--platform reads less of it"));
            }
            let bytes = read_document(self.fetcher, &node.descriptor).await?;
            node.document = Some(without_children(&bytes)?);
            match Root::parse(&node.descriptor, &bytes)? {
                Root::Index(index) => {
                    let chosen = self.chosen(&index.manifests)?;
                    for (at, child) in index.manifests.into_iter().enumerate() {
                        let read = chosen.contains(&at);
                        node.children.push(if read { self.read(child, depth + 1).await? } else { Node::new(child) });
                    }
                }
                Root::Manifest(manifest) => {
                    let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
                    let sizes = blobs.map(|blob| blob.size);
                    node.total_size = Some(sizes.fold(node.descriptor.size, u64::saturating_add));
                    let mut config = Node::new(manifest.config.clone());
                    if manifest.is_image() {
                        let bytes = read_document(self.fetcher, &manifest.config).await?;
                        ImageConfig::parse(&manifest.config, &bytes)?;
                        config.config = serde_json::from_slice(&bytes).ok();
                    }
                    node.children.push(config);
                    node.children.extend(manifest.layers.into_iter().map(Node::new));
                }
            }
            Ok(node)
        })
    }

    /// Returns which manifests of an index are read; nested indexes always are.
    fn chosen(&self, manifests: &[Descriptor]) -> Result<Vec<usize>> {
        let platforms: Vec<Option<Platform>> = manifests.iter().map(|child| child.platform.clone()).collect();
        let mut chosen = match self.platforms {
            Some(selection) => selection.select(&platforms),
            None => match Selection::default().select(&platforms) {
                Err(error) if error.is(Kind::NotFound) => Ok(Vec::new()),
                chosen => chosen,
            },
        }?;
        let nested = manifests.iter().enumerate().filter(|(_, child)| child.media_type.role() == Role::Index);
        chosen.extend(nested.map(|(at, _)| at));
        Ok(chosen)
    }
}

/// Returns what a document says beside what it refers to.
fn without_children(bytes: &[u8]) -> Result<Value> {
    let mut document: Value =
        serde_json::from_slice(bytes).map_err(|e| Error::invalid_argument("a document is malformed").source(e))?;
    if let Some(object) = document.as_object_mut() {
        for key in ["manifests", "config", "layers"] {
            object.remove(key);
        }
    }
    Ok(document)
}
