//! Plans: what a pull is going to do, as plain data that can be printed and compared.
//!
//! Making one reads small blobs only (index, manifests, configs) and decides nothing that depends on the large ones.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use windlass_core::document::{ImageConfig, Manifest, Root};
use windlass_core::lease::{Resource, ResourceKind};
use windlass_core::media_type::Role;
use windlass_core::platform::Selection;
use windlass_core::{ChainId, Descriptor, DiffId, Digest, Error, MediaType, Platform, Result, image, snapshot};

use crate::fetch::Fetch;
use crate::room::Room;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

/// What a pull is going to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The name that will be recorded.
    pub name: image::Name,
    /// What the name will point at.
    pub target: Descriptor,
    /// The images that were selected.
    pub images: Vec<ImagePlan>,
    /// Every blob beside the manifests and configs, once each, in the order in which they are fetched.
    pub blobs: Vec<BlobPlan>,
    /// What is attached to the target, to the images and to that, as far as it is wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<AttachedPlan>,
    /// The room that what is missing needs, once that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
}

/// One image of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImagePlan {
    /// The manifest.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
    /// What the image runs on, if it says.
    pub platform: Option<Platform>,
    /// The type of an artifact, which has no root filesystem; none for an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The layers, bottom first; none for an artifact, or where the config does not list them.
    pub layers: Vec<LayerPlan>,
    /// Why the layers cannot be unpacked: the config does not list as many. Their blobs are blobs all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerPlan {
    /// The blob.
    pub descriptor: Descriptor,
    /// The digest that its uncompressed tar must have.
    pub diff_id: DiffId,
    /// The name of the snapshot that it becomes.
    pub chain_id: ChainId,
    /// The snapshot that it stands on.
    pub parent: Option<ChainId>,
}

/// An artifact that is attached to something of a plan. Its blobs are among those of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachedPlan {
    /// The manifest that it is attached to.
    pub subject: Digest,
    /// Its own manifest.
    pub manifest: Descriptor,
}

/// One blob of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlobPlan {
    /// The blob.
    pub descriptor: Descriptor,
    /// Whether it is here already.
    pub present: bool,
}

impl Plan {
    /// Returns how many bytes are still to be downloaded.
    pub fn missing_bytes(&self) -> u64 {
        self.blobs.iter().filter(|blob| !blob.present).map(|blob| blob.descriptor.size).sum()
    }

    /// Returns the layers of all images, each stack once.
    pub fn layers(&self) -> Vec<&LayerPlan> {
        let all = self.images.iter().flat_map(|image| &image.layers);
        let mut unique: BTreeMap<&ChainId, usize> = BTreeMap::new();
        let mut layers = Vec::new();
        for layer in all {
            unique.entry(&layer.chain_id).or_insert_with(|| {
                layers.push(layer);
                layers.len()
            });
        }
        layers
    }

    /// Checks that every layer is one that can be unpacked.
    ///
    /// # Errors
    /// `Unimplemented` naming the first that is not; `FailedPrecondition` naming a config that does not list the layers.
    pub fn check_unpackable(&self) -> Result<()> {
        if let Some(damage) = self.images.iter().find_map(|image| image.damage.as_deref()) {
            return Err(damaged(damage.to_owned()));
        }
        let layers = self.images.iter().flat_map(|image| &image.layers);
        match layers.map(|layer| &layer.descriptor).find(|layer| !matches!(layer.media_type.role(), Role::Layer(_))) {
            None => Ok(()),
            Some(layer) => Err(Error::unimplemented(format!(
                "layer {} has the unknown media type {}, which cannot be unpacked",
                layer.digest, layer.media_type
            ))
            .hint("`dist fetch` keeps the image's content without unpacking it")),
        }
    }

    /// Tells whether a blob is a layer of an image, which can be unpacked: an artifact may have blobs that look the same.
    pub(crate) fn is_layer(&self, digest: &Digest) -> bool {
        self.images.iter().flat_map(|image| &image.layers).any(|layer| layer.descriptor.digest == *digest)
    }

