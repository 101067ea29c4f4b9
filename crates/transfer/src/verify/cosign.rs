//! Signatures that cosign makes with a key pair, checked without asking anybody but the repository.
//!
//! The signatures of an image are a manifest of their own under the tag `ALGORITHM-HEX.sig`. Each layer of it is a payload,
//! a small JSON document that names the digest of what is signed, with the signature of its bytes in an annotation.
//! cosign, `specs/SIGNATURE_SPEC.md`; the payload is containers/image's "simple signing", `docs/containers-signature.5.md`.
//!
//! Not here: certificates and transparency logs ("keyless"), which need an authority to ask.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use windlass_core::document::{MAX_MANIFEST_SIZE, Manifest};
use windlass_core::{Descriptor, Digest, Error, Kind, Result, ResultExt as _};

use super::{Documents, Subject};
use crate::referrers;

/// The annotation of a payload with its signature, base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The media type of a payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What a payload says that it is.
const PAYLOAD_KIND: &str = "cosign container image signature";
/// The largest payload that is read, in bytes: usual ones have 300.
const MAX_PAYLOAD: u64 = 64 << 10;
/// How many signatures of an image are looked at.
const MAX_SIGNATURES: usize = 64;
/// What stands before the point of a P-256 key in a `SubjectPublicKeyInfo`: RFC 5480 section 2, in DER.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: a mark and two coordinates. SEC 1 section 2.3.3.
const POINT: usize = 65;

/// A public key: ECDSA over P-256, with SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What messages call it.
    pub name: String,
    point: Vec<u8>,
}

impl Key {
    /// Reads a key in PEM (RFC 7468, `PUBLIC KEY`), as `cosign generate-key-pair` writes `cosign.pub`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no key, or one of another kind.
    pub fn from_pem(name: &str, pem: &[u8]) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid_argument(format!("key {name} {what}"))
                .hint("a key is the cosign.pub of `cosign generate-key-pair`: PEM, ECDSA over P-256")
        };
        let text = std::str::from_utf8(pem).map_err(|_| wrong("is no text"))?;
        let inner = text
            .split_once("-----BEGIN PUBLIC KEY-----")
            .and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY-----"))
            .ok_or_else(|| wrong("is no public key in PEM"))?
            .0;
        let inner: String = inner.split_ascii_whitespace().collect();
        let der = STANDARD.decode(inner).map_err(|_| wrong("is damaged: its PEM is not base64"))?;
        match der.strip_prefix(&P256_HEAD) {
            Some(point) if point.len() == POINT && point.first() == Some(&4) => {
                Ok(Self { name: name.to_owned(), point: point.to_owned() })
            }
            _ => Err(wrong("is of another kind than ECDSA over P-256")),
        }
    }

    fn made(&self, signature: &[u8], payload: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(payload, signature).is_ok()
    }
}

/// What came of looking for a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// That key has signed the image.
    By(String),
    /// None has, for this reason.
    Not(String),
}

/// Returns the tag under which the signatures of something are.
pub fn tag(digest: &Digest) -> String {
    referrers::tag(digest, referrers::SIGNATURES)
}

/// Looks for a signature that one of the keys has made of the image.
///
/// # Errors
/// Those of the documents. A signature that is not right is no error.
pub async fn verify(keys: &[Key], subject: &Subject<'_>, documents: &dyn Documents) -> Result<Signed> {
    let tag = tag(&subject.descriptor.digest);
    let Some(descriptor) = documents.tagged(&tag).await.context(|| format!("look for signatures at tag {tag}"))? else {
        return Ok(Signed::Not(format!("it has no signature: there is no tag {tag} beside it")));
    };
    let bytes = match documents.read(&descriptor, MAX_MANIFEST_SIZE).await {
        Ok(bytes) => bytes,
        Err(error) => return not_because(error, &format!("the list of its signatures, {tag},")),
    };
    let signatures = match Manifest::parse(&descriptor, &bytes) {
        Ok(manifest) => manifest.layers,
        Err(error) => return Ok(Signed::Not(format!("what is at {tag} is no list of signatures: {error}"))),
    };
    let mut reasons = Vec::new();
    for (number, payload) in (1..).zip(signatures.iter().take(MAX_SIGNATURES)) {
        match one(keys, subject, payload, documents).await.context(|| format!("read signature {number} at {tag}"))? {
            Signed::Not(reason) => reasons.push(format!("signature {number} at {tag} {reason}")),
            by @ Signed::By(_) => return Ok(by),
        }
    }
    if signatures.len() > MAX_SIGNATURES {
        reasons.push(format!("{} more were not looked at", signatures.len() - MAX_SIGNATURES));
    }
    if reasons.is_empty() {
        reasons.push(format!("it has no signature: the list at {tag} is empty"));
    }
    Ok(Signed::Not(reasons.join("; ")))
}

