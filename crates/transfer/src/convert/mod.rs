//! Converting: an image with other layers, or of another kind, under another name.
//!
//! ```text
//! index ─► the manifests that are wanted ─► layers, compressed anew ─► manifests ─► index ─► record
//! ```
//!
//! What an image is stays: the config and its diff ids, history, annotations, and everything in a document that is not known
//! here. Snapshots are those that the image had, because their names are made of diff ids.

mod documents;
mod layer;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use windlass_core::content::{IngesterExt as _, ProviderExt as _};
use windlass_core::document::{MAX_MANIFEST_SIZE, Root};
use windlass_core::field::FieldMask;
use windlass_core::gc::Deletion;
use windlass_core::image::{Image, StoreExt as _};
use windlass_core::lease::{self, Resource, ResourceKind};
use windlass_core::media_type::{Compression, Role};
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{
    Descriptor, DiffId, Digest, Error, Host, Labels, Leased, Namespace, Platform, Result, ResultExt as _, image,
};

use crate::documents as read;
use crate::export::present;

/// The label of a running conversion's lease.
pub const LEASE_LABEL: &str = "windlass.dev/convert";

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

/// Whose media types documents and layers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// OCI's.
    Oci,
    /// Docker's second schema.
    Docker,
}

/// What is wanted of a conversion.
#[derive(Debug, Clone)]
pub struct Convert {
    /// The platforms that stay, of images that are for several.
    pub platforms: Selection,
    /// How layers are compressed; as they are when absent.
    pub compression: Option<Compression>,
    /// Whose media types there are; those that there are when absent.
    pub family: Option<Family>,
}

/// What came of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Converted {
    /// The name that was recorded.
    pub name: image::Name,
    /// What it points at.
    pub target: Descriptor,
    /// How many layers were compressed anew.
    pub layers: u64,
}

/// Converts an image, and records it under another name.
///
/// # Errors
/// `NotFound` for a layer that is not here, saying whether it was dropped, and for a platform that there is no image for;
/// `DataLoss` for a damaged layer, or one that is not what the config says; those of the stores.
///
/// # Cancel safety
/// Dropping the call stops it. The name is recorded or it is not; layers stay until the lease expires.
pub async fn convert(
    host: &dyn Host,
    namespace: &Namespace,
    source: &Image,
    name: &image::Name,
    options: &Convert,
    progress: &Tracker,
) -> Result<Converted> {
    let lease = lease::Options {
        id: None,
        expiry: Some(lease::DEFAULT_EXPIRY),
        labels: Labels::new().with(LEASE_LABEL, source.name.as_str()),
    };
    let leased = Leased::acquire(host, namespace, lease).await?;
    let converted = async {
        let target = Resource { kind: ResourceKind::Content, id: source.target.digest.to_string() };
        leased.leases.add_resource(leased.lease(), &target).await?;
        let mut conversion = Conversion { leased: &leased, options, progress, layers: BTreeMap::new(), anew: 0 };
        let target = conversion.root(&source.target, 0).await?;
        leased.images.put(&Image::new(name.clone(), target.clone())).await?;
        Ok(Converted { name: name.clone(), target, layers: conversion.anew })
    };
    let converted: Result<Converted> = converted.await;
    let deletion = if converted.is_ok() { Deletion::Background } else { Deletion::Synchronous };
    let released = leased.release(deletion).await;
    let converted = converted.context(|| format!("convert image {}", source.name))?;
    released.map(|()| converted)
}

struct Conversion<'a> {
    leased: &'a Leased,
    options: &'a Convert,
    progress: &'a Tracker,
    /// What became of layers.
    layers: BTreeMap<Digest, Descriptor>,
    /// How many were compressed anew.
    anew: u64,
}

