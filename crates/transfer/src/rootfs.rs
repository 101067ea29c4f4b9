//! Root filesystems of images that are here: which snapshot an image stands for, and views of it.

use windlass_core::document::Root;
use windlass_core::media_type::Role;
use windlass_core::platform::Selection;
use windlass_core::snapshot::{self, Key, Mount};
use windlass_core::{ChainId, Descriptor, Error, Kind, Labels, Platform, Result, ResultExt, Services, image};

use crate::documents;

/// Returns the chain id of an image's layers on a platform: the name of its topmost snapshot.
///
/// # Errors
/// `NotFound` when no image fits the platform, or its manifest or config is not here; `FailedPrecondition` for an
/// artifact, which has no root filesystem.
pub async fn chain_id(services: &Services, target: &Descriptor, platform: &Platform) -> Result<ChainId> {
    let manifest = match documents::root(&*services.content, target).await? {
        Root::Manifest(manifest) => manifest,
        Root::Index(index) => {
            let images: Vec<&Descriptor> =
                index.manifests.iter().filter(|child| child.media_type.role() == Role::Manifest).collect();
            let platforms: Vec<_> = images.iter().map(|child| child.platform.clone()).collect();
            let chosen = Selection::Best(vec![platform.clone()]).select(&platforms)?;
            let child = chosen.first().and_then(|at| images.get(*at));
            let child = child.ok_or_else(|| Error::not_found(format!("{} lists no image", target.digest)))?;
            match documents::root(&*services.content, child).await? {
                Root::Manifest(manifest) => manifest,
                Root::Index(_) => {
                    return Err(Error::failed_precondition(format!("{} is an index, not a manifest", child.digest)));
                }
            }
        }
    };
    if !manifest.is_image() {
        return Err(Error::failed_precondition(format!(
            "{} is an artifact, which has no root filesystem",
            target.digest
        )));
    }
    let config = documents::config(&*services.content, &manifest.config).await?;
    let chain = ChainId::chain(&config.rootfs.diff_ids);
    chain
        .into_iter()
        .last()
        .ok_or_else(|| Error::failed_precondition(format!("image config {} lists no layers", manifest.config.digest)))
}

/// Begins a read-only snapshot of an image's root filesystem and returns its mounts.
///
/// # Errors
/// Those of [`chain_id`]; `NotFound` when there is no such image; `FailedPrecondition` when the image has not been
/// unpacked; `AlreadyExists` when the key is taken.
pub async fn view(
    services: &Services,
    name: &image::Name,
    platform: &Platform,
    snapshotter: Option<&str>,
    key: &Key,
    labels: Labels,
) -> Result<Vec<Mount>> {
    let image = services.images.get(name).await?;
    let chain_id = chain_id(services, &image.target, platform).await.context(|| format!("image {name}"))?;
    let (snapshotter_name, snapshotter) = services.snapshotter(snapshotter)?;
    match snapshotter.view(key, Some(&snapshot::Name::from(&chain_id)), labels).await {
        Err(error) if error.is(Kind::NotFound) => {
            Err(Error::failed_precondition(format!("image {name} is not unpacked in snapshotter {snapshotter_name}"))
                .hint(format!(
                    "`dist snapshots unpack {name}` unpacks what is here; `dist pull {name}` also brings what is not"
                )))
        }
        viewed => viewed,
    }
}
