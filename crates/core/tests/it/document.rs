//! Documents from a remote: no bytes make a parser panic.

use proptest::prelude::*;
use windlass_core::document::{ImageConfig, Root};
use windlass_core::{Descriptor, MediaType};

/// Text that is JSON with the keys that matter, or nearly.
fn nearly() -> impl Strategy<Value = String> {
    let digest = format!(r#""sha256:{}""#, "0".repeat(64));
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("1".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("\"\"".to_owned()),
        Just(digest.clone()),
        Just(format!(r#"{{"mediaType":"{}","digest":{digest},"size":2}}"#, MediaType::OCI_CONFIG)),
        Just(format!(r#"[{{"mediaType":"{}","digest":{digest},"size":2,"annotations":null}}]"#, MediaType::OCI_LAYER)),
        Just(format!(r#"{{"type":"layers","diff_ids":[{digest}]}}"#)),
        Just(format!("\"{}\"", MediaType::OCI_MANIFEST)),
        Just("[".repeat(200)),
    ];
    let key = prop_oneof![
        Just("schemaVersion"),
        Just("mediaType"),
        Just("manifests"),
        Just("layers"),
        Just("config"),
        Just("fsLayers"),
        Just("rootfs"),
        Just("os"),
        Just("architecture"),
        Just("variant"),
        Just("annotations"),
        Just("subject"),
    ];
    let members = proptest::collection::vec((key, value), 0..6);
    members.prop_map(|members| {
        let members: Vec<String> = members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn check(bytes: &[u8]) {
    for media_type in MediaType::MANIFESTS.into_iter().chain([MediaType::OCTET_STREAM, MediaType::DOCKER_SCHEMA1]) {
        let descriptor = Descriptor::of(media_type, bytes);
        match Root::parse(&descriptor, bytes) {
            Ok(Root::Index(_)) => assert!([MediaType::OCI_INDEX, MediaType::DOCKER_LIST].contains(&media_type)),
            Ok(Root::Manifest(_)) => {
                assert!([MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST].contains(&media_type));
            }
            Err(error) => assert!(error.to_string().contains(&descriptor.digest.to_string()), "{error}"),
        }
    }
    if let Ok(config) = ImageConfig::parse(&Descriptor::of(MediaType::OCI_CONFIG, bytes), bytes) {
        let _ = config.platform();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_document_or_refused(bytes in any::<Vec<u8>>()) {
        check(&bytes);
    }

    #[test]
    fn what_looks_like_a_document_is_one_or_refused(text in nearly()) {
        check(text.as_bytes());
    }
}