impl Conversion<'_> {
    /// Converts an index or a manifest, and what is below it.
    async fn root(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Descriptor> {
        if depth > MAX_DEPTH {
            return Err(Error::failed_precondition(format!("{} nests indexes too deeply", descriptor.digest)));
        }
        let bytes = self.leased.content.read_all(descriptor, MAX_MANIFEST_SIZE).await?;
        let root = Root::parse(descriptor, &bytes)?;
        let mut document: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid_argument("parse a document").source(error))?;
        let mut converted = descriptor.clone();
        match root {
            Root::Index(index) => {
                let chosen = self.choose(&index.manifests).await?;
                // Recursion through a box, because a future cannot contain itself.
                let children = Box::pin(self.children(&index.manifests, &chosen, depth)).await?;
                documents::set_manifests(&mut document, &children);
            }
            Root::Manifest(manifest) if manifest.is_image() => {
                let config = read::config(&*self.leased.content, &manifest.config).await?;
                let plan = crate::plan::layers(&manifest, &config);
                let diff_ids: Vec<Option<DiffId>> = match plan {
                    Ok(plan) => plan.into_iter().map(|layer| Some(layer.diff_id)).collect(),
                    // An attestation has the config of an image, and "layers" that are none.
                    Err(_) if manifest.layers.iter().all(|it| it.media_type.role() == Role::Opaque) => {
                        return Ok(converted);
                    }
                    Err(error) => return Err(error),
                };
                let mut layers = Vec::new();
                for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
                    layers.push(self.layer(layer, diff_id.as_ref(), &descriptor.digest).await?);
                }
                documents::set_layers(&mut document, &layers);
                documents::set_config(&mut document, self.options.family);
            }
            // An artifact is what it is.
            Root::Manifest(_) => return Ok(converted),
        }
        converted.media_type = documents::of_family(&descriptor.media_type, self.options.family);
        documents::set_media_type(&mut document, &converted.media_type);
        self.store(converted, &document).await
    }

    async fn children(
        &mut self,
        manifests: &[Descriptor],
        chosen: &[usize],
        depth: usize,
    ) -> Result<Vec<(usize, Descriptor)>> {
        let mut became: BTreeMap<String, String> = BTreeMap::new();
        let mut children = Vec::new();
        for (at, child) in manifests.iter().enumerate().filter(|(at, _)| chosen.contains(at)) {
            let attempt = || match &child.platform {
                Some(platform) => format!("the image for {platform}"),
                None => format!("manifest {}", child.digest),
            };
            let converted = self.root(child, depth + 1).await.context(attempt)?;
            became.insert(child.digest.to_string(), converted.digest.to_string());
            children.push((at, converted));
        }
        for (_, child) in &mut children {
            documents::refer_to_converted(child, &became);
        }
        Ok(children)
    }

    /// Says which manifests of an index are wanted.
    async fn choose(&self, manifests: &[Descriptor]) -> Result<Vec<usize>> {
        let mut platforms: Vec<Option<Platform>> = Vec::new();
        for manifest in manifests {
            platforms.push(match &manifest.platform {
                Some(platform) => Some(platform.clone()),
                None => self.platform(manifest).await?,
            });
        }
        self.options.platforms.select(&platforms)
    }

    async fn platform(&self, descriptor: &Descriptor) -> Result<Option<Platform>> {
        let content = &*self.leased.content;
        match read::root(content, descriptor).await {
            Ok(Root::Manifest(manifest)) if manifest.is_image() => {
                Ok(read::config(content, &manifest.config).await?.platform())
            }
            Err(error) if !error.is(windlass_core::Kind::NotFound) => Err(error),
            _ => Ok(None),
        }
    }

    async fn layer(&mut self, layer: &Descriptor, diff_id: Option<&DiffId>, manifest: &Digest) -> Result<Descriptor> {
        if let Some(converted) = self.layers.get(&layer.digest) {
            return Ok(converted.clone());
        }
        let mut converted = layer.clone();
        let is_layer = matches!(layer.media_type.role(), Role::Layer(_));
        if let (true, Some(compression)) = (is_layer, self.options.compression) {
            present(&*self.leased.content, layer, Some(manifest)).await?;
            let task = self.progress.task(layer.ingest_ref().as_str());
            if let Some(anew) = layer::compress(self.leased, layer, compression, diff_id, &task).await? {
                (converted.digest, converted.size) = (anew.digest, anew.size);
                documents::forget_offsets(&mut converted);
                self.anew += 1;
            }
            converted.media_type = documents::compressed(&layer.media_type, compression);
        }
        converted.media_type = documents::of_family(&converted.media_type, self.options.family);
        self.layers.insert(layer.digest.clone(), converted.clone());
        Ok(converted)
    }

    /// Stores a document, with labels that keep what it refers to.
    async fn store(&self, mut descriptor: Descriptor, document: &Value) -> Result<Descriptor> {
        let bytes = serde_json::to_vec(document).map_err(|error| Error::internal("encode JSON").source(error))?;
        let new = Descriptor::of(descriptor.media_type.clone(), &bytes);
        let labels = Root::parse(&new, &bytes)?.child_labels();
        let content = &self.leased.content;
        content.write_blob(&new, bytes.into(), labels.clone()).await?;
        // It may have been here, without labels.
        let mut info = content.info(&new.digest).await?;
        if labels.iter().any(|(key, value)| info.labels.get(key) != Some(value)) {
            info.labels.extend(&labels);
            content.update(&info, &FieldMask::parse(["labels"])?).await?;
        }
        (descriptor.digest, descriptor.size) = (new.digest, new.size);
        Ok(descriptor)
    }
}
