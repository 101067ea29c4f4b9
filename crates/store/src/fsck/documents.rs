//! The documents of images: read from the bytes of blobs, and whether what they refer to is kept alive by their labels.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde::Deserialize;
use windlass_core::document::{ImageConfig, MAX_CONFIG_SIZE, Root};
use windlass_core::fsck::{Finding, Problem};
use windlass_core::gc::Edges;
use windlass_core::media_type::Role;
use windlass_core::{ChainId, Descriptor, Digest, Labels, MediaType, Namespace, Result};

use super::Bytes;
use crate::db::schema::{CONTENTS, IMAGES};
use crate::db::{Key, View, node, text_of};

/// A document of an image.
#[derive(Debug)]
pub(super) enum Document {
    /// An index or a manifest.
    Root(Box<Root>),
    /// An image config, by the name of the topmost of its layers.
    Config(Option<ChainId>),
}

/// What tells the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<MediaType>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    rootfs: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Finds out what a blob is, without anybody who refers to it; `None` when it is no document.
    pub(super) fn find_out(bytes: &Bytes, digest: &Digest) -> Option<(Descriptor, Self)> {
        let text = text(bytes, digest)?;
        let size = text.len() as u64;
        let shape: Shape = serde_json::from_slice(&text).ok()?;
        let usual = match (&shape.manifests, &shape.layers, &shape.rootfs) {
            (Some(_), None, None) => MediaType::OCI_INDEX,
            (None, Some(_), None) => MediaType::OCI_MANIFEST,
            (None, None, Some(_)) => MediaType::OCI_CONFIG,
            _ => return None,
        };
        let media_type = shape.media_type.unwrap_or_else(|| MediaType::new(usual));
        let descriptor = Descriptor::new(media_type.as_str(), digest.clone(), size);
        let document = if usual == MediaType::OCI_CONFIG {
            let config = ImageConfig::parse(&descriptor, &text).ok()?;
            Self::Config(ChainId::chain(&config.rootfs.diff_ids).pop())
        } else {
            Self::Root(Box::new(Root::parse(&descriptor, &text).ok()?))
        };
        Some((descriptor, document))
    }

    /// Returns the labels with which the document keeps what it refers to alive.
    pub(super) fn labels(&self) -> Labels {
        match self {
            Self::Root(root) => root.child_labels(),
            Self::Config(_) => Labels::new(),
        }
    }
}

/// Walks from every image to the documents below it. A document that cannot be read or is not what it should be has been
/// found by others.
pub(super) fn compare(bytes: &Bytes, view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    let mut seen = BTreeSet::new();
    IMAGES.each(view, "", |record, image| {
        let (Some((namespace, _)), Ok(image)) = (super::nodes::split(record), image) else { return Ok(()) };
        let mut open = vec![image.target];
        while let Some(descriptor) = open.pop() {
            if !seen.insert((namespace.clone(), descriptor.digest.clone())) {
                continue;
            }
            if let Some(document) = read(bytes, &descriptor) {
                findings.extend(unlabelled(view, &namespace, &descriptor, &document)?);
                open.extend(document.children());
            }
        }
        Ok(())
    })
}

/// Reads an index or a manifest; `None` for anything that is none, or not the right one.
fn read(bytes: &Bytes, descriptor: &Descriptor) -> Option<Root> {
    if !matches!(descriptor.media_type.role(), Role::Index | Role::Manifest) {
        return None;
    }
    Root::parse(descriptor, &text(bytes, &descriptor.digest)?).ok()
}

/// Reads a small blob whose digest is right.
fn text(bytes: &Bytes, digest: &Digest) -> Option<Vec<u8>> {
    if bytes.size(digest)? > MAX_CONFIG_SIZE {
        return None;
    }
    let mut text = Vec::new();
    bytes.open(digest).ok()?.take(MAX_CONFIG_SIZE).read_to_end(&mut text).ok()?;
    (digest.algorithm().digest(&text) == *digest).then_some(text)
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
