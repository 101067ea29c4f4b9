//! Importing: an archive of images, read once from its beginning to its end, becomes recorded images.
//!
//! ```text
//! bytes ─► expand ─► tar ─► every blob into the content store ─► what the archive says of itself ─► verify ─► unpack ─► record
//! ```
//!
//! Two kinds of archives are known: an OCI layout (image-spec, `image-layout.md`), and Docker's, with a `manifest.json`, as
//! `docker save` has written them since 1.10. What has both is read as a layout. The order of the files does not matter.
//!
//! Everything is held by a lease until the names are recorded, which is the last step: an import that fails leaves nothing.

mod arrive;
mod docker;
mod layout;
mod names;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use windlass_core::gc::Deletion;
use windlass_core::image::{Image, StoreExt as _};
use windlass_core::platform::Selection;
use windlass_core::progress::{Totals, Tracker};
use windlass_core::{
    ByteStream, ChainId, Descriptor, Digest, Error, Host, Kind, Labels, Leased, Namespace, Result, ResultExt as _,
    image, lease,
};

use crate::present::{self, Wanted};
use crate::pull::Unpack;
use crate::stop::Stop;
use crate::verify::{self, InArchive, Subject, Verifier};

pub use names::{Digests, Naming};

use arrive::Arrived;

/// The label of a running import's lease.
pub const LEASE_LABEL: &str = "windlass.dev/import";

/// The annotation with the whole name of an image, as containerd and Docker write it.
pub const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// The annotation with the tag of an image. OCI image-spec, `annotations.md`.
pub const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// What can be done about something that is no archive of images.
const ARCHIVES: &str =
    "only archives of images can be imported: an OCI layout, or what `docker save` writes since Docker 1.10";

/// What is wanted of an import.
#[derive(Debug, Clone)]
pub struct Import {
    /// What images are called.
    pub naming: Naming,
    /// The platforms, of images that are for several.
    pub platforms: Selection,
    /// Whether layers become snapshots.
    pub unpack: Unpack,
    /// The snapshotter, or the host's default one.
    pub snapshotter: Option<String>,
    /// Labels of the images.
    pub labels: Labels,
    /// Who is asked whether the images may be here; nobody when there is none.
    pub verifier: Option<Arc<dyn Verifier>>,
    /// When it is to stop. It then leaves nothing behind.
    pub stop: Stop,
}

impl Import {
    /// Wants images for this machine, unpacked, under names that the function completes.
    pub fn new(naming: Naming) -> Self {
        Self {
            naming,
            platforms: Selection::default(),
            unpack: Unpack::default(),
            snapshotter: None,
            labels: Labels::new(),
            verifier: None,
            stop: Stop::default(),
        }
    }
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The images that were recorded, by name.
    pub images: Vec<ImportedImage>,
    /// What was moved: what came out of the archive and was not here, and what was here.
    #[serde(flatten)]
    pub totals: Totals,
}

/// An image that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedImage {
    /// The name.
    pub name: image::Name,
    /// What it points at.
    pub target: Descriptor,
    /// The topmost snapshot of each image that was unpacked.
    pub snapshots: Vec<ChainId>,
}

/// What an archive has under one or several names.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    descriptor: Descriptor,
    names: Vec<image::Name>,
}

/// Imports an archive, which may be compressed with gzip or zstd.
///
/// # Errors
/// `DataLoss` for an archive that is damaged, cut off, or has blobs that are not what they are called; `FailedPrecondition`
/// for one that is no archive of images, or lacks what it refers to; `NotFound` when it names no image, or has none for a
/// platform; `InvalidArgument` for a name that is none; `PermissionDenied` when a verifier refuses an image; those of the
/// stores.
///
/// # Cancel safety
/// Dropping the call stops it. Either all names are recorded or, but for the moment in which they are, none; what was read
/// stays until its lease expires.
pub async fn import(
    host: &dyn Host,
    namespace: &Namespace,
    archive: ByteStream,
    options: &Import,
    progress: &Tracker,
) -> Result<Imported> {
    let lease = lease::Options {
        id: None,
        expiry: Some(lease::DEFAULT_EXPIRY),
        labels: Labels::new().with(LEASE_LABEL, "archive"),
    };
    let leased = Leased::acquire(host, namespace, lease).await?;
    let imported = options.stop.or(carry_out(&leased, archive, options, progress)).await;
    match imported {
        Ok(imported) => {
            leased.release(Deletion::Background).await?;
            Ok(imported)
        }
        Err(error) => {
            if let Err(unsettled) = leased.release(Deletion::Synchronous).await {
                tracing::warn!(error = %unsettled, "the lease of a failed import stays until it expires");
            }
            Err(error.context("import an archive"))
        }
    }
}

