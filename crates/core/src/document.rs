//! The JSON documents of an image: index, manifest, config.
//!
//! Parsed leniently (OCI and Docker differ in small things) and never written back: the bytes that came are the bytes
//! that are kept, because their digest is their name. OCI image-spec: `image-index.md`, `manifest.md`, `config.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::gc::{ChildKind, content_label};
use crate::label::Labels;
use crate::media_type::{MediaType, Role};
use crate::platform::Platform;

/// The largest manifest or index that is read, in bytes: OCI distribution-spec asks registries for 4 MiB.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// What to do about a document that no registry changed, because its digest is right.
const PUSHED_DAMAGED: &str = "the image was pushed damaged; its publisher has to push it again";

/// The largest image config that is read, in bytes.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// A list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// The index's own media type, which older ones leave out.
    #[serde(default)]
    pub media_type: Option<MediaType>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// A config and the layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The manifest's own media type, which older ones leave out.
    #[serde(default)]
    pub media_type: Option<MediaType>,
    /// The type of an artifact.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// What the manifest is attached to.
    #[serde(default)]
    pub subject: Option<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// What an image config says that this engine acts on; a runtime reads the rest from the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// What the image runs on.
    #[serde(flatten)]
    pub platform: ConfigPlatform,
    /// When the image was made, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// The layers' identities.
    pub rootfs: RootFs,
}

/// The platform of a config: its parts are often left empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPlatform {
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The architecture.
    #[serde(default)]
    pub architecture: String,
    /// The variant of the architecture.
    #[serde(default)]
    pub variant: Option<String>,
}

/// The layers' identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// The digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<DiffId>,
}

/// A document that can stand at the root of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one is parsed at a time and taken apart at once")]
pub enum Root {
    /// A list of manifests.
    Index(Index),
    /// One image, or an artifact.
    Manifest(Manifest),
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The keys that tell an index from a manifest, whatever a header says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<MediaType>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Root {
    /// Parses an index or a manifest as what its descriptor says it is.
    ///
    /// # Errors
    /// `InvalidArgument` for bytes that are not such a document, `Unimplemented` for a schema 1 manifest, and
    /// `FailedPrecondition` for a document that could be read as both or that contradicts its media type
    /// (CVE-2021-41190).
    pub fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Self> {
        let what = format!("{} {}", descriptor.media_type, descriptor.digest);
        let shape: Shape = serde_json::from_slice(bytes).map_err(|e| malformed(&what, &e))?;
        let role = descriptor.media_type.role();
        if role == Role::Schema1 || shape.schema_version == Some(1) || shape.fs_layers.is_some() {
            return Err(Error::unimplemented(format!("{what} is a Docker schema 1 manifest, which is not supported"))
                .hint("push the image again with a current client; Docker stopped writing this format in 2017"));
        }
        if let Some(inner) = &shape.media_type
            && inner != &descriptor.media_type
        {
            return Err(contradictory(format!("{what} says of itself that it is {inner}")));
        }
        match (role, shape.manifests.is_some(), shape.layers.is_some() || shape.config.is_some()) {
            (_, true, true) => Err(contradictory(format!("{what} is ambiguous: it has manifests and layers"))),
            (Role::Index, true, false) => {
                serde_json::from_slice(bytes).map(Self::Index).map_err(|e| malformed(&what, &e))
            }
            (Role::Manifest, false, true) => {
                serde_json::from_slice(bytes).map(Self::Manifest).map_err(|e| malformed(&what, &e))
            }
            (Role::Index, ..) => Err(contradictory(format!("{what} has no manifests"))),
            (Role::Manifest, ..) => Err(contradictory(format!("{what} has no config and layers"))),
            _ => Err(Error::unimplemented(format!("{what} is neither an index nor a manifest"))
                .hint("`dist fetch-object` prints the object as it is")),
        }
    }
}

impl Root {
    /// Returns everything that the document refers to, in its order; a config comes before the layers.
    pub fn children(&self) -> Vec<Descriptor> {
        match self {
            Self::Index(index) => index.manifests.clone(),
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).cloned().collect(),
        }
    }

