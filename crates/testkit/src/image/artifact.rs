//! What is no image but lives where images do.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use windlass_core::{Descriptor, Digest, MediaType};

use super::bundle::{Bundle, Parts};

/// Makes an artifact: a manifest with an empty config and blobs of any type. OCI image-spec, `manifest.md`, "Guidelines
/// for Artifact Usage".
pub fn artifact(artifact_type: &str, contents: &[(&str, &[u8])]) -> Bundle {
    attached(artifact_type, None, contents)
}

/// Makes an artifact that is attached to something: its subject.
pub fn artifact_of(artifact_type: &str, subject: &Descriptor, contents: &[(&str, &[u8])]) -> Bundle {
    attached(artifact_type, Some(subject), contents)
}

fn attached(artifact_type: &str, subject: Option<&Descriptor>, contents: &[(&str, &[u8])]) -> Bundle {
    let mut blobs = BTreeMap::new();
    let mut keep = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        blobs.insert(descriptor.digest.clone(), Bytes::copy_from_slice(bytes));
        descriptor
    };
    let config = keep(MediaType::OCI_EMPTY, b"{}");
    let layers: Vec<Descriptor> = contents.iter().map(|(media_type, bytes)| keep(media_type, bytes)).collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config,
        "layers": layers,
    });
    if let (Some(subject), Some(manifest)) = (subject, manifest.as_object_mut()) {
        manifest.insert("subject".to_owned(), json!(subject));
    }
    let root = keep(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes());
    let parts = Parts { manifest: root.clone(), config, layers, diff_ids: Vec::new() };
    Bundle { root, images: vec![parts], blobs }
}

/// Makes a manifest of the format that is refused. distribution, `manifest-v2-1.md`.
pub fn schema1(name: &str, tag: &str) -> Bundle {
    let manifest = json!({
        "schemaVersion": 1,
        "name": name,
        "tag": tag,
        "architecture": "amd64",
        "fsLayers": [{ "blobSum": Digest::sha256(b"a layer") }],
        "history": [{ "v1Compatibility": "{}" }],
    });
    let bytes: Bytes = manifest.to_string().into();
    let root = Descriptor::of(MediaType::DOCKER_SCHEMA1_SIGNED, &bytes);
    Bundle { blobs: BTreeMap::from([(root.digest.clone(), bytes)]), root, images: Vec::new() }
}
