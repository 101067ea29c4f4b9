//! Signatures as cosign makes them with a key pair: cosign, `specs/SIGNATURE_SPEC.md`. Keys are new each time.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::json;
use windlass_core::{Descriptor, Digest, MediaType};

use super::bundle::Bundle;

/// Who signs.
#[derive(Debug)]
pub struct Signer(KeyPair);

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl Signer {
    /// Makes one with a key pair of its own: ECDSA over P-256.
    pub fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    /// Returns the public key in PEM.
    pub fn public_key(&self) -> String {
        self.0.public_key_pem()
    }

    /// Signs an image.
    pub fn sign(&self, image: &Digest) -> Signature {
        self.sign_payload(payload(image))
    }

    /// Signs any payload.
    pub fn sign_payload(&self, payload: impl Into<Bytes>) -> Signature {
        let payload = payload.into();
        let signature = STANDARD.encode(self.0.sign(&payload).unwrap());
        Signature { payload, signature }
    }
}

/// A payload and its signature.
#[derive(Debug, Clone)]
pub struct Signature {
    /// What is signed.
    pub payload: Bytes,
    /// The signature, base64.
    pub signature: String,
}

/// Returns the payload that says that an image is signed.
pub fn payload(image: &Digest) -> Bytes {
    let critical = json!({
        "identity": { "docker-reference": "" },
        "image": { "docker-manifest-digest": image },
        "type": "cosign container image signature",
    });
    json!({ "critical": critical, "optional": null }).to_string().into()
}

/// Makes the manifest that is put under the tag of an image's signatures.
pub fn signatures(signatures: &[Signature]) -> Bundle {
    let mut blobs = BTreeMap::new();
    let mut keep = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        blobs.insert(descriptor.digest.clone(), Bytes::copy_from_slice(bytes));
        descriptor
    };
    let layers: Vec<Descriptor> = signatures
        .iter()
        .map(|Signature { payload, signature }| {
            let mut layer = keep("application/vnd.dev.cosign.simplesigning.v1+json", payload);
            layer.annotations.insert("dev.cosignproject.cosign/signature".to_owned(), signature.clone());
            layer
        })
        .collect();
    let config =
        keep(MediaType::OCI_CONFIG, br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}"#);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": config,
        "layers": layers,
    });
    let root = keep(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes());
    Bundle { root, images: Vec::new(), blobs }
}
