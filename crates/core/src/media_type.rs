//! Media types of image content, and what each one is to an image engine.
//!
//! OCI image-spec `media-types.md`; Docker's in distribution's `manifest-v2-2.md`. A media type is kept as it was
//! written, because it is part of what is recorded; [`MediaType::role`] says what to do with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A media type, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct MediaType(String);

/// What a blob of some media type is within an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A list of manifests: OCI index or Docker manifest list.
    Index,
    /// A config and layers: OCI manifest or Docker schema 2.
    Manifest,
    /// Docker's schema 1, which cannot be verified by digest of its parts and is refused.
    Schema1,
    /// An image config.
    Config,
    /// A layer: a tar archive with this compression.
    Layer(Compression),
    /// Anything else: an artifact's blob, kept as opaque content.
    Opaque,
}

/// How a layer's tar is compressed, as its media type declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl MediaType {
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// OCI empty descriptor's media type.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker schema 1 manifest.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    /// Docker schema 1 manifest, signed.
    pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, uncompressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// An in-toto statement: the "layers" of an attestation.
    pub const IN_TOTO: &str = "application/vnd.in-toto+json";
    /// Bytes about which nothing is known.
    pub const OCTET_STREAM: &str = "application/octet-stream";

    /// Everything that can stand at the root of an image: what a client says it accepts for a tag.
    pub const MANIFESTS: [&str; 4] = [Self::OCI_INDEX, Self::OCI_MANIFEST, Self::DOCKER_LIST, Self::DOCKER_MANIFEST];

    /// Makes a media type of text; parameters after a semicolon are dropped.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        Self(text.split(';').next().unwrap_or(text).trim().to_owned())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what a blob of this type is within an image.
    pub fn role(&self) -> Role {
        match self.0.as_str() {
            Self::OCI_INDEX | Self::DOCKER_LIST => Role::Index,
            Self::OCI_MANIFEST | Self::DOCKER_MANIFEST => Role::Manifest,
            Self::DOCKER_SCHEMA1 | Self::DOCKER_SCHEMA1_SIGNED => Role::Schema1,
            Self::OCI_CONFIG | Self::DOCKER_CONFIG => Role::Config,
            other => layer_compression(other).map_or(Role::Opaque, Role::Layer),
        }
    }

    /// Tells whether the type can stand at the root of an image.
    pub fn is_manifest_or_index(&self) -> bool {
        matches!(self.role(), Role::Index | Role::Manifest)
    }
}

/// Layer media types come in families (plain, non-distributable, Docker's foreign) times compressions.
fn layer_compression(text: &str) -> Option<Compression> {
    const FAMILIES: [&str; 4] = [
        MediaType::OCI_LAYER,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        MediaType::DOCKER_LAYER,
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let suffix = FAMILIES.iter().find_map(|family| text.strip_prefix(family))?;
    match suffix {
        "" => Some(Compression::None),
        "+gzip" | ".gzip" => Some(Compression::Gzip),
        "+zstd" | ".zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_every_family() {
        let role = |text: &str| MediaType::new(text).role();
        assert_eq!(role(MediaType::DOCKER_LIST), Role::Index);
        assert_eq!(role("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), Role::Manifest);
        assert_eq!(role(MediaType::DOCKER_LAYER_GZIP), Role::Layer(Compression::Gzip));
        assert_eq!(
            role("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
            Role::Layer(Compression::Zstd)
        );
        assert_eq!(role("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), Role::Layer(Compression::Gzip));
        assert_eq!(role("application/vnd.oci.image.layer.v1.tar+encrypted"), Role::Opaque);
        assert_eq!(role("application/vnd.in-toto+json"), Role::Opaque);
    }
}