async fn carry_out(leased: &Leased, archive: ByteStream, options: &Import, progress: &Tracker) -> Result<Imported> {
    if options.unpack == Unpack::Yes {
        let (name, snapshotter) = leased.snapshotter(options.snapshotter.as_deref())?;
        snapshotter.ready().await.context(|| format!("use snapshotter {name}"))?;
    }
    let arrived = arrive::receive(leased, archive, progress).await?;
    let totals = progress.totals();
    let targets = targets(leased, &arrived, &options.naming).await?;
    verify(leased, &arrived, &targets, options).await?;
    let layers = Wanted { unpack: options.unpack, snapshotter: options.snapshotter.as_deref() };
    let mut images = Vec::new();
    let mut wanted = BTreeSet::new();
    for target in &targets {
        let name = target.names.first().ok_or_else(|| Error::internal("an image without a name is imported"))?;
        let image = (name, &target.descriptor);
        let plan = present::plan(leased, image, &options.platforms, &layers, progress).await?;
        wanted.extend(plan.images.iter().map(|image| image.manifest.digest.clone()));
        wanted.insert(target.descriptor.digest.clone());
        let snapshots = present::settle(leased, &plan, &layers, progress).await?;
        let image = |name: &image::Name| ImportedImage {
            name: name.clone(),
            target: target.descriptor.clone(),
            snapshots: snapshots.clone(),
        };
        images.extend(target.names.iter().map(image));
    }
    forget_others(leased, &arrived, &targets, &wanted).await?;
    for ImportedImage { name, target, .. } in &images {
        let image = Image { labels: options.labels.clone(), ..Image::new(name.clone(), target.clone()) };
        leased.images.put(&image).await.context(|| format!("record image {name}"))?;
    }
    images.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Imported { images, totals })
}

/// Asks of every name whether what it is for may be here, before anything is unpacked.
async fn verify(leased: &Leased, arrived: &Arrived, targets: &[Target], options: &Import) -> Result<()> {
    if options.verifier.is_none() {
        return Ok(());
    }
    let index = arrived.index.as_ref().map(layout::index).transpose()?;
    for target in targets {
        for name in &target.names {
            let subject = Subject { name: name.as_str(), descriptor: &target.descriptor };
            let documents = InArchive { leased, name: name.as_str(), index: index.as_ref() };
            verify::check(options.verifier.as_ref(), &subject, &documents).await?;
        }
    }
    Ok(())
}

/// Finds out what the archive has, and what that is to be called.
async fn targets(leased: &Leased, arrived: &Arrived, naming: &Naming) -> Result<Vec<Target>> {
    let found = match (&arrived.index, &arrived.manifest) {
        (Some(index), _) => layout::targets(leased, arrived, index, naming).await?,
        (None, Some(_)) if naming.index.is_some() => {
            return Err(Error::failed_precondition("the archive has no index that could be named")
                .hint("leave --index-name out: Docker's archives name their images themselves"));
        }
        (None, Some(manifest)) => docker::targets(leased, arrived, manifest, naming).await?,
        (None, None) => {
            return Err(Error::failed_precondition("it has neither an index.json nor a manifest.json").hint(ARCHIVES));
        }
    };
    let mut targets: Vec<Target> = Vec::new();
    for (descriptor, names) in found {
        match targets.iter_mut().find(|target| target.descriptor.digest == descriptor.digest) {
            Some(target) => target.names.extend(names),
            None => targets.push(Target { descriptor, names }),
        }
    }
    let unnamed = targets.iter().filter(|target| target.names.is_empty()).count();
    targets.retain(|target| !target.names.is_empty());
    if targets.is_empty() {
        return Err(Error::not_found(format!("none of the {unnamed} images in the archive has a name that is wanted"))
            .hint("--digests records images under their digests, --index-name NAME all of them as one, --base-name NAME those that have tags"));
    }
    if unnamed > 0 {
        tracing::warn!("images that the archive does not name are left out: {unnamed}; --digests records them, too");
    }
    let mut owners: BTreeMap<&image::Name, &Digest> = BTreeMap::new();
    for target in &mut targets {
        target.names.sort();
        target.names.dedup();
    }
    for (name, target) in targets.iter().flat_map(|target| target.names.iter().map(move |name| (name, target))) {
        if let Some(other) = owners.insert(name, &target.descriptor.digest) {
            return Err(Error::failed_precondition(format!(
                "two images are called {name}: {other} and {}",
                target.descriptor.digest
            )));
        }
    }
    Ok(targets)
}

/// Deletes the manifests that came along and are for other platforms: an index that lists them would keep them.
async fn forget_others(
    leased: &Leased,
    arrived: &Arrived,
    targets: &[Target],
    wanted: &BTreeSet<Digest>,
) -> Result<()> {
    for target in targets {
        let root = match crate::documents::root(&*leased.content, &target.descriptor).await {
            Ok(root) => root,
            Err(error) if error.is(Kind::NotFound) => continue,
            Err(error) => return Err(error),
        };
        for child in root.children().iter().filter(|child| child.media_type.is_manifest_or_index()) {
            let nested = child.media_type.role() == windlass_core::media_type::Role::Index;
            if !nested && !wanted.contains(&child.digest) && arrived.brought.contains(&child.digest) {
                match leased.content.delete(&child.digest).await {
                    Err(error) if !error.is(Kind::NotFound) => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}
