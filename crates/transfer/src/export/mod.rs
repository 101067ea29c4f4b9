//! Exporting: recorded images become an archive, written once from its beginning to its end.
//!
//! The archive is an OCI layout (image-spec, `image-layout.md`) that has Docker's `manifest.json` as well, so that
//! `docker load` reads it, too. Names are kept in both. The same images make the same bytes: members are in order, and
//! nothing has a time or an owner.
//!
//! Documents stay as they are, and so do the digests of images: an index that is exported for one platform still lists the
//! others, as containerd has it.

mod documents;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tokio::io::AsyncWrite;
use windlass_core::content::{DROPPED_LABEL, Provider, Store};
use windlass_core::document::{Manifest, Root};
use windlass_core::gc::Deletion;
use windlass_core::image::Image;
use windlass_core::lease::{self, Resource, ResourceKind};
use windlass_core::media_type::Role;
use windlass_core::platform::Selection;
use windlass_core::progress::{State, Tracker};
use windlass_core::{
    Descriptor, Digest, Error, Host, Kind, Labels, Leased, Namespace, Platform, Result, ResultExt as _, image,
};

use crate::documents as read;
use crate::stop::Stop;
pub(crate) use documents::is_non_distributable;
use write::Archive;

/// The label of a running export's lease.
pub const LEASE_LABEL: &str = "windlass.dev/export";

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

/// What is wanted of an export.
#[derive(Debug, Clone)]
pub struct Export {
    /// The platforms, of images that are for several.
    pub platforms: Selection,
    /// Whether the archive is one for Docker as well.
    pub docker: Docker,
    /// Whether layers are left out that may not be passed on.
    pub skip_non_distributable: bool,
    /// Makes a name one that people write, for Docker's list; none for one that Docker would not understand.
    pub familiar: fn(&str) -> Option<String>,
    /// When it is to stop.
    pub stop: Stop,
}

/// Whether an archive has Docker's `manifest.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Docker {
    /// It has.
    #[default]
    Yes,
    /// It has not.
    No,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            platforms: Selection::default(),
            docker: Docker::default(),
            skip_non_distributable: false,
            familiar: |name| Some(name.to_owned()),
            stop: Stop::default(),
        }
    }
}

/// What came of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The names, as they are in the archive.
    pub names: Vec<image::Name>,
    /// How many blobs were written.
    pub blobs: u64,
    /// The size of the archive in bytes.
    pub size: u64,
}

/// Writes images as an archive.
///
/// # Errors
/// `NotFound` for a blob that is not here, saying whether it was dropped, and for a platform that there is no image for;
/// `DataLoss` for one that has changed since it was stored; those of the store and the writer. What was written until then
/// is of no use.
///
/// # Cancel safety
/// Dropping the call stops it, and leaves what was written.
pub async fn export(
    host: &dyn Host,
    namespace: &Namespace,
    images: &[Image],
    options: &Export,
    into: &mut (dyn AsyncWrite + Unpin + Send),
    progress: &Tracker,
) -> Result<Exported> {
    let lease = lease::Options {
        id: None,
        expiry: Some(lease::DEFAULT_EXPIRY),
        labels: Labels::new().with(LEASE_LABEL, "archive"),
    };
    let leased = Leased::acquire(host, namespace, lease).await?;
    let exported = options.stop.or(carry_out(&leased, images, options, into, progress)).await;
    let released = leased.release(Deletion::Background).await;
    let exported = exported?;
    released.map(|()| exported)
}

async fn carry_out(
    leased: &Leased,
    images: &[Image],
    options: &Export,
    into: &mut (dyn AsyncWrite + Unpin + Send),
    progress: &Tracker,
) -> Result<Exported> {
    let mut contents = Contents::default();
    for image in images {
        // Whoever deletes the image meanwhile does not delete what is being read.
        let target = Resource { kind: ResourceKind::Content, id: image.target.digest.to_string() };
        leased.leases.add_resource(leased.lease(), &target).await?;
        contents.add(&*leased.content, image, options).await.context(|| format!("export image {}", image.name))?;
    }
    for blob in contents.blobs.values() {
        present(&*leased.content, blob, contents.manifests.get(&blob.digest)).await?;
    }
    let mut archive = Archive::new(into);
    archive.document("oci-layout", documents::OCI_LAYOUT).await?;
    archive.document("index.json", &documents::index(images)?).await?;
    if options.docker == Docker::Yes {
        archive.document("manifest.json", &documents::docker(images, &contents, options)?).await?;
    }
    let algorithms: BTreeSet<&str> = contents.blobs.keys().map(|digest| digest.algorithm().as_str()).collect();
    archive.directory("blobs").await?;
    for algorithm in algorithms {
        archive.directory(&format!("blobs/{algorithm}")).await?;
    }
    for (digest, blob) in &contents.blobs {
        let task = progress.task(blob.ingest_ref().as_str());
        let written = archive.blob(&*leased.content as &dyn Provider, blob, &task).await;
        task.set(match &written {
            Ok(()) => State::Done,
            Err(error) => State::Failed { reason: error.to_string() },
        });
        written.context(|| format!("export blob {digest}"))?;
    }
    let size = archive.finish().await?;
    let names = images.iter().map(|image| image.name.clone()).collect();
    Ok(Exported { names, blobs: contents.blobs.len() as u64, size })
}

/// What an archive is going to have.
#[derive(Debug, Default)]
struct Contents {
    /// Every blob once, in the order of the archive.
    blobs: BTreeMap<Digest, Descriptor>,
    /// The selected manifests of each image, in its order, by the digest of its target.
    selected: BTreeMap<Digest, Vec<Selected>>,
    /// Which manifest refers to a layer.
    manifests: BTreeMap<Digest, Digest>,
}

