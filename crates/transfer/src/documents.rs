//! Manifests, indexes and configs that are in a content store, and what they refer to.

use bytes::Bytes;
use windlass_core::content::{Provider, ProviderExt};
use windlass_core::document::{ImageConfig, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Root};
use windlass_core::media_type::Role;
use windlass_core::{Descriptor, Result, ResultExt};

/// Returns how large a document of that role may be, in bytes.
pub(crate) fn limit(descriptor: &Descriptor) -> u64 {
    match descriptor.media_type.role() {
        Role::Config => MAX_CONFIG_SIZE,
        _ => MAX_MANIFEST_SIZE,
    }
}

/// Reads and parses an index or a manifest.
pub(crate) async fn root(content: &dyn Provider, descriptor: &Descriptor) -> Result<Root> {
    Root::parse(descriptor, &read(content, descriptor).await?)
}

/// Reads and parses an image config.
pub(crate) async fn config(content: &dyn Provider, descriptor: &Descriptor) -> Result<ImageConfig> {
    ImageConfig::parse(descriptor, &read(content, descriptor).await?)
}

async fn read(content: &dyn Provider, descriptor: &Descriptor) -> Result<Bytes> {
    content.read_all(descriptor, limit(descriptor)).await.context(|| format!("read {}", descriptor.digest))
}