/// Bytes that are not what they are called are a reason; that nothing can be read is an error.
fn not_because(error: Error, what: &str) -> Result<Signed> {
    match error.kind() {
        Kind::DataLoss => Ok(Signed::Not(format!("{what} was changed: {error}"))),
        Kind::NotFound => Ok(Signed::Not(format!("{what} is missing: {error}"))),
        Kind::ResourceExhausted => Ok(Signed::Not(format!("{what} is too large: {error}"))),
        _ => Err(error),
    }
}

/// The part of a payload that is looked at.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Looks at one signature; the reason goes on behind what it is called.
async fn one(keys: &[Key], subject: &Subject<'_>, payload: &Descriptor, documents: &dyn Documents) -> Result<Signed> {
    let not = |reason: &str| Ok(Signed::Not(reason.to_owned()));
    if payload.media_type.as_str() != PAYLOAD_TYPE {
        return Ok(Signed::Not(format!("is of the unknown kind {}", payload.media_type)));
    }
    let Some(signature) = payload.annotations.get(SIGNATURE_ANNOTATION) else {
        return not("has no signature in its annotations");
    };
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return not("is not base64") };
    let bytes = match documents.read(payload, MAX_PAYLOAD).await {
        Ok(bytes) => bytes,
        Err(error) => return not_because(error, "is not to be had as it was made: its payload"),
    };
    let Some(key) = keys.iter().find(|key| key.made(&signature, &bytes)) else {
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        return Ok(Signed::Not(format!(
            "was not made by {}: another key made it, or its payload was changed since",
            names.join(" or ")
        )));
    };
    let Ok(Payload { critical }) = serde_json::from_slice::<Payload>(&bytes) else {
        return not("is right, and its payload is none that says what is signed");
    };
    if critical.kind != PAYLOAD_KIND {
        return Ok(Signed::Not(format!("is right, and of something else: a {:?}", critical.kind)));
    }
    if critical.image.digest != subject.descriptor.digest.to_string() {
        return Ok(Signed::Not(format!("is right, and of another image: {:?}", critical.image.digest)));
    }
    Ok(Signed::By(key.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ecparam -name prime256v1 -genkey` and `openssl ec -pubout`.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEcXAmzKid78TYmzGf4O0d+bhL0yAE\n\
        uzta6u8CSrpgJ5ONsAhjdKuvFMnlvjGcFOyzCd4QbOQq4CDwOCsGM7YGvA==\n\
        -----END PUBLIC KEY-----";
    /// `openssl dgst -sha256 -sign` of `PAYLOAD`, base64.
    const SIGNATURE: &str =
        "MEQCIE2IPSYnZXkv+QpH4IvWcHZVjNBUigv4UHYD8vnyiux5AiAf5TygWVPD+yBxN/IsrHrxD4h2Vwf6kaXbaAJt89Y7Ng==";
    const PAYLOAD: &[u8] = b"what openssl signs";

    #[test]
    fn what_openssl_signs_is_verified() {
        let key = Key::from_pem("test.pub", KEY.as_bytes()).unwrap();
        let signature = STANDARD.decode(SIGNATURE).unwrap();
        assert!(key.made(&signature, PAYLOAD));
        assert!(!key.made(&signature, b"what openssl sings"));
        assert!(!key.made(&signature[1..], PAYLOAD));
    }

    #[test]
    fn keys_of_other_kinds_and_no_keys_are_refused() {
        let cut = KEY.replace("MFkw", "MFk");
        let rsa = "-----BEGIN PUBLIC KEY-----\nMDwwDQYJKoZIhvcNAQEBBQADKwAwKAIhAMOL\n-----END PUBLIC KEY-----";
        let private = KEY.replace("PUBLIC", "PRIVATE");
        for pem in ["", "KEY", &cut, rsa, &private] {
            let error = Key::from_pem("test.pub", pem.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{pem}");
            assert!(error.hint_text().is_some());
        }
    }
}
