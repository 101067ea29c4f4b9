//! The records: whether they decode, and whether what is derived from them is.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::fsck::{Finding, Problem};
use windlass_core::gc::Node;
use windlass_core::{Digest, Kind, Namespace, Result};

use super::nodes::{damaged, key, split};
use super::{Depth, blobs::Stored};
use crate::db::schema::{CHILDREN, CONTAINERS, CONTENTS, IMAGES, LEASES, LINKS, NAMESPACES, RESOURCES, SNAPSHOTS};
use crate::db::{Key, Links, View, node};
use crate::{containers, images};

/// Looks at the records of blobs, and returns what is recorded: the sizes by digest.
pub(super) fn contents(
    view: &impl View,
    stored: &Stored,
    depth: Depth,
    findings: &mut Vec<Finding>,
) -> Result<BTreeMap<Digest, u64>> {
    let mut recorded = BTreeMap::new();
    CONTENTS.each(view, "", |record, info| {
        let Some((namespace, digest)) = split(record) else { return Ok(()) };
        let named: Option<Digest> = digest.parse().ok();
        let info = match info {
            Ok(info) if Some(&info.digest) == named.as_ref() => info,
            Ok(info) => {
                let error = windlass_core::Error::data_loss(format!("it is that of {}", info.digest));
                findings.push(damaged(CONTENTS.table(), record, &error));
                recorded.extend(named.map(|digest| (digest.clone(), stored.get(&digest).copied().unwrap_or_default())));
                return Ok(());
            }
            Err(error) => {
                findings.push(damaged(CONTENTS.table(), record, &error));
                recorded.extend(named.map(|digest| (digest.clone(), stored.get(&digest).copied().unwrap_or_default())));
                return Ok(());
            }
        };
        links(view, &namespace, &Node::Content(info.digest.clone()), &Links::of(&info.labels), findings)?;
        // Without a look at the bytes nobody knows which of the two is wrong.
        if depth == Depth::Sizes
            && let Some(found) = stored.get(&info.digest).filter(|found| **found != info.size)
        {
            let (digest, size, found) = (info.digest.clone(), info.size, *found);
            let finding = Finding::new(Problem::BlobSize { digest, size, found });
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        recorded.insert(info.digest, info.size);
        Ok(())
    })?;
    Ok(recorded)
}

/// Compares the sizes that were recorded with those of blobs that were read: of good ones the record is wrong, of others
/// the size says more than the digest.
pub(super) fn sizes(
    view: &impl View,
    good: &BTreeMap<Digest, u64>,
    depth: Depth,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    if depth == Depth::Sizes {
        return Ok(());
    }
    let mut bad: BTreeMap<Digest, u64> = BTreeMap::new();
    for finding in findings.iter() {
        if let Problem::BlobDigest { digest, size, .. } = &finding.problem {
            bad.insert(digest.clone(), *size);
        }
    }
    CONTENTS.each(view, "", |record, info| {
        let (Some((namespace, _)), Ok(info)) = (split(record), info) else { return Ok(()) };
        if let Some(found) = good.get(&info.digest).filter(|found| **found != info.size) {
            let (digest, recorded, found) = (info.digest.clone(), info.size, *found);
            findings.push(Finding::new(Problem::RecordSize { namespace, digest, recorded, found }));
        }
        if let Some(found) = bad.remove(&info.digest).filter(|found| *found != info.size) {
            let wrong = |finding: &&mut Finding| {
                matches!(&finding.problem, Problem::BlobDigest { digest, .. } if *digest == info.digest)
            };
            if let Some(finding) = findings.iter_mut().find(wrong) {
                let (digest, size) = (info.digest.clone(), info.size);
                *finding = Finding::new(Problem::BlobSize { digest, size, found });
            }
        }
        Ok(())
    })
}

/// Looks at the records of images.
pub(super) fn images(view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    IMAGES.each(view, "", |record, image| {
        let Some((namespace, _)) = split(record) else { return Ok(()) };
        let image = match image {
            Ok(image) => image,
            Err(error) => {
                findings.push(damaged(IMAGES.table(), record, &error));
                return Ok(());
            }
        };
        links(view, &namespace, &Node::Image(image.name.to_string()), &images::links(&image), findings)?;
        if !CONTENTS.contains(view, &Key::of([namespace.as_str(), &image.target.digest.to_string()]))? {
            let (name, target, size) = (image.name, image.target.digest, image.target.size);
            findings.push(Finding::new(Problem::TargetMissing { namespace, name, target, size }));
        }
        Ok(())
    })
}

/// Looks at the records of containers.
pub(super) fn containers(view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    CONTAINERS.each(view, "", |record, container| {
        let Some((namespace, id)) = split(record) else { return Ok(()) };
        match container {
            Ok(container) => {
                let node = Node::Container(id.to_owned());
                links(view, &namespace, &node, &containers::links(&container), findings)
            }
            Err(error) => {
                findings.push(damaged(CONTAINERS.table(), record, &error));
                Ok(())
            }
        }
    })
}

/// Looks at leases and what they hold.
pub(super) fn leases(view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    LEASES.each(view, "", |record, lease| {
        if let Err(error) = lease {
            findings.push(damaged(LEASES.table(), record, &error));
        }
        Ok(())
    })?;
    RESOURCES.each(view, "", |record, _| {
        let mut parts = record.splitn(3, '\0');
        let (Some(namespace), Some(lease), Some(held)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(());
        };
        let Ok(parsed) = namespace.parse() else { return Ok(()) };
        // A lease that is here may hold what comes later.
        if !LEASES.contains(view, &Key::of([namespace, lease]))? {
            let (lease, node) = (lease.to_owned(), held.to_owned());
            findings.push(Finding::new(Problem::ResourceDangling { namespace: parsed, lease, node }));
        }
        Ok(())
    })
}

/// Finds links of objects that are not here.
pub(super) fn dangling(view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    LINKS.each(view, "", |record, links| {
        let Some((namespace, node)) = split(record) else { return Ok(()) };
        if !exists(view, namespace.as_str(), node)? {
            findings.push(Finding::new(Problem::LinksDangling { namespace, node: node.to_owned() }));
        } else if let Err(error) = links {
            tracing::debug!(%error, "links that do not decode");
            let wrong = Finding::new(Problem::LinksWrong { namespace, node: node.to_owned() });
            if !findings.contains(&wrong) {
                findings.push(wrong);
            }
        }
        Ok(())
    })
}

/// Finds namespaces that have records and none themselves.
pub(super) fn namespaces(view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    let mut known = BTreeSet::new();
    NAMESPACES.each(view, "", |namespace, record| {
        known.insert(namespace.to_owned());
        if let Err(error) = record {
            findings.push(damaged(NAMESPACES.table(), namespace, &error));
        }
        Ok(())
    })?;
    let mut used = BTreeSet::new();
    used_in(&IMAGES.first_parts(view)?, &mut used);
    used_in(&CONTENTS.first_parts(view)?, &mut used);
    used_in(&SNAPSHOTS.first_parts(view)?, &mut used);
    used_in(&CONTAINERS.first_parts(view)?, &mut used);
    used_in(&LEASES.first_parts(view)?, &mut used);
    used_in(&CHILDREN.first_parts(view)?, &mut used);
    for name in used.difference(&known) {
        let Ok(namespace) = name.parse() else { continue };
        findings.push(Finding::new(Problem::NamespaceUnrecorded { namespace }));
    }
    Ok(())
}

fn used_in(names: &[String], used: &mut BTreeSet<String>) {
    used.extend(names.iter().cloned());
}

/// Compares what is written down of a record's references with what the record says.
pub(super) fn links(
    view: &impl View,
    namespace: &Namespace,
    node: &Node,
    derived: &Links,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let written = match LINKS.get(view, &key(namespace, node)) {
        Ok(written) => written.unwrap_or_default(),
        // Found again when all links are looked at.
        Err(error) if matches!(error.kind(), Kind::DataLoss | Kind::FailedPrecondition) => return Ok(()),
        Err(error) => return Err(error),
    };
    if written != *derived {
        let (namespace, node) = (namespace.clone(), crate::db::text_of(node));
        findings.push(Finding::new(Problem::LinksWrong { namespace, node }));
    }
    Ok(())
}

/// Tells whether the object of a node's text has a record. Of ingests there are none.
fn exists(view: &impl View, namespace: &str, text: &str) -> Result<bool> {
    if let Some(id) = text.strip_prefix("container/") {
        return CONTAINERS.contains(view, &Key::of([namespace, id]));
    }
    match node(text) {
        Some(Node::Content(digest)) => CONTENTS.contains(view, &Key::of([namespace, &digest.to_string()])),
        Some(Node::Snapshot { snapshotter, key }) => {
            SNAPSHOTS.contains(view, &Key::of([namespace, &snapshotter, &key]))
        }
        Some(Node::Image(name)) => IMAGES.contains(view, &Key::of([namespace, &name])),
        Some(Node::Ingest(_)) => Ok(true),
        _ => Ok(false),
    }
}
