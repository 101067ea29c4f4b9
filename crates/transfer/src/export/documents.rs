//! What an archive says of itself, to readers of OCI layouts and to Docker.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use windlass_core::image::Image;
use windlass_core::{Descriptor, Error, MediaType, Platform, Reference, Result};

use super::{Contents, Export, Selected};
use crate::import::{NAME_ANNOTATION, REF_NAME_ANNOTATION};

/// OCI image-spec, `image-layout.md`, "oci-layout file".
pub(super) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An index, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// An image of Docker's list.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Lists images with their names, as containerd does it.
pub(super) fn index(images: &[Image]) -> Result<Bytes> {
    let named = |image: &Image| {
        let mut descriptor = image.target.clone();
        let name = image.name.to_string();
        // The tag alone is what readers of layouts look for.
        let tag = name.parse().ok().and_then(|name: Reference| name.tag().map(ToOwned::to_owned));
        descriptor.annotations.insert(REF_NAME_ANNOTATION.to_owned(), tag.unwrap_or_else(|| name.clone()));
        descriptor.annotations.insert(NAME_ANNOTATION.to_owned(), name);
        descriptor
    };
    let manifests = images.iter().map(named).collect();
    json(&Index { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests })
}

/// Lists images as `docker load` wants them. Of an image for several platforms it gets the one for this machine, if there
/// is one.
pub(super) fn docker(images: &[Image], contents: &Contents, options: &Export) -> Result<Bytes> {
    let mut list: Vec<Saved> = Vec::new();
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for image in images {
        let selected = contents.selected.get(&image.target.digest).map(Vec::as_slice).unwrap_or_default();
        let Some(one) = for_docker(selected) else { continue };
        let config = path(&one.manifest.config);
        let place = *at.entry(config.clone()).or_insert_with(|| {
            let layers = one.manifest.layers.iter().map(path).collect();
            list.push(Saved { config, repo_tags: Vec::new(), layers });
            list.len() - 1
        });
        let name = Some(image.name.as_str()).filter(|name| !name.contains('@'));
        if let (Some(saved), Some(tag)) = (list.get_mut(place), name.and_then(options.familiar)) {
            saved.repo_tags.push(tag);
        }
    }
    json(&list)
}

fn for_docker(selected: &[Selected]) -> Option<&Selected> {
    let images: Vec<&Selected> = selected.iter().filter(|it| it.manifest.is_image()).collect();
    if let [only] = images.as_slice() {
        return Some(only);
    }
    let host = Platform::host();
    let preference = |it: &&Selected| it.platform.as_ref().and_then(|platform| host.preference(platform));
    images.into_iter().filter(|it| preference(it).is_some()).min_by_key(preference)
}

/// Returns where a blob is in the archive.
pub(super) fn path(blob: &Descriptor) -> String {
    format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex())
}

/// Tells whether a layer is one that may not be passed on. OCI image-spec, `layer.md`, "Non-Distributable Layers".
pub(crate) fn is_non_distributable(layer: &Descriptor) -> bool {
    let media_type = layer.media_type.as_str();
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

fn json<T: Serialize>(value: &T) -> Result<Bytes> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::internal("encode JSON").source(error))?;
    Ok(bytes.into())
}
