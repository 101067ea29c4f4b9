//! What changes in documents: as little as need be, in the JSON that there is.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_core::media_type::Compression;
use windlass_core::{Descriptor, MediaType};

use super::Family;

/// Which manifest an attestation is of, as BuildKit writes it.
const REFERENCE: &str = "vnd.docker.reference.digest";

/// What says where things are in the compressed bytes of a layer: of eStargz and of zstd:chunked.
const OFFSETS: [&str; 2] = ["containerd.io/snapshot/stargz/", "io.github.containers.zstd-chunked."];

/// Media types that say the same, OCI's and Docker's.
const PAIRS: [(&str, &str); 6] = [
    (MediaType::OCI_INDEX, MediaType::DOCKER_LIST),
    (MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST),
    (MediaType::OCI_CONFIG, MediaType::DOCKER_CONFIG),
    (MediaType::OCI_LAYER, MediaType::DOCKER_LAYER),
    (MediaType::OCI_LAYER_GZIP, MediaType::DOCKER_LAYER_GZIP),
    (MediaType::OCI_LAYER_ZSTD, MediaType::DOCKER_LAYER_ZSTD),
];

/// Returns the media type of a family that says the same; one that has no counterpart stays.
pub(super) fn of_family(media_type: &MediaType, family: Option<Family>) -> MediaType {
    let other = match family {
        None => None,
        Some(Family::Oci) => PAIRS.iter().find(|(_, docker)| *docker == media_type.as_str()).map(|(oci, _)| *oci),
        Some(Family::Docker) => PAIRS.iter().find(|(oci, _)| *oci == media_type.as_str()).map(|(_, docker)| *docker),
    };
    other.map_or_else(|| media_type.clone(), MediaType::new)
}

/// Returns the media type of a layer compressed otherwise.
pub(super) fn compressed(media_type: &MediaType, compression: Compression) -> MediaType {
    let text = media_type.as_str();
    let plain =
        ["+gzip", "+zstd", ".gzip", ".zstd"].iter().find_map(|suffix| text.strip_suffix(suffix)).unwrap_or(text);
    let joint = if plain.starts_with("application/vnd.docker.") { '.' } else { '+' };
    MediaType::new(match compression {
        Compression::None => plain.to_owned(),
        Compression::Gzip => format!("{plain}{joint}gzip"),
        Compression::Zstd => format!("{plain}{joint}zstd"),
    })
}

/// Removes what said where things were in the bytes that a layer had.
pub(super) fn forget_offsets(layer: &mut Descriptor) {
    layer.annotations.retain(|key, _| !OFFSETS.iter().any(|prefix| key.starts_with(prefix)));
    layer.urls.clear();
}

/// Has an attestation refer to what became of its manifest.
pub(super) fn refer_to_converted(child: &mut Descriptor, became: &BTreeMap<String, String>) {
    if let Some(reference) = child.annotations.get_mut(REFERENCE)
        && let Some(converted) = became.get(reference)
    {
        reference.clone_from(converted);
    }
}

/// Leaves those manifests in an index, as they became.
pub(super) fn set_manifests(document: &mut Value, children: &[(usize, Descriptor)]) {
    let Some(manifests) = document.get_mut("manifests").and_then(Value::as_array_mut) else { return };
    let kept = children.iter().filter_map(|(at, child)| {
        let mut entry = manifests.get(*at)?.clone();
        set_descriptor(&mut entry, child);
        Some(entry)
    });
    *manifests = kept.collect();
}

/// Replaces the layers of a manifest.
pub(super) fn set_layers(document: &mut Value, layers: &[Descriptor]) {
    let entries = document.get_mut("layers").and_then(Value::as_array_mut);
    for (entry, layer) in entries.into_iter().flatten().zip(layers) {
        set_descriptor(entry, layer);
    }
}

/// Gives the config the media type of a family.
pub(super) fn set_config(document: &mut Value, family: Option<Family>) {
    if let Some(media_type) = document.pointer_mut("/config/mediaType")
        && let Some(text) = media_type.as_str()
    {
        *media_type = json!(of_family(&MediaType::new(text), family));
    }
}

/// Has a document say of itself what it is; one of OCI that does not say it need not begin to.
pub(super) fn set_media_type(document: &mut Value, media_type: &MediaType) {
    let docker = media_type.as_str().starts_with("application/vnd.docker.");
    if let Some(object) = document.as_object_mut()
        && (docker || object.contains_key("mediaType"))
    {
        object.insert("mediaType".to_owned(), json!(media_type));
    }
}

/// Changes what is known of an entry, and leaves the rest of it.
fn set_descriptor(entry: &mut Value, descriptor: &Descriptor) {
    let Some(object) = entry.as_object_mut() else { return };
    object.insert("mediaType".to_owned(), json!(descriptor.media_type));
    object.insert("digest".to_owned(), json!(descriptor.digest));
    object.insert("size".to_owned(), json!(descriptor.size));
    for (key, is_empty, value) in [
        ("annotations", descriptor.annotations.is_empty(), json!(descriptor.annotations)),
        ("urls", descriptor.urls.is_empty(), json!(descriptor.urls)),
    ] {
        if is_empty {
            object.remove(key);
        } else {
            object.insert(key.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_change_in_their_family() {
        let compressed = |text: &str, compression| compressed(&text.into(), compression).to_string();
        assert_eq!(compressed(MediaType::OCI_LAYER_GZIP, Compression::Zstd), MediaType::OCI_LAYER_ZSTD);
        assert_eq!(compressed(MediaType::DOCKER_LAYER_GZIP, Compression::None), MediaType::DOCKER_LAYER);
        assert_eq!(compressed(MediaType::DOCKER_LAYER, Compression::Gzip), MediaType::DOCKER_LAYER_GZIP);
        for (oci, docker) in PAIRS {
            assert_eq!(of_family(&oci.into(), Some(Family::Docker)).as_str(), docker);
            assert_eq!(of_family(&docker.into(), Some(Family::Oci)).as_str(), oci);
            assert_eq!(of_family(&docker.into(), None).as_str(), docker);
        }
    }

    #[test]
    fn what_is_not_known_stays() {
        let mut entry = json!({"mediaType": "a", "digest": "b", "size": 1, "unknown": {"x": 1}, "urls": ["u"]});
        let descriptor = Descriptor::of("c", b"");
        set_descriptor(&mut entry, &descriptor);
        let digest = descriptor.digest.to_string();
        assert_eq!(entry, json!({"mediaType": "c", "digest": digest, "size": 0, "unknown": {"x": 1}}));
    }
}