    /// Tells whether a blob is a config that was read to make the plan: it has been counted, and is held.
    pub(crate) fn has_read(&self, digest: &Digest) -> bool {
        // An artifact's is a blob like others.
        self.images.iter().any(|image| image.config.digest == *digest && image.artifact_type.is_none())
    }

    /// Returns everything that the lease of a pull comes to hold beside documents: blobs, the ingests that bring them, and
    /// snapshots of the snapshotter that unpacks.
    pub(crate) fn resources(&self, snapshotter: Option<&str>) -> BTreeSet<Resource> {
        let resource = |kind: ResourceKind, id: String| Resource { kind, id };
        let blobs = self.blobs.iter().map(|blob| &blob.descriptor).flat_map(|blob| {
            let ingest = resource(ResourceKind::Ingest, blob.ingest_ref().to_string());
            [resource(ResourceKind::Content, blob.digest.to_string()), ingest]
        });
        let snapshots = snapshotter.into_iter().flat_map(|snapshotter| {
            let kind = ResourceKind::Snapshot(snapshotter.to_owned());
            let name = |layer: &LayerPlan| snapshot::Name::from(&layer.chain_id).to_string();
            self.layers().into_iter().map(move |layer| resource(kind.clone(), name(layer)))
        });
        blobs.chain(snapshots).collect()
    }

    /// Fetches the small blobs of an image and decides what a pull of the selected platforms has to do.
    pub(crate) async fn make(
        fetch: &Fetch,
        name: &image::Name,
        target: &Descriptor,
        platforms: &Selection,
        absent: Absent,
    ) -> Result<Self> {
        let candidates = candidates(fetch, target, absent).await?;
        let of: Vec<Option<Platform>> = candidates.iter().map(|candidate| candidate.platform.clone()).collect();
        let chosen = choose(target, &of, platforms)?;
        let mut images = Vec::new();
        let mut blobs: Vec<BlobPlan> = Vec::new();
        for (at, candidate) in candidates.into_iter().enumerate() {
            if !chosen.contains(&at) {
                continue;
            }
            let (manifest, config) = match candidate.read {
                Some(read) => read,
                None => read(fetch, &candidate.manifest).await?,
            };
            for descriptor in blobs_of(&manifest) {
                if !blobs.iter().any(|blob| blob.descriptor.digest == descriptor.digest) {
                    let present = fetch.has(&descriptor.digest).await?;
                    blobs.push(BlobPlan { descriptor: descriptor.clone(), present });
                }
            }
            let platform = config.as_ref().and_then(ImageConfig::platform).or(candidate.platform);
            let (layers, damage) = match config.as_ref().map(|config| pairs(&manifest, config)) {
                Some(Ok(layers)) => (layers, None),
                Some(Err(damage)) => (Vec::new(), Some(damage)),
                None => (Vec::new(), None),
            };
            let artifact_type = config.is_none().then(|| artifact_type(&manifest));
            let (manifest, config) = (candidate.manifest, manifest.config.clone());
            images.push(ImagePlan { manifest, config, platform, artifact_type, layers, damage });
        }
        Ok(Self { name: name.clone(), target: target.clone(), images, blobs, attached: Vec::new(), room: None })
    }
}

/// Returns which of the manifests below a target are wanted, by their platforms.
///
/// # Errors
/// `NotFound` when none is for a platform.
pub(crate) fn choose(target: &Descriptor, of: &[Option<Platform>], platforms: &Selection) -> Result<Vec<usize>> {
    match (target.media_type.role(), of) {
        (Role::Index, _) => platforms.select(of),
        // A manifest that does not say what it is for is taken at its word by whoever names it.
        (_, [None]) => Ok(vec![0]),
        _ => platforms.select(of),
    }
}

/// What becomes of manifests of an index that are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// They are fetched.
    Fetch,
    /// They are left out: an archive need not have all of an index.
    LeaveOut,
}

/// A manifest that could be selected.
struct Candidate {
    manifest: Descriptor,
    platform: Option<Platform>,
    /// What was read to find out the platform.
    read: Option<(Manifest, Option<ImageConfig>)>,
}

