//! What the old database says in more than one place: believed when two of them agree.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::image::Name as ImageName;
use windlass_core::{Digest, Namespace};

use crate::db::Links;
use crate::fsck::damaged::SOURCE;
use crate::fsck::salvage::Salvaged;

/// What the old database says more than once.
pub(super) struct Said<'a> {
    links: BTreeMap<&'a str, &'a Links>,
    records: BTreeSet<&'a str>,
    /// The repositories that blobs came from, each with its host.
    sources: BTreeMap<&'a Digest, BTreeSet<String>>,
}

impl<'a> Said<'a> {
    pub(super) fn of(salvaged: &'a Salvaged) -> Self {
        let mut sources: BTreeMap<&Digest, BTreeSet<String>> = BTreeMap::new();
        for (_, info) in &salvaged.contents {
            for (key, repositories) in info.labels.iter() {
                let Some(host) = key.strip_prefix(SOURCE) else { continue };
                let of = repositories.split(',').map(|repository| format!("{host}/{repository}"));
                sources.entry(&info.digest).or_default().extend(of);
            }
        }
        Self {
            links: salvaged.links.iter().map(|(key, links)| (key.as_str(), links)).collect(),
            records: salvaged.contents.iter().map(|(key, _)| key.as_str()).collect(),
            sources,
        }
    }

    /// Returns the name of an image on which two of the three places agree that have it: key, record and links.
    pub(super) fn name(&self, namespace: &Namespace, key: &str, record: &ImageName) -> Option<ImageName> {
        if key == record.as_str() {
            return Some(record.clone());
        }
        let linked = |name: &&str| self.links.contains_key(format!("{namespace}\0image/{name}").as_str());
        [key, record.as_str()].into_iter().find(linked)?.parse().ok()
    }

    /// Tells whether something else than the image's record says what it points at: its links, or the record of the target.
    pub(super) fn is_target(&self, namespace: &Namespace, name: &ImageName, target: &Digest) -> bool {
        let text = format!("content/{target}");
        let links = self.links.get(format!("{namespace}\0image/{name}").as_str());
        let linked = links.is_some_and(|links| links.parent.iter().chain(&links.to).any(|to| *to == text));
        linked || self.records.contains(format!("{namespace}\0{target}").as_str())
    }

    /// Tells whether a blob came from the repository that a name is of: what a document calls itself its publisher chose.
    pub(super) fn came_from(&self, digest: &Digest, name: &str) -> bool {
        let of = |repository: &String| {
            name.strip_prefix(repository.as_str()).is_some_and(|rest| rest.starts_with([':', '@']))
        };
        self.sources.get(digest).is_some_and(|sources| sources.iter().any(of))
    }
}
