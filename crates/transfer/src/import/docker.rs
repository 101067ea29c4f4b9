//! What an archive of Docker says of itself: a list of images, each a config and layers by their paths.
//!
//! The manifest that such an image has nowhere is made here, of Docker's second schema. A layer is what its first bytes
//! say: `docker save` writes plain tar, others compress.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use windlass_core::content::{IngesterExt as _, ProviderExt as _};
use windlass_core::document::{ImageConfig, MAX_CONFIG_SIZE};
use windlass_core::media_type::Compression;
use windlass_core::{Descriptor, Labels, Leased, MediaType, Result, ResultExt as _, image};

use super::Naming;
use super::arrive::{Arrived, Found};
use super::names::malformed;
use windlass_archive::compression::{MAGIC_LEN, detect};

/// An image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A manifest of Docker's second schema, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Makes manifests of the images in the list, and returns them with the names that are wanted.
pub(super) async fn targets(
    leased: &Leased,
    arrived: &Arrived,
    list: &Bytes,
    naming: &Naming,
) -> Result<Vec<(Descriptor, Vec<image::Name>)>> {
    let saved: Vec<Saved> = serde_json::from_slice(list).map_err(|error| malformed("manifest.json", error))?;
    let mut targets = Vec::new();
    for image in &saved {
        let descriptor = manifest(leased, arrived, image).await.context(|| format!("image {}", image.config))?;
        let tags = image.repo_tags.iter().flatten().map(String::as_str);
        let names = naming.names(tags, &descriptor.digest)?;
        targets.push((descriptor, names));
    }
    Ok(targets)
}

async fn manifest(leased: &Leased, arrived: &Arrived, image: &Saved) -> Result<Descriptor> {
    let config = find(arrived, &image.config)?;
    let config = Descriptor::new(MediaType::DOCKER_CONFIG, config.digest.clone(), config.size);
    let bytes = leased.content.read_all(&config, MAX_CONFIG_SIZE).await?;
    let diff_ids =
        ImageConfig::parse(&config, &bytes).map_err(|error| malformed(&image.config, error))?.rootfs.diff_ids;
    let paths = image.layers.as_deref().unwrap_or_default();
    if diff_ids.len() != paths.len() {
        return Err(malformed("manifest.json", format!("{} layers for {} diff ids", paths.len(), diff_ids.len())));
    }
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(&diff_ids) {
        let found = find(arrived, path)?;
        let layer = layer(leased, found).await?;
        if layer.media_type.as_str() == MediaType::DOCKER_LAYER && layer.digest != diff_id.0 {
            return Err(malformed(path, format!("it is {}, and the config says {diff_id}", layer.digest)));
        }
        layers.push(layer);
    }
    let manifest = Manifest { schema_version: 2, media_type: MediaType::DOCKER_MANIFEST, config, layers };
    let bytes = Bytes::from(serde_json::to_vec(&manifest).map_err(|error| malformed("manifest.json", error))?);
    let descriptor = Descriptor::of(MediaType::DOCKER_MANIFEST, &bytes);
    leased.content.write_blob(&descriptor, bytes, Labels::new()).await?;
    Ok(descriptor)
}

fn find<'a>(arrived: &'a Arrived, path: &str) -> Result<&'a Found> {
    arrived.find(path)?.ok_or_else(|| malformed("manifest.json", format!("there is no {path:?}, which it refers to")))
}

async fn layer(leased: &Leased, found: &Found) -> Result<Descriptor> {
    let mut layer = Descriptor::new(MediaType::DOCKER_LAYER, found.digest.clone(), found.size);
    let start = leased.content.reader(&layer).await?.read_at(0, MAGIC_LEN).await?;
    layer.media_type = MediaType::new(match detect(&start) {
        Compression::None => MediaType::DOCKER_LAYER,
        Compression::Gzip => MediaType::DOCKER_LAYER_GZIP,
        Compression::Zstd => MediaType::DOCKER_LAYER_ZSTD,
    });
    Ok(layer)
}