/// Lists the manifests below a target, those of nested indexes included.
async fn candidates(fetch: &Fetch, target: &Descriptor, absent: Absent) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    let mut stack = vec![(target.clone(), 0)];
    while let Some((descriptor, depth)) = stack.pop() {
        if absent == Absent::LeaveOut && depth > 0 && !fetch.has(&descriptor.digest).await? {
            continue;
        }
        if descriptor.media_type.role() != Role::Index && descriptor.platform.is_some() {
            let platform = descriptor.platform.clone();
            found.push(Candidate { manifest: descriptor, platform, read: None });
            continue;
        }
        if depth > MAX_DEPTH {
            return Err(Error::failed_precondition(format!("{} nests indexes too deeply", target.digest)));
        }
        match fetch.root(&descriptor).await? {
            Root::Index(index) => stack.extend(index.manifests.into_iter().rev().map(|child| (child, depth + 1))),
            Root::Manifest(manifest) => {
                let config = image_config(fetch, &manifest).await?;
                let platform = config.as_ref().and_then(ImageConfig::platform);
                found.push(Candidate { manifest: descriptor, platform, read: Some((manifest, config)) });
            }
        }
    }
    Ok(found)
}

async fn read(fetch: &Fetch, descriptor: &Descriptor) -> Result<(Manifest, Option<ImageConfig>)> {
    match fetch.root(descriptor).await? {
        Root::Manifest(manifest) => {
            let config = image_config(fetch, &manifest).await?;
            Ok((manifest, config))
        }
        Root::Index(_) => Err(Error::failed_precondition(format!("{} is an index, not a manifest", descriptor.digest))),
    }
}

/// Returns the config of an image; an artifact has none, and neither has one whose config is a config in name only: an
/// attestation, or a signature of cosign, has blobs where an image has layers.
async fn image_config(fetch: &Fetch, manifest: &Manifest) -> Result<Option<ImageConfig>> {
    if is_artifact(manifest) {
        return Ok(None);
    }
    fetch.config(&manifest.config).await.map(Some)
}

/// Tells whether a manifest has no root filesystem.
pub(crate) fn is_artifact(manifest: &Manifest) -> bool {
    let attests = !manifest.layers.is_empty() && manifest.layers.iter().all(|layer| is_no_layer(&layer.media_type));
    !manifest.is_image() || attests
}

/// Tells whether a blob is none that could ever be unpacked. One of a layer's family that is not known here, such as an
/// encrypted one, is a layer all the same.
fn is_no_layer(media_type: &MediaType) -> bool {
    const FAMILIES: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    media_type.role() == Role::Opaque && !FAMILIES.iter().any(|family| media_type.as_str().starts_with(family))
}

/// Returns what an artifact says that it is: by its type, by that of its config, or by that of its first blob.
pub(crate) fn artifact_type(manifest: &Manifest) -> String {
    let blob = manifest.layers.first().filter(|_| manifest.is_image()).unwrap_or(&manifest.config);
    manifest.artifact_type.clone().unwrap_or_else(|| blob.media_type.to_string())
}

/// Returns what is to be fetched of a manifest beside the manifest: an image's config has been read already, an
/// artifact's has not.
fn blobs_of(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    std::iter::once(&manifest.config).chain(&manifest.layers)
}

/// Pairs layers and diff ids.
///
/// # Errors
/// `FailedPrecondition` when there are not as many of both.
pub(crate) fn layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<LayerPlan>> {
    pairs(manifest, config).map_err(damaged)
}

fn damaged(damage: String) -> Error {
    Error::failed_precondition(damage).hint("the image was pushed damaged; its publisher has to push it again")
}

fn pairs(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<LayerPlan>, String> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(format!(
            "image config {} lists {} diff ids for {} layers",
            manifest.config.digest,
            diff_ids.len(),
            manifest.layers.len()
        ));
    }
    let mut parent = None;
    let chain = ChainId::chain(diff_ids);
    let layer = |((descriptor, diff_id), chain_id): ((&Descriptor, &DiffId), ChainId)| LayerPlan {
        descriptor: descriptor.clone(),
        diff_id: diff_id.clone(),
        parent: parent.replace(chain_id.clone()),
        chain_id,
    };
    Ok(manifest.layers.iter().zip(diff_ids).zip(chain).map(layer).collect())
}
