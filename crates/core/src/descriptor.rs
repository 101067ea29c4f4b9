//! Descriptors: what a piece of content is, without its bytes. OCI image-spec, `descriptor.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::content::IngestRef;
use crate::digest::Digest;
use crate::media_type::{MediaType, Role};
use crate::platform::Platform;

/// Describes a piece of content: its type, digest and size, and what else its referrer says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the content.
    pub media_type: MediaType,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// Where else the content may be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Arbitrary metadata of the referrer; kept, never interpreted.
    #[serde(default, skip_serializing_if = "is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// The platform that the content is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact when the descriptor points at one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The content itself, base64, when the referrer inlined it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

fn is_empty(map: &BTreeMap<String, String>) -> bool {
    map.is_empty()
}

/// Accepts `null` where a map is expected: Go encoders write it for an empty one.
fn or_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Descriptor {
    /// Describes content by the three required properties.
    pub fn new(media_type: impl Into<MediaType>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
            data: None,
        }
    }

    /// Describes bytes that are at hand.
    pub fn of(media_type: impl Into<MediaType>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// Returns the key of the ingest that brings this content, the same for everybody who fetches it, so that
    /// anyone can find its status: `layer-sha256:…`, `manifest-sha256:…`.
    pub fn ingest_ref(&self) -> IngestRef {
        let role = match self.media_type.role() {
            Role::Index => "index",
            Role::Manifest | Role::Schema1 => "manifest",
            Role::Config => "config",
            Role::Layer(_) => "layer",
            Role::Opaque => "unknown",
        };
        IngestRef::for_content(role, &self.digest)
    }
}
