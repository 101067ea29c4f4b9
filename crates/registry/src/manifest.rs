//! What the bytes of a manifest say they are, for when nobody else says.

use serde::Deserialize;
use serde::de::IgnoredAny;
use windlass_core::media_type::Role;
use windlass_core::{Error, MediaType, Result};

/// Media types that say nothing: what a file server or a careless registry calls everything.
const GENERIC: [&str; 4] = ["", "application/json", "text/plain", MediaType::OCTET_STREAM];

/// The keys by which the kinds of manifests are told apart.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<MediaType>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Tells whether a declared media type says what something is.
pub(crate) fn is_telling(media_type: &MediaType) -> bool {
    !GENERIC.contains(&media_type.as_str())
}

/// Returns the media type of a manifest: the declared one when it is telling, otherwise what the bytes say.
///
/// # Errors
/// `Unimplemented` for Docker's schema 1, `InvalidArgument` for bytes that are no manifest and were not declared as
/// anything; `what` is for messages.
pub(crate) fn media_type(what: &str, declared: &MediaType, bytes: &[u8]) -> Result<MediaType> {
    let shape: Shape = serde_json::from_slice(bytes).unwrap_or_default();
    let is_schema1 = shape.schema_version == Some(1) || shape.fs_layers.is_some();
    refuse_schema1(what, declared)?;
    if is_telling(declared) && !(declared.is_manifest_or_index() && is_schema1) {
        return Ok(declared.clone());
    }
    if is_schema1 {
        return Err(schema1(what));
    }
    if let Some(own) = shape.media_type.filter(is_telling) {
        return Ok(own);
    }
    match (shape.manifests.is_some(), shape.layers.is_some() || shape.config.is_some()) {
        (true, false) => Ok(MediaType::OCI_INDEX.into()),
        (false, true) => Ok(MediaType::OCI_MANIFEST.into()),
        _ => Err(Error::invalid_argument(format!("{what} is not a manifest"))
            .coded("not-a-manifest")
            .hint("what is there was not written by a container tool; check the reference")),
    }
}

/// Refuses Docker's schema 1 by its media type.
pub(crate) fn refuse_schema1(what: &str, media_type: &MediaType) -> Result<()> {
    if media_type.role() == Role::Schema1 { Err(schema1(what)) } else { Ok(()) }
}

fn schema1(what: &str) -> Error {
    Error::unimplemented(format!("{what} is a Docker schema 1 manifest, which is not supported"))
        .coded("schema1")
        .hint("push the image again with a current client; Docker stopped writing this format in 2017")
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    fn sniff(declared: &str, json: &str) -> Result<MediaType> {
        media_type("tag \"7\"", &declared.into(), json.as_bytes())
    }

    #[test]
    fn a_telling_declaration_stands_and_the_bytes_speak_otherwise() {
        let docker = format!(r#"{{"schemaVersion":2,"mediaType":"{}","layers":[]}}"#, MediaType::DOCKER_MANIFEST);
        assert_eq!(sniff(MediaType::OCI_MANIFEST, &docker).unwrap().as_str(), MediaType::OCI_MANIFEST);
        assert_eq!(sniff("application/json", &docker).unwrap().as_str(), MediaType::DOCKER_MANIFEST);
        assert_eq!(sniff("", r#"{"schemaVersion":2,"manifests":[]}"#).unwrap().as_str(), MediaType::OCI_INDEX);
        assert_eq!(sniff("text/plain", r#"{"config":{}}"#).unwrap().as_str(), MediaType::OCI_MANIFEST);
        assert_eq!(sniff("application/vnd.example+json", "{}").unwrap().as_str(), "application/vnd.example+json");
    }

    #[test]
    fn schema_1_is_refused_however_it_is_declared() {
        let schema1 = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        let declared = [
            MediaType::DOCKER_SCHEMA1,
            MediaType::DOCKER_SCHEMA1_SIGNED,
            "application/json",
            MediaType::DOCKER_MANIFEST,
        ];
        for declared in declared {
            assert_eq!(sniff(declared, schema1).unwrap_err().kind(), Kind::Unimplemented, "{declared}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for json in ["<html>", "{}", r#"{"manifests":[],"layers":[]}"#] {
            assert_eq!(sniff("text/plain", json).unwrap_err().kind(), Kind::InvalidArgument, "{json}");
        }
    }
}
