//! The documents of images: whether what they refer to is kept alive by their records' labels.

use std::collections::BTreeSet;
use std::path::Path;

use windlass_core::document::{MAX_MANIFEST_SIZE, Root};
use windlass_core::fsck::{Finding, Problem};
use windlass_core::gc::Edges;
use windlass_core::media_type::Role;
use windlass_core::{Descriptor, Namespace, Result};

use crate::db::schema::{CONTENTS, IMAGES};
use crate::db::{Key, View, node, text_of};

/// Walks from every image to the documents below it. A document that cannot be read or is not what it should be has been
/// found by others.
pub(super) fn compare(root: &Path, view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    let mut seen = BTreeSet::new();
    IMAGES.each(view, "", |record, image| {
        let (Some((namespace, _)), Ok(image)) = (super::nodes::split(record), image) else { return Ok(()) };
        let mut open = vec![image.target];
        while let Some(descriptor) = open.pop() {
            if !seen.insert((namespace.clone(), descriptor.digest.clone())) {
                continue;
            }
            if let Some(document) = read(root, &descriptor) {
                findings.extend(unlabelled(view, &namespace, &descriptor, &document)?);
                open.extend(document.children());
            }
        }
        Ok(())
    })
}

/// Reads a document; `None` for anything that is none, or not the right one.
pub(super) fn read(root: &Path, descriptor: &Descriptor) -> Option<Root> {
    if !matches!(descriptor.media_type.role(), Role::Index | Role::Manifest) {
        return None;
    }
    Root::parse(descriptor, &bytes(root, descriptor)?).ok()
}

/// Reads a small blob whose digest is right.
pub(super) fn bytes(root: &Path, descriptor: &Descriptor) -> Option<Vec<u8>> {
    let algorithm = descriptor.digest.algorithm();
    let path = root.join("content/blobs").join(algorithm.as_str()).join(descriptor.digest.hex());
    let size = std::fs::metadata(&path).ok()?.len();
    let bytes = std::fs::read(&path).ok().filter(|_| size <= MAX_MANIFEST_SIZE)?;
    (algorithm.digest(&bytes) == descriptor.digest).then_some(bytes)
}

/// Compares the labels of a document's record with what the document refers to, as far as that is here: an image need not
/// be here for every platform.
fn unlabelled(
    view: &impl View,
    namespace: &Namespace,
    descriptor: &Descriptor,
    document: &Root,
) -> Result<Option<Finding>> {
    let Ok(Some(info)) = CONTENTS.get(view, &Key::of([namespace.as_str(), &descriptor.digest.to_string()])) else {
        return Ok(None);
    };
    let kept: BTreeSet<String> = Edges::of(&info.labels).to.iter().map(text_of).collect();
    let mut labels = Vec::new();
    for (label, digest) in document.child_labels() {
        let is_here = CONTENTS.contains(view, &Key::of([namespace.as_str(), &digest]))?;
        if is_here && node(&format!("content/{digest}")).is_some_and(|child| !kept.contains(&text_of(&child))) {
            labels.push(label);
        }
    }
    let (namespace, digest) = (namespace.clone(), descriptor.digest.clone());
    Ok((!labels.is_empty()).then(|| Finding::new(Problem::ReferenceMissing { namespace, digest, labels })))
}