/// A manifest that is exported.
#[derive(Debug)]
struct Selected {
    manifest: Manifest,
    platform: Option<Platform>,
}

/// A manifest that could be exported.
struct Candidate {
    descriptor: Descriptor,
    manifest: Option<Manifest>,
    platform: Option<Platform>,
}

impl Contents {
    async fn add(&mut self, content: &dyn Store, image: &Image, options: &Export) -> Result<()> {
        if self.selected.contains_key(&image.target.digest) {
            return Ok(());
        }
        let mut candidates = self.candidates(content, &image.target).await?;
        let platforms: Vec<Option<Platform>> = candidates.iter().map(|it| it.platform.clone()).collect();
        let alone = image.target.media_type.role() != Role::Index;
        let chosen = if alone { vec![0] } else { options.platforms.select(&platforms)? };
        let mut selected = Vec::new();
        for (at, candidate) in candidates.drain(..).enumerate().filter(|(at, _)| chosen.contains(at)) {
            let Candidate { descriptor, manifest, platform } = candidate;
            let manifest = match manifest {
                Some(manifest) => manifest,
                None => manifest_of(content, &descriptor, platforms.get(at).cloned().flatten()).await?,
            };
            self.put(&descriptor);
            self.put(&manifest.config);
            for layer in &manifest.layers {
                if options.skip_non_distributable && is_non_distributable(layer) {
                    continue;
                }
                self.put(layer);
                self.manifests.insert(layer.digest.clone(), descriptor.digest.clone());
            }
            selected.push(Selected { manifest, platform });
        }
        self.selected.insert(image.target.digest.clone(), selected);
        Ok(())
    }

    fn put(&mut self, blob: &Descriptor) {
        self.blobs.entry(blob.digest.clone()).or_insert_with(|| blob.clone());
    }

    /// Lists the manifests below a target, and puts the indexes on the way into the archive.
    async fn candidates(&mut self, content: &dyn Store, target: &Descriptor) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        let mut stack = vec![(target.clone(), 0)];
        while let Some((descriptor, depth)) = stack.pop() {
            if depth > MAX_DEPTH {
                return Err(Error::failed_precondition(format!("{} nests indexes too deeply", target.digest)));
            }
            let role = descriptor.media_type.role();
            if role == Role::Manifest && depth > 0 {
                // Its platform is known without it, unless it says nothing; and then it may not be here.
                let manifest = match descriptor.platform {
                    Some(_) => None,
                    None => here(manifest_of(content, &descriptor, None).await)?,
                };
                let platform = match (&descriptor.platform, &manifest) {
                    (None, Some(manifest)) => platform(content, manifest).await?,
                    (platform, _) => platform.clone(),
                };
                found.push(Candidate { descriptor, manifest, platform });
                continue;
            }
            match read::root(content, &descriptor).await.map_err(|error| absent(error, None))? {
                Root::Index(index) => {
                    self.put(&descriptor);
                    stack.extend(index.manifests.into_iter().rev().map(|child| (child, depth + 1)));
                }
                Root::Manifest(manifest) => {
                    let platform = platform(content, &manifest).await?;
                    found.push(Candidate { descriptor, manifest: Some(manifest), platform });
                }
            }
        }
        Ok(found)
    }
}

/// Reads a manifest; the platform is what an error says of it.
async fn manifest_of(content: &dyn Store, descriptor: &Descriptor, platform: Option<Platform>) -> Result<Manifest> {
    match read::root(content, descriptor).await.map_err(|error| absent(error, platform.as_ref()))? {
        Root::Manifest(manifest) => Ok(manifest),
        Root::Index(_) => Err(Error::failed_precondition(format!("{} is an index, not a manifest", descriptor.digest))),
    }
}

/// Returns the platform that the config of an image says.
async fn platform(content: &dyn Store, manifest: &Manifest) -> Result<Option<Platform>> {
    if !manifest.is_image() {
        return Ok(None);
    }
    let config = read::config(content, &manifest.config).await.map_err(|error| absent(error, None))?;
    Ok(config.platform())
}

fn here<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        read => read.map(Some),
    }
}

/// Says what to do about a document that is not here.
fn absent(error: Error, platform: Option<&Platform>) -> Error {
    if !error.is(Kind::NotFound) {
        return error;
    }
    match platform {
        Some(platform) => error
            .context(format!("the image for {platform} is not here"))
            .hint(format!("`dist fetch --platform {platform} NAME` brings it, `--platform` exports another one")),
        None => error.hint("`dist fetch NAME` brings what is missing"),
    }
}

/// Checks that a blob is here, before anything is written; the labels of the manifest say whether it was dropped.
pub(crate) async fn present(content: &dyn Store, blob: &Descriptor, manifest: Option<&Digest>) -> Result<()> {
    let error = match content.info(&blob.digest).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is(Kind::NotFound) => error,
        Err(error) => return Err(error),
    };
    let labels = match manifest {
        Some(manifest) => content.info(manifest).await?.labels,
        None => Labels::new(),
    };
    let digest = blob.digest.to_string();
    if labels.iter().any(|(key, value)| key.starts_with(DROPPED_LABEL) && value == digest) {
        return Err(Error::not_found(format!("layer {digest} was not kept when the image was pulled"))
            .hint("`dist fetch NAME` brings it back"));
    }
    Err(error
        .context(format!("{} {digest} is missing", blob.media_type))
        .hint("`dist fetch NAME` brings what is missing; --skip-non-distributable leaves layers out that may not be passed on"))
}