    /// Returns the labels with which the document keeps what it refers to alive.
    pub fn child_labels(&self) -> Labels {
        let label = |kind, position, child: &Descriptor| (content_label(kind, position), child.digest.to_string());
        match self {
            Self::Index(index) => {
                index.manifests.iter().enumerate().map(|(at, child)| label(ChildKind::Manifest, at, child)).collect()
            }
            Self::Manifest(manifest) => std::iter::once(label(ChildKind::Config, 0, &manifest.config))
                .chain(manifest.layers.iter().enumerate().map(|(at, child)| label(ChildKind::Layer, at, child)))
                .collect(),
        }
    }
}

impl Index {
    /// Parses an index.
    pub fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Self> {
        match Root::parse(descriptor, bytes)? {
            Root::Index(index) => Ok(index),
            Root::Manifest(_) => Err(Error::failed_precondition(format!("{} is not an index", descriptor.digest))),
        }
    }
}

impl Manifest {
    /// Parses a manifest.
    pub fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Self> {
        match Root::parse(descriptor, bytes)? {
            Root::Manifest(manifest) => Ok(manifest),
            Root::Index(_) => Err(Error::failed_precondition(format!("{} is not a manifest", descriptor.digest))),
        }
    }

    /// Tells whether this is a runnable image: its config is an image config. An artifact has no root filesystem.
    pub fn is_image(&self) -> bool {
        self.config.media_type.role() == Role::Config
    }
}

impl ImageConfig {
    /// Parses an image config.
    pub fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| malformed(&format!("image config {}", descriptor.digest), &e))
    }

    /// Returns the platform, when both of its parts are given.
    pub fn platform(&self) -> Option<Platform> {
        let ConfigPlatform { os, architecture, variant } = &self.platform;
        (!os.is_empty() && !architecture.is_empty()).then(|| Platform::new(os, architecture, variant.as_deref()))
    }
}

fn malformed(what: &str, error: &serde_json::Error) -> Error {
    Error::invalid_argument(format!("{what} is malformed: {error}")).hint(PUSHED_DAMAGED)
}

fn contradictory(problem: String) -> Error {
    Error::failed_precondition(problem).hint(PUSHED_DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn parse(media_type: &str, json: &str) -> Result<Root> {
        Root::parse(&Descriptor::of(media_type, json.as_bytes()), json.as_bytes())
    }

    #[test]
    fn documents_that_contradict_themselves_are_refused() {
        let config = format!(
            r#"{{"mediaType":"{}","digest":"{}","size":2}}"#,
            MediaType::OCI_CONFIG,
            crate::Digest::sha256(b"{}")
        );
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":null}}"#);
        assert!(matches!(parse(MediaType::OCI_MANIFEST, &manifest), Ok(Root::Manifest(m)) if m.layers.is_empty()));
        assert!(matches!(parse(MediaType::OCI_INDEX, r#"{"manifests":[]}"#), Ok(Root::Index(_))));

        let both = format!(r#"{{"config":{config},"layers":[],"manifests":[]}}"#);
        let kinds = [
            (MediaType::OCI_MANIFEST, both.as_str(), Kind::FailedPrecondition),
            (MediaType::OCI_INDEX, &manifest, Kind::FailedPrecondition),
            (MediaType::OCI_MANIFEST, r#"{"manifests":[]}"#, Kind::FailedPrecondition),
            (MediaType::OCI_MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#, Kind::Unimplemented),
            (MediaType::OCI_MANIFEST, "{", Kind::InvalidArgument),
            (MediaType::OCI_MANIFEST, "\"text\"", Kind::InvalidArgument),
        ];
        for (media_type, json, kind) in kinds {
            assert_eq!(parse(media_type, json).unwrap_err().kind(), kind, "{json}");
        }
        let lies = format!(r#"{{"mediaType":"{}","config":{config}}}"#, MediaType::DOCKER_MANIFEST);
        assert_eq!(parse(MediaType::OCI_MANIFEST, &lies).unwrap_err().kind(), Kind::FailedPrecondition);
    }
}
