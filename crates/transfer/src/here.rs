//! Pulls of an image that is here already, as the reference names it now: found out by reading alone, so that nothing is
//! held or waited for, and nothing is written but when the image was pulled last.
//!
//! What a record refers to is not collected: the record is read first, then what it refers to, and it is there still when it
//! is changed in the end.

use std::collections::BTreeMap;

use windlass_core::content::{self, ProviderExt as _};
use windlass_core::field::FieldMask;
use windlass_core::image::Image;
use windlass_core::platform::Selection;
use windlass_core::progress::{State, Tracker};
use windlass_core::remote::Resolved;
use windlass_core::snapshot::{self, Name};
use windlass_core::{ChainId, Descriptor, Digest, Error, Host, Kind, Namespace, Reference, Result, Services, gc};

use crate::documents;
use crate::inventory::{Inventory, Part};
use crate::pull::{Content, Pull, Pulled, Unpack};
use crate::referrers::Referrers;
use crate::{dropped, interrupted, plan};

/// Returns what a pull would come to, when it would bring, unpack and record nothing.
///
/// Whatever keeps that from being found out is left to the pull, which says what is wrong.
pub(crate) async fn find(
    host: &dyn Host,
    namespace: &Namespace,
    reference: &Reference,
    resolved: &Resolved,
    options: &Pull,
    progress: &Tracker,
) -> Option<Pulled> {
    if options.metadata_only || !matches!(options.referrers, Referrers::None) {
        return None;
    }
    let found = async {
        let services = host.services(&namespace.clone().into()).await?;
        if !is_recorded(&services, resolved).await? || interrupted::any(&*services.leases, reference).await? {
            return Ok(None);
        }
        let Some(found) = whole(&services, &resolved.descriptor, options).await? else { return Ok(None) };
        // Who listens is told of every pull, as by containerd.
        let image = Image::new(resolved.name.clone(), resolved.descriptor.clone());
        match services.images.update(&image, &FieldMask::parse(["target"])?).await {
            Ok(_) => Ok(Some(found)),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let whole = found.await.unwrap_or_else(|error: Error| {
        tracing::debug!(%error, %reference, "whether the image is here was not found out by looking");
        None
    })?;
    for blob in whole.blobs.values() {
        progress.task(blob.ingest_ref().as_str()).set(State::Exists);
        progress.add_reused(blob.size);
    }
    Some(Pulled {
        name: resolved.name.clone(),
        target: resolved.descriptor.clone(),
        snapshots: whole.snapshots,
        artifacts: Vec::new(),
        totals: progress.totals(),
    })
}

/// Tells whether the name is recorded for just that.
async fn is_recorded(services: &Services, resolved: &Resolved) -> Result<bool> {
    match services.images.get(&resolved.name).await {
        Ok(Image { target, .. }) => Ok(target == resolved.descriptor),
        Err(error) if error.is(Kind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An image of which nothing is missing.
struct Whole {
    /// The blobs that are here.
    blobs: BTreeMap<Digest, Descriptor>,
    /// The topmost snapshots.
    snapshots: Vec<ChainId>,
}

impl Whole {
    fn add(&mut self, blob: &Descriptor) {
        self.blobs.insert(blob.digest.clone(), blob.clone());
    }
}

/// Returns what is here of an image, if it is all that a pull would leave here.
async fn whole(services: &Services, target: &Descriptor, options: &Pull) -> Result<Option<Whole>> {
    let inventory = Inventory::of(&*services.content, target).await?;
    let Some(parts) = selected(&inventory, target, &options.platforms) else { return Ok(None) };
    let mut whole = Whole { blobs: BTreeMap::new(), snapshots: Vec::new() };
    for (index, is_here) in &inventory.indexes {
        if !is_here || !is_unharmed(services, index).await? {
            return Ok(None);
        }
        whole.add(index);
    }
    let unpacks = options.unpack == Unpack::Yes;
    for part in parts {
        // Artifacts, and images without layers, are pulled: there is little of them.
        let (Some(manifest), Some((top, below))) = (&part.manifest, part.chain.split_last()) else { return Ok(None) };
        if plan::is_artifact(manifest) {
            return Ok(None);
        }
        if !is_unharmed(services, &part.descriptor).await? || !is_unharmed(services, &manifest.config).await? {
            return Ok(None);
        }
        let mut missing = false;
        for layer in &manifest.layers {
            match services.content.reader(layer).await {
                Ok(reader) if reader.size() == layer.size => whole.add(layer),
                Err(error) if error.is(Kind::NotFound) => missing = true,
                Ok(_) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        if (missing && !(unpacks && options.content == Content::Drop))
            || !dropped::is_recorded(&*services.content, &part.descriptor, &manifest.layers).await?
            || (unpacks && !is_unpacked(services, options.snapshotter.as_deref(), &manifest.config, top, below).await?)
        {
            return Ok(None);
        }
        whole.add(&part.descriptor);
        whole.add(&manifest.config);
        whole.snapshots.extend(unpacks.then(|| top.clone()));
    }
    Ok(Some(whole))
}

/// Returns the images that a pull would select; none when it would select none, or fail.
fn selected<'a>(inventory: &'a Inventory, target: &Descriptor, platforms: &Selection) -> Option<Vec<&'a Part>> {
    let platform = |part: &Part| part.descriptor.platform.clone().or_else(|| part.platform.clone());
    let of: Vec<_> = inventory.manifests.iter().map(platform).collect();
    let chosen = plan::choose(target, &of, platforms).ok()?;
    chosen.into_iter().map(|at| inventory.manifests.get(at)).collect()
}

/// Tells whether a document is still what its digest says.
async fn is_unharmed(services: &Services, descriptor: &Descriptor) -> Result<bool> {
    let bytes = services.content.read_all(descriptor, documents::limit(descriptor)).await?;
    content::changed_at_rest(&descriptor.digest, &descriptor.digest.algorithm().digest(&bytes))?;
    Ok(bytes.len() as u64 == descriptor.size)
}

/// Tells whether the layers are snapshots, with what is in them, that the image keeps.
async fn is_unpacked(
    services: &Services,
    snapshotter: Option<&str>,
    config: &Descriptor,
    top: &ChainId,
    below: &[ChainId],
) -> Result<bool> {
    let (name, snapshotter) = services.snapshotter(snapshotter)?;
    let info = services.content.info(&config.digest).await?;
    if info.labels.get(&gc::snapshot_label(name)) != Some(top.to_string().as_str()) {
        return Ok(false);
    }
    for layer in below.iter().chain([top]) {
        match snapshotter.stat(Name::from(layer).as_key()).await {
            Ok(info) if info.state == snapshot::State::Committed => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is(Kind::NotFound) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
