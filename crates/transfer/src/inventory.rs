//! What an image consists of, as far as it is here.

use std::collections::BTreeMap;

use windlass_core::content::Store;
use windlass_core::document::{ImageConfig, Manifest, Root};
use windlass_core::{ChainId, Descriptor, Digest, Kind, Platform, Result};

use crate::documents;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

/// What an image consists of.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// The documents above manifests, and whether they are here.
    pub(crate) indexes: Vec<(Descriptor, bool)>,
    /// The manifests, in the order of the index.
    pub(crate) manifests: Vec<Part>,
}

/// A manifest, and what it refers to.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) descriptor: Descriptor,
    pub(crate) platform: Option<Platform>,
    /// None when it is not here.
    pub(crate) manifest: Option<Manifest>,
    /// The chain ids of its layers, bottom first; none when its config is not here, or says something else.
    pub(crate) chain: Vec<ChainId>,
}

impl Inventory {
    /// Reads what is below a target. What is not here is no error.
    ///
    /// # Errors
    /// Those of the store, and of a document that is damaged.
    pub(crate) async fn of(content: &dyn Store, target: &Descriptor) -> Result<Self> {
        let mut inventory = Self::default();
        let mut stack = vec![(target.clone(), 0)];
        while let Some((descriptor, depth)) = stack.pop() {
            let root = match documents::root(content, &descriptor).await {
                Ok(root) => Some(root),
                Err(error) if error.is(Kind::NotFound) => None,
                Err(error) => return Err(error),
            };
            match root {
                Some(Root::Index(index)) => {
                    inventory.indexes.push((descriptor, true));
                    if depth < MAX_DEPTH {
                        stack.extend(index.manifests.into_iter().rev().map(|child| (child, depth + 1)));
                    }
                }
                Some(Root::Manifest(manifest)) => {
                    inventory.manifests.push(Part::of(content, descriptor, manifest).await?);
                }
                None if descriptor.media_type.role() == windlass_core::media_type::Role::Index => {
                    inventory.indexes.push((descriptor, false));
                }
                None => {
                    let platform = descriptor.platform.clone();
                    inventory.manifests.push(Part { descriptor, platform, manifest: None, chain: Vec::new() });
                }
            }
        }
        Ok(inventory)
    }

    /// Returns everything that the image refers to and that is known, once each.
    pub(crate) fn blobs(&self) -> BTreeMap<Digest, Descriptor> {
        let documents = self.indexes.iter().map(|(index, _)| index);
        let parts = self.manifests.iter().flat_map(Part::blobs);
        documents.chain(parts).map(|blob| (blob.digest.clone(), blob.clone())).collect()
    }
}

impl Part {
    async fn of(content: &dyn Store, descriptor: Descriptor, manifest: Manifest) -> Result<Self> {
        let config = if manifest.is_image() {
            match documents::config(content, &manifest.config).await {
                Ok(config) => Some(config),
                Err(error) if error.is(Kind::NotFound) => None,
                Err(error) => return Err(error),
            }
        } else {
            None
        };
        let platform = config.as_ref().and_then(ImageConfig::platform).or_else(|| descriptor.platform.clone());
        let diff_ids = config.map(|config| config.rootfs.diff_ids).unwrap_or_default();
        let chain = if diff_ids.len() == manifest.layers.len() { ChainId::chain(&diff_ids) } else { Vec::new() };
        Ok(Self { descriptor, platform, manifest: Some(manifest), chain })
    }

    /// Returns the manifest and what it refers to.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let below = self.manifest.iter().flat_map(|manifest| std::iter::once(&manifest.config).chain(&manifest.layers));
        std::iter::once(&self.descriptor).chain(below)
    }
}
