//! Ingests that nobody continues, and temporary files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use windlass_core::error::IoResultExt;
use windlass_core::fsck::{Finding, Problem};
use windlass_core::gc::Node;
use windlass_core::{Namespace, Result};

use super::blobs::entries;
use super::rebuild::WORKSHOP;
use crate::content::look_at_ingest;
use crate::db::schema::RESOURCES;
use crate::db::{View, text_of};
use crate::disk::Disk;
use crate::gc::INGEST_AGE;

/// Finds files that only a crash leaves: a database that was being made, in the root or of a snapshotter, and small blobs
/// on their way.
pub(super) fn temporary(root: &Path, findings: &mut Vec<Finding>) -> Result<()> {
    let names = [format!("{}.new", crate::db::FILE), WORKSHOP.to_owned()];
    for (path, size) in entries(root)?.into_iter().filter(|(name, _)| names.contains(name)) {
        findings.push(Finding::new(Problem::TemporaryFile { path, size: size.unwrap_or_default() }));
    }
    for (id, size) in entries(&root.join("content/small"))? {
        let path = format!("content/small/{id}");
        findings.push(Finding::new(Problem::TemporaryFile { path, size: size.unwrap_or_default() }));
    }
    for (snapshotter, _) in entries(&root.join("snapshots"))?.into_iter().filter(|(_, file)| file.is_none()) {
        let path = format!("snapshots/{snapshotter}/records.redb.new");
        if let Some(found) = Disk::real().look(&root.join(&path))? {
            findings.push(Finding::new(Problem::TemporaryFile { path, size: found.length }));
        }
    }
    Ok(())
}

/// Finds ingests without an owner, and those that were given up.
pub(super) fn compare(root: &Path, view: &impl View, findings: &mut Vec<Finding>) -> Result<()> {
    let directory = root.join("content/ingest");
    let (disk, now) = (Disk::real(), SystemTime::now());
    for (id, file) in entries(&directory)? {
        if file.is_some() {
            let path = format!("content/ingest/{id}");
            let size = std::fs::symlink_metadata(root.join(&path)).attempt(|| format!("look at {path}"))?.len();
            findings.push(Finding::new(Problem::ForeignFile { path, size }));
            continue;
        }
        let Some(found) = look_at_ingest(&disk, &directory.join(&id), id)? else { continue };
        let (id, size) = (found.id, found.bytes);
        let Some((namespace, status)) = found.owner else {
            findings.push(Finding::new(Problem::IngestUnowned { id, size }));
            continue;
        };
        let old = now.duration_since(found.touched_at).is_ok_and(|age| age > INGEST_AGE);
        let node = text_of(&Node::Ingest(status.ingest.to_string()));
        if old && !is_held(view, namespace.as_str(), &node)? {
            let ingest = status.ingest.to_string();
            findings.push(Finding::new(Problem::IngestAbandoned { namespace, ingest, id, size }));
        }
    }
    Ok(())
}

/// Tells whether any lease of the namespace holds a node.
fn is_held(view: &impl View, namespace: &str, node: &str) -> Result<bool> {
    let prefix = crate::db::Key::prefix([namespace]);
    let held = RESOURCES.keys(view, &prefix, None, usize::MAX)?;
    Ok(held.iter().any(|key| key.ends_with(&format!("\0{node}"))))
}

/// Returns the namespaces that have ingests.
pub(super) fn namespaces(root: &Path) -> Result<BTreeSet<Namespace>> {
    let (disk, directory) = (Disk::real(), root.join("content/ingest"));
    let mut namespaces = BTreeSet::new();
    for (id, _) in entries(&directory)?.into_iter().filter(|(_, file)| file.is_none()) {
        let found = look_at_ingest(&disk, &directory.join(&id), id)?;
        namespaces.extend(found.and_then(|found| found.owner).map(|(namespace, _)| namespace));
    }
    Ok(namespaces)
}
