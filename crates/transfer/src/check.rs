//! Whether an image is here: its content, and its layers as snapshots. Nothing is read but documents, and the first byte of the
//! rest; `fsck` looks at all of them.

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_core::content::{DROPPED_LABEL, Store};
use windlass_core::image::{self, Image};
use windlass_core::platform::Selection;
use windlass_core::snapshot::{Name, Snapshotter, State};
use windlass_core::{Descriptor, Digest, Error, Kind, Platform, Result, Services};

use crate::inventory::{Inventory, Part};

/// How much of an image is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything is.
    Complete,
    /// Layers are missing that were not kept on purpose, and nothing else: they are here as snapshots.
    Dropped,
    /// Something is missing.
    Incomplete,
    /// What it consists of is not known, because a document is missing, or there is none for the platform.
    Unavailable,
}

/// What was found out about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The name.
    pub name: image::Name,
    /// What it points at.
    pub target: Descriptor,
    /// How much is here.
    pub status: Status,
    /// How many blobs are here.
    pub present: u64,
    /// How many there should be.
    pub required: u64,
    /// How many bytes are here.
    pub present_bytes: u64,
    /// How many there should be.
    pub required_bytes: u64,
    /// The blobs that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Descriptor>,
    /// Whether the layers are snapshots.
    pub unpacked: bool,
}

/// Checks an image, for the platforms that are wanted.
///
/// # Errors
/// `NotFound` without the snapshotter; those of the stores.
pub async fn check(
    services: &Services,
    image: &Image,
    platforms: &Selection,
    snapshotter: Option<&str>,
) -> Result<Checked> {
    let (_, snapshotter) = services.snapshotter(snapshotter)?;
    let inventory = Inventory::of(&*services.content, &image.target).await?;
    let (parts, known) = wanted(&inventory, &image.target, platforms);
    let mut required: BTreeMap<Digest, &Descriptor> = BTreeMap::new();
    let indexes = inventory.indexes.iter().map(|(index, _)| index);
    for blob in indexes.chain(parts.iter().flat_map(|part| part.blobs())) {
        required.insert(blob.digest.clone(), blob);
    }
    let mut checked = Checked {
        name: image.name.clone(),
        target: image.target.clone(),
        status: Status::Complete,
        present: 0,
        required: required.len() as u64,
        present_bytes: 0,
        required_bytes: required.values().map(|blob| blob.size).sum(),
        missing: Vec::new(),
        unpacked: known && unpacked(&**snapshotter, &parts).await?,
    };
    for blob in required.into_values() {
        match size_of(&*services.content, blob).await? {
            Some(size) => {
                checked.present += 1;
                checked.present_bytes += size;
            }
            None => checked.missing.push(blob.clone()),
        }
    }
    checked.status = match checked.missing.as_slice() {
        _ if !known => Status::Unavailable,
        [] => Status::Complete,
        missing if are_dropped(services, &parts, missing).await? => Status::Dropped,
        _ => Status::Incomplete,
    };
    Ok(checked)
}

/// Returns the size of a blob that is here; `None` when it is not. Its first byte is read: a store may have a record of what it
/// lost.
async fn size_of(content: &dyn Store, blob: &Descriptor) -> Result<Option<u64>> {
    let read = async {
        let reader = content.reader(blob).await?;
        reader.read_at(0, 1).await?;
        Ok::<u64, Error>(reader.size())
    };
    match read.await {
        Ok(size) => Ok(Some(size)),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::DataLoss) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the manifests that are wanted, and whether all that they consist of is known.
fn wanted<'a>(inventory: &'a Inventory, target: &Descriptor, platforms: &Selection) -> (Vec<&'a Part>, bool) {
    let of: Vec<Option<Platform>> = inventory.manifests.iter().map(|part| part.platform.clone()).collect();
    let alone = target.media_type.role() != windlass_core::media_type::Role::Index;
    let chosen: Result<Vec<usize>, Error> = if alone { Ok((0..of.len()).collect()) } else { platforms.select(&of) };
    let chosen = chosen.unwrap_or_default();
    let parts: Vec<&Part> = chosen.iter().filter_map(|at| inventory.manifests.get(*at)).collect();
    let known = !parts.is_empty()
        && parts.iter().all(|part| part.manifest.is_some())
        && inventory.indexes.iter().all(|(_, here)| *here);
    (parts, known)
}

async fn unpacked(snapshotter: &dyn Snapshotter, parts: &[&Part]) -> Result<bool> {
    for part in parts {
        let layers = part.manifest.as_ref().map_or(0, |manifest| manifest.layers.len());
        let Some(top) = part.chain.last() else {
            if layers == 0 {
                continue;
            }
            return Ok(false);
        };
        match snapshotter.stat(Name::from(top).as_key()).await {
            Ok(info) if info.state == State::Committed => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is(Kind::NotFound) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Tells whether all that is missing was not kept on purpose.
async fn are_dropped(services: &Services, parts: &[&Part], missing: &[Descriptor]) -> Result<bool> {
    let mut dropped = Vec::new();
    for part in parts {
        match services.content.info(&part.descriptor.digest).await {
            Ok(info) => {
                let labels = info.labels.iter().filter(|(key, _)| key.starts_with(DROPPED_LABEL));
                dropped.extend(labels.map(|(_, value)| value.to_owned()));
            }
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(missing.iter().all(|blob| dropped.contains(&blob.digest.to_string())))
}
