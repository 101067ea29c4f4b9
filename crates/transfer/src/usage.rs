//! What an image takes up, and how much of it other images need as well.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use serde::Serialize;
use windlass_core::image::{self, Image};
use windlass_core::snapshot::{self, Name};
use windlass_core::{ChainId, Descriptor, Digest, Kind, Result, Services};

use crate::inventory::Inventory;

/// What an image takes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The name.
    pub name: image::Name,
    /// The blobs that are here.
    pub blobs: Vec<Blob>,
    /// The snapshots that its layers became, the topmost first.
    pub snapshots: Vec<Snapshot>,
    /// What all of it takes up.
    pub total: Sizes,
    /// What of it another image needs as well.
    pub shared: Sizes,
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blob {
    /// The blob.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// Whether another image needs it as well.
    pub shared: bool,
}

/// A snapshot of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The name.
    pub key: Name,
    /// What it takes up.
    #[serde(flatten)]
    pub usage: snapshot::Usage,
    /// Whether another image needs it as well.
    pub shared: bool,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Those of blobs.
    pub content: u64,
    /// Those of snapshots.
    pub snapshots: u64,
}

/// Measures an image, whatever of it is here. What others need is found out by reading the documents of all images.
///
/// # Errors
/// `NotFound` without the snapshotter; those of the stores.
pub async fn usage(services: &Services, image: &Image, snapshotter: Option<&str>) -> Result<Usage> {
    let (_, snapshotter) = services.snapshotter(snapshotter)?;
    let others = others(services, image).await?;
    let inventory = Inventory::of(&*services.content, &image.target).await?;
    let mut usage = Usage {
        name: image.name.clone(),
        blobs: Vec::new(),
        snapshots: Vec::new(),
        total: Sizes::default(),
        shared: Sizes::default(),
    };
    for descriptor in inventory.blobs().into_values() {
        match services.content.info(&descriptor.digest).await {
            Ok(info) => {
                let shared = others.blobs.contains(&descriptor.digest);
                usage.total.content += info.size;
                usage.shared.content += if shared { info.size } else { 0 };
                usage.blobs.push(Blob { descriptor, shared });
            }
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let mut seen: BTreeSet<&ChainId> = BTreeSet::new();
    for chain_id in inventory.manifests.iter().flat_map(|part| part.chain.iter().rev()) {
        let key = Name::from(chain_id);
        if !seen.insert(chain_id) {
            continue;
        }
        match snapshotter.usage(key.as_key()).await {
            Ok(measured) => {
                let shared = others.chains.contains(chain_id);
                usage.total.snapshots += measured.bytes;
                usage.shared.snapshots += if shared { measured.bytes } else { 0 };
                usage.snapshots.push(Snapshot { key, usage: measured, shared });
            }
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(usage)
}

/// What other images need.
#[derive(Default)]
struct Others {
    blobs: BTreeSet<Digest>,
    chains: BTreeSet<ChainId>,
}

async fn others(services: &Services, image: &Image) -> Result<Others> {
    let mut others = Others::default();
    let mut images = services.images.list(&[]);
    while let Some(other) = images.try_next().await? {
        if other.name == image.name {
            continue;
        }
        match Inventory::of(&*services.content, &other.target).await {
            Ok(inventory) => {
                others.blobs.extend(inventory.blobs().into_keys());
                others.chains.extend(inventory.manifests.into_iter().flat_map(|part| part.chain));
            }
            Err(error) => tracing::warn!(%error, image = %other.name, "what this image shares is not known"),
        }
    }
    Ok(others)
}
