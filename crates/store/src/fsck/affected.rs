//! Which images a finding affects: those from which the damaged object can be reached.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use windlass_core::fsck::{Affected, Finding, Problem};
use windlass_core::gc::Node;
use windlass_core::image::Name;
use windlass_core::{Digest, Result};

use super::nodes::{key, snapshot, split};
use super::snapshots::nodes_of;
use crate::db::View;
use crate::db::schema::{LINKS, NAMESPACES};

/// Adds to each finding the images that it affects.
pub(super) fn add(view: &impl View, findings: &mut [Finding]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let namespaces = NAMESPACES.keys(view, "", None, usize::MAX)?;
    let behind = nodes_of(view)?;
    let mut reached: HashMap<String, BTreeSet<usize>> = HashMap::new();
    for (at, finding) in findings.iter().enumerate() {
        for node in damaged(&finding.problem, &namespaces, &behind) {
            reached.entry(node).or_default().insert(at);
        }
    }
    if reached.is_empty() {
        return Ok(());
    }
    spread(view, &mut reached)?;
    let mut images: BTreeMap<usize, BTreeSet<Affected>> = BTreeMap::new();
    for (node, of) in &reached {
        let Some((namespace, node)) = split(node) else { continue };
        let Some(name) = node.strip_prefix("image/").and_then(|name| name.parse::<Name>().ok()) else { continue };
        for at in of {
            images.entry(*at).or_default().insert(Affected { namespace: namespace.clone(), name: name.clone() });
        }
    }
    for (at, images) in images {
        if let Some(finding) = findings.get_mut(at) {
            finding.images = images.into_iter().collect();
        }
    }
    Ok(())
}

/// Goes from what was reached to what refers to it, until nothing is added. The links are read once a round, not kept: a
/// round is a level of an image, or a layer of a stack that is listed in the wrong order.
fn spread(view: &impl View, reached: &mut HashMap<String, BTreeSet<usize>>) -> Result<()> {
    loop {
        let mut more = false;
        LINKS.each(view, "", |from, links| {
            let (Some((namespace, _)), Ok(links)) = (from.split_once('\0'), links) else { return Ok(()) };
            for to in links.parent.iter().chain(&links.to) {
                more |= pass_on(reached, &format!("{namespace}\0{to}"), from);
            }
            for back in &links.from {
                more |= pass_on(reached, from, &format!("{namespace}\0{back}"));
            }
            Ok(())
        })?;
        if !more {
            return Ok(());
        }
    }
}

/// Lets whatever reached `from` reach `to`, and tells whether that is news.
fn pass_on(reached: &mut HashMap<String, BTreeSet<usize>>, from: &str, to: &str) -> bool {
    let Some(of) = reached.get(from).cloned() else { return false };
    let known = reached.entry(to.to_owned()).or_default();
    let before = known.len();
    known.extend(of);
    known.len() > before
}

/// Returns the nodes that a problem damages; nothing for one that harms no image.
fn damaged(problem: &Problem, namespaces: &[String], behind: &HashMap<(String, String), Vec<String>>) -> Vec<String> {
    let inner = |snapshotter: &String, inner: &String| {
        behind.get(&(snapshotter.clone(), inner.clone())).cloned().unwrap_or_default()
    };
    let everywhere = |digest: &Digest| {
        let node = crate::db::text_of(&Node::Content(digest.clone()));
        namespaces.iter().map(|namespace| format!("{namespace}\0{node}")).collect()
    };
    match problem {
        Problem::BlobMissing { digest, .. }
        | Problem::BlobSize { digest, .. }
        | Problem::BlobDigest { digest, .. }
        | Problem::BlobUnreadable { digest, .. } => everywhere(digest),
        Problem::RecordSize { namespace, digest, .. } => vec![key(namespace, &Node::Content(digest.clone()))],
        Problem::TargetMissing { namespace, name, .. } => vec![key(namespace, &Node::Image(name.to_string()))],
        Problem::SnapshotMissing { namespace, snapshotter, key: name }
        | Problem::ParentMissing { namespace, snapshotter, key: name, .. }
        | Problem::SnapshotLost { namespace, snapshotter, key: name, .. } => {
            vec![key(namespace, &snapshot(snapshotter, name))]
        }
        Problem::DirectoryMissing { snapshotter, inner: name, .. }
        | Problem::TreeChanged { snapshotter, inner: name, .. }
        | Problem::InnerParentMissing { snapshotter, inner: name, .. } => inner(snapshotter, name),
        Problem::RecordDamaged { table, key: record, .. } => match (table.as_str(), record.split_once('/')) {
            ("contents", Some((namespace, digest))) => vec![format!("{namespace}\0content/{digest}")],
            ("images", Some((namespace, name))) => vec![format!("{namespace}\0image/{name}")],
            ("snapshots", Some((namespace, rest))) => vec![format!("{namespace}\0snapshot/{rest}")],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
