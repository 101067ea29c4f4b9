//! What an OCI layout says of itself. OCI image-spec, `image-layout.md`.

use bytes::Bytes;
use windlass_core::content::IngesterExt as _;
use windlass_core::document::Index;
use windlass_core::{Descriptor, Labels, Leased, MediaType, Result, image};

use super::arrive::Arrived;
use super::names::malformed;
use super::{NAME_ANNOTATION, Naming, REF_NAME_ANNOTATION};

/// Returns what the index lists, with the names that are wanted.
pub(super) async fn targets(
    leased: &Leased,
    arrived: &Arrived,
    index: &Bytes,
    naming: &Naming,
) -> Result<Vec<(Descriptor, Vec<image::Name>)>> {
    let mut targets = Vec::new();
    let itself = Descriptor::of(MediaType::OCI_INDEX, index);
    for descriptor in self::index(index)?.manifests {
        if !descriptor.media_type.is_manifest_or_index() {
            tracing::warn!(digest = %descriptor.digest, media_type = %descriptor.media_type, "left out: it is no image");
            continue;
        }
        let given = [NAME_ANNOTATION, REF_NAME_ANNOTATION].iter().find_map(|key| descriptor.annotations.get(*key));
        let names = naming.names(given.map(String::as_str), &descriptor.digest)?;
        check(arrived, &descriptor)?;
        // What an archive calls an image is not a part of it.
        let mut target = descriptor;
        target.annotations.remove(NAME_ANNOTATION);
        target.annotations.remove(REF_NAME_ANNOTATION);
        targets.push((target, names));
    }
    if let Some(name) = &naming.index {
        leased.content.write_blob(&itself, index.clone(), Labels::new()).await?;
        targets.push((itself, vec![name.clone()]));
    }
    Ok(targets)
}

/// Reads `index.json`.
pub(super) fn index(bytes: &Bytes) -> Result<Index> {
    let itself = Descriptor::of(MediaType::OCI_INDEX, bytes);
    Index::parse(&itself, bytes).map_err(|error| malformed("index.json", error))
}

/// Checks the size that the index says of a blob that the archive has.
fn check(arrived: &Arrived, descriptor: &Descriptor) -> Result<()> {
    let path = format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex());
    match arrived.files.get(&path) {
        Some(found) if found.size != descriptor.size => Err(malformed(
            "index.json",
            format!("it says that {path} has {} bytes, and it has {}", descriptor.size, found.size),
        )),
        _ => Ok(()),
    }
}
