//! Repairs of what is here: blobs fetched again from where they came, layers unpacked again from their blobs.
//!
//! Nothing is resolved: digests say what is wanted, and the records where it was had from. What is damaged, the caller
//! knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use tokio::sync::Semaphore;
use windlass_core::content::Store;
use windlass_core::document::{Manifest, Root};
use windlass_core::media_type::Role;
use windlass_core::progress::Tracker;
use windlass_core::remote::{Resolver, SOURCE_LABEL};
use windlass_core::snapshot::Snapshotter;
use windlass_core::{
    ChainId, Descriptor, Digest, Error, Kind, Labels, Leased, MediaType, Result, ResultExt, Services, image,
};

use crate::arrival::Arrival;
use crate::documents;
use crate::download::Download;
use crate::fetch::Fetch;
use crate::plan::{LayerPlan, layers};
use crate::pull::source_labels;
use crate::unpack::{Origin, Unpacker};

/// What the images of a namespace are made of, as far as their documents are here and right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Everything that is referred to.
    pub descriptors: BTreeMap<Digest, Descriptor>,
    /// The layers, by the snapshots that they become.
    pub layers: BTreeMap<ChainId, LayerPlan>,
    /// The images that lead to each blob.
    pub images: BTreeMap<Digest, BTreeSet<image::Name>>,
}

impl Inventory {
    /// Reads the documents of every image of a namespace.
    ///
    /// # Errors
    /// Those of the stores; documents that are damaged are skipped.
    pub async fn of(services: &Services) -> Result<Self> {
        let mut inventory = Self::default();
        let images: Vec<image::Image> = services.images.list(&[]).try_collect().await?;
        for image in images {
            let mut open = vec![image.target.clone()];
            while let Some(descriptor) = open.pop() {
                let leads = inventory.images.entry(descriptor.digest.clone()).or_default();
                if !leads.insert(image.name.clone()) {
                    continue;
                }
                inventory.descriptors.entry(descriptor.digest.clone()).or_insert_with(|| descriptor.clone());
                if !matches!(descriptor.media_type.role(), Role::Index | Role::Manifest) {
                    continue;
                }
                let Some(root) = read(&*services.content, &descriptor).await? else { continue };
                open.extend(root.children());
                if let Root::Manifest(manifest) = &root {
                    inventory.add_layers(&*services.content, manifest).await?;
                }
            }
        }
        Ok(inventory)
    }

    /// Returns the layers of a stack, bottom first; `None` when not all of them are known.
    pub fn stack(&self, top: &ChainId) -> Option<Vec<LayerPlan>> {
        let mut stack = Vec::new();
        let mut next = Some(top);
        while let Some(chain_id) = next {
            let layer = self.layers.get(chain_id)?;
            next = layer.parent.as_ref();
            stack.push(layer.clone());
        }
        stack.reverse();
        Some(stack)
    }

