//! What strangers send, and files that anybody may have written: no parser panics, whatever it is given, and what is
//! accepted holds together. One program for all of them, because most are small: the first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_core::document::{ImageConfig, Root};
use windlass_core::{Descriptor, Error, MediaType};
use windlass_registry::fuzzing;
use windlass_transfer::verify::cosign::Key;
use windlass_transfer::verify::policy::Policy;

fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap(),
    }
}

/// Manifests and indexes, of the type that a registry may say.
fn manifest(bytes: &[u8]) {
    for media_type in MediaType::MANIFESTS {
        let descriptor = Descriptor::of(media_type, bytes);
        if let Ok(root) = Root::parse(&descriptor, bytes) {
            // Labels keep every child, and nothing else.
            assert!(root.child_labels().iter().count() <= root.children().len());
        }
    }
    let _ = ImageConfig::parse(&Descriptor::of(MediaType::OCI_CONFIG, bytes), bytes);
}

/// A policy, whose keys are all there or all missing.
fn policy(bytes: &[u8]) {
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEcXAmzKid78TYmzGf4O0d+bhL0yAE\n\
        uzta6u8CSrpgJ5ONsAhjdKuvFMnlvjGcFOyzCd4QbOQq4CDwOCsGM7YGvA==\n\
        -----END PUBLIC KEY-----\n";
    let with = Policy::parse(text(bytes), "policy.toml", &|_| Ok(PEM.into()));
    let without = Policy::parse(text(bytes), "policy.toml", &|_| Err(Error::not_found("no key")));
    // Keys that are missing make no policy of what is none.
    assert!(with.is_ok() || without.is_err());
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 10 {
        0 => fuzzing::challenges(text(data)),
        1 => fuzzing::link(text(data)),
        2 => fuzzing::tags(data),
        3 => fuzzing::referrers(data),
        4 => fuzzing::docker_config(data),
        5 => fuzzing::certificate(data),
        6 => manifest(data),
        7 => policy(data),
        8 => fuzzing::hosts(text(data)),
        _ => drop(Key::from_pem("fuzz.pub", data)),
    }
});