    async fn add_layers(&mut self, content: &dyn Store, manifest: &Manifest) -> Result<()> {
        if !manifest.is_image() {
            return Ok(());
        }
        let config = match documents::config(content, &manifest.config).await {
            Ok(config) => config,
            Err(error) if is_damage(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for layer in layers(manifest, &config).unwrap_or_default() {
            self.layers.entry(layer.chain_id.clone()).or_insert(layer);
        }
        Ok(())
    }
}

async fn read(content: &dyn Store, descriptor: &Descriptor) -> Result<Option<Root>> {
    match documents::root(content, descriptor).await {
        Ok(root) => Ok(Some(root)),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells whether an error is that of a document which is not here, or not what it was.
fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::NotFound
            | Kind::DataLoss
            | Kind::InvalidArgument
            | Kind::FailedPrecondition
            | Kind::ResourceExhausted
            | Kind::Unimplemented
    )
}

/// Returns where a blob can be had, the likeliest first: as its labels say, then under the names of the images it is in.
pub fn sources<'a>(
    digest: &Digest,
    labels: impl IntoIterator<Item = &'a Labels>,
    images: impl IntoIterator<Item = &'a image::Name>,
) -> Vec<image::Name> {
    let mut names: Vec<image::Name> = Vec::new();
    let mut add = |name: image::Name| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    for labels in labels {
        for (key, repositories) in labels.iter() {
            let Some(host) = key.strip_prefix(SOURCE_LABEL) else { continue };
            // containerd joins several with commas.
            for repository in repositories.split(',') {
                if let Ok(name) = format!("{host}/{repository}@{digest}").parse() {
                    add(name);
                }
            }
        }
    }
    images.into_iter().cloned().for_each(add);
    names
}

/// Brings a blob again, from the first source that has it. The content store must know that what it has is damaged, or
/// lack the bytes.
///
/// # Errors
/// `NotFound` when no source is known; otherwise that of the last one.
pub async fn fetch(
    leased: &Leased,
    resolver: &dyn Resolver,
    descriptor: &Descriptor,
    sources: &[image::Name],
    progress: &Tracker,
) -> Result<()> {
    let digest = &descriptor.digest;
    let mut failed = Error::not_found(format!("nothing says where {digest} came from"))
        .hint("pull an image that has it: what is here is not downloaded again");
    for source in sources {
        match fetch_from(leased, resolver, descriptor, source, progress).await {
            Ok(()) => return Ok(()),
            Err(error) => failed = error.context(format!("fetch {digest} again from {source}")),
        }
    }
    Err(failed)
}

async fn fetch_from(
    leased: &Leased,
    resolver: &dyn Resolver,
    descriptor: &Descriptor,
    source: &image::Name,
    progress: &Tracker,
) -> Result<()> {
    let fetcher = resolver.fetcher(source).await?;
    let labels = new_labels(leased, descriptor, source).await;
    let fetch = Fetch::new(leased, fetcher, labels, "a repair".to_owned(), progress);
    let task = progress.task(descriptor.ingest_ref().as_str());
    let arrival = Arrival::new(u64::MAX);
    let (came, gained) = (Arc::default(), Arc::default());
    Download { fetch: &fetch, descriptor, task: &task, arrival: &arrival, came, gained }.run().await?;
    if descriptor.media_type.is_manifest_or_index() {
        fetch.root(descriptor).await?;
    }
    task.finish_unless_exists();
    Ok(())
}

/// Returns the labels that say where a blob came from, unless its record does: that one may know more.
async fn new_labels(leased: &Leased, descriptor: &Descriptor, source: &image::Name) -> Labels {
    // A name that is no reference names no registry.
    let Ok(reference) = source.as_str().parse() else { return Labels::new() };
    let labels = source_labels(&reference);
    match leased.content.info(&descriptor.digest).await {
        Ok(info) if labels.iter().all(|(key, _)| info.labels.get(key).is_some()) => Labels::new(),
        _ => labels,
    }
}

/// Describes a blob of which nothing is known but its digest and size.
pub fn opaque(digest: &Digest, size: u64) -> Descriptor {
    Descriptor::new(MediaType::OCTET_STREAM, digest.clone(), size)
}

/// Unpacks one layer whose blob is here, onto its parent, which is unpacked: into `snapshotter`, which is or stands for the
/// one called `name`.
///
/// # Errors
/// Those of applier and snapshotter; `DataLoss` when the layer is not what the config lists.
pub async fn unpack(
    leased: &Leased,
    name: &str,
    snapshotter: Arc<dyn Snapshotter>,
    layer: &LayerPlan,
    progress: &Tracker,
) -> Result<()> {
    let unpacker = Unpacker::new(leased, name, snapshotter, "a repair".into(), Arc::new(Semaphore::new(1)));
    let here = Arrival::new(u64::MAX);
    here.is_here();
    let here = Origin::Arriving(here);
    let task = progress.task(layer.descriptor.ingest_ref().as_str());
    unpacker.layer(layer, &here, None, &task).await.context(|| format!("unpack {}", layer.chain_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_what_labels_say_and_then_the_names_of_images() {
        let digest = Digest::sha256(b"x");
        let labels = [
            Labels::new().with(format!("{SOURCE_LABEL}docker.io"), "library/a,library/b").with("other", "x"),
            Labels::new().with(format!("{SOURCE_LABEL}docker.io"), "library/a"),
        ];
        let image: image::Name = "quay.io/x/y:1".parse().unwrap();
        let found: Vec<String> = sources(&digest, &labels, [&image]).iter().map(ToString::to_string).collect();
        let expected =
            [format!("docker.io/library/a@{digest}"), format!("docker.io/library/b@{digest}"), image.to_string()];
        assert_eq!(found, expected);
    }
}
