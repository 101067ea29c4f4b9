//! The store's records of snapshots: whether they fit each other, and what the snapshotters have.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use windlass_core::fsck::{Finding, Problem};
use windlass_core::gc::Node;
use windlass_core::snapshot::{State, VIEW_LABEL};
use windlass_core::{Namespace, Result};

use super::nodes::{damaged, key};
use super::records::links;
use super::{Behind, Shelved};
use crate::db::schema::{CHILDREN, LINKS, SNAPSHOTS};
use crate::db::{Key, View, node};
use crate::snapshots::Place;

/// Compares the records with each other and with what is behind.
pub(super) fn compare(view: &impl View, behind: &BTreeMap<String, Behind>, findings: &mut Vec<Finding>) -> Result<()> {
    let has: HashMap<&str, HashSet<&str>> = behind
        .iter()
        .map(|(name, behind)| (name.as_str(), behind.snapshots.iter().map(|had| had.info.key.as_str()).collect()))
        .collect();
    let mut referred: HashSet<(String, String)> = HashSet::new();
    // A record that cannot be read may refer to anything.
    let mut all_read = true;
    let mut expected = BTreeSet::new();
    SNAPSHOTS.each(view, "", |record, found| {
        let Some((place, name)) = parts(record) else { return Ok(()) };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                all_read = false;
                findings.push(damaged(SNAPSHOTS.table(), record, &error));
                return Ok(());
            }
        };
        let (namespace, snapshotter) = (place.namespace.clone(), place.snapshotter.clone());
        links(view, &namespace, &place.node(&found.info.key), &place.links(&found.info), findings)?;
        if let Some(parent) = &found.info.parent {
            let parent = parent.to_string();
            expected.insert(Key::of([namespace.as_str(), &snapshotter, &parent, &name]));
            if !SNAPSHOTS.contains(view, &Key::of([namespace.as_str(), &snapshotter, &parent]))? {
                let (namespace, snapshotter, key) = (namespace.clone(), snapshotter.clone(), name.clone());
                findings.push(Finding::new(Problem::ParentMissing { namespace, snapshotter, key, parent }));
            }
        }
        let lost = has.get(snapshotter.as_str()).is_some_and(|has| !has.contains(found.inner.as_str()));
        let shows = found.info.state == State::View && found.info.labels.get(VIEW_LABEL).is_some();
        let mounted = behind.get(&snapshotter).is_some_and(|behind| behind.mounted.contains(&found.info.key));
        let (key, inner, state) = (name, found.inner.to_string(), found.info.state.into());
        if lost {
            let snapshotter = snapshotter.clone();
            findings.push(Finding::new(Problem::SnapshotLost { namespace, snapshotter, key, inner, state }));
        } else if shows && !mounted {
            let snapshotter = snapshotter.clone();
            findings.push(Finding::new(Problem::ViewUnmounted { namespace, snapshotter, key }));
        }
        referred.insert((snapshotter, found.inner.to_string()));
        Ok(())
    })?;
    if all_read {
        unrecorded(behind, &referred, findings);
    }
    children(view, &expected, all_read, findings)?;
    wanted(view, &has, findings)
}

fn unrecorded(behind: &BTreeMap<String, Behind>, referred: &HashSet<(String, String)>, findings: &mut Vec<Finding>) {
    for (snapshotter, behind) in behind {
        for Shelved { info, bytes } in &behind.snapshots {
            if !referred.contains(&(snapshotter.clone(), info.key.to_string())) {
                let (snapshotter, inner, size) = (snapshotter.clone(), info.key.to_string(), *bytes);
                findings.push(Finding::new(Problem::SnapshotUnrecorded { snapshotter, inner, size }));
            }
        }
    }
}

/// Compares which snapshots are said to stand on which with what follows from their records.
fn children(view: &impl View, expected: &BTreeSet<String>, all_read: bool, findings: &mut Vec<Finding>) -> Result<()> {
    let mut found = BTreeSet::new();
    CHILDREN.each(view, "", |record, _| {
        found.insert(record.to_owned());
        Ok(())
    })?;
    let child = |record: &String| -> Option<(Namespace, String, String, String)> {
        let mut parts = record.splitn(4, '\0');
        let namespace = parts.next()?.parse().ok()?;
        Some((namespace, parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    for (namespace, snapshotter, parent, key) in expected.difference(&found).filter_map(child) {
        findings.push(Finding::new(Problem::ChildMissing { namespace, snapshotter, parent, key }));
    }
    for (namespace, snapshotter, parent, key) in found.difference(expected).filter(|_| all_read).filter_map(child) {
        findings.push(Finding::new(Problem::ChildDangling { namespace, snapshotter, parent, key }));
    }
    Ok(())
}

/// Finds snapshots that configs say their layers have become, and that are not here.
fn wanted(view: &impl View, has: &HashMap<&str, HashSet<&str>>, findings: &mut Vec<Finding>) -> Result<()> {
    let mut missing = BTreeSet::new();
    LINKS.each(view, "", |record, links| {
        let (Some((namespace, from)), Ok(links)) = (super::nodes::split(record), links) else { return Ok(()) };
        if !from.starts_with("content/") {
            return Ok(());
        }
        for to in links.to.iter().filter_map(|to| node(to)) {
            let Node::Snapshot { snapshotter, key } = to else { continue };
            // A snapshotter of another program is nothing that can be looked at.
            if !has.contains_key(snapshotter.as_str()) {
                continue;
            }
            if !SNAPSHOTS.contains(view, &Key::of([namespace.as_str(), &snapshotter, &key]))? {
                missing.insert((namespace.clone(), snapshotter, key));
            }
        }
        Ok(())
    })?;
    for (namespace, snapshotter, key) in missing {
        findings.push(Finding::new(Problem::SnapshotMissing { namespace, snapshotter, key }));
    }
    Ok(())
}

/// Returns where a record is, and its name.
fn parts(record: &str) -> Option<(Place, String)> {
    let mut parts = record.splitn(3, '\0');
    let namespace = parts.next()?.parse().ok()?;
    let snapshotter = parts.next()?.to_owned();
    Some((Place { namespace, snapshotter }, parts.next()?.to_owned()))
}

/// Returns the nodes of the records that refer to a snapshot behind.
pub(super) fn nodes_of(view: &impl View) -> Result<HashMap<(String, String), Vec<String>>> {
    let mut nodes: HashMap<(String, String), Vec<String>> = HashMap::new();
    SNAPSHOTS.each(view, "", |record, found| {
        if let (Some((place, _)), Ok(found)) = (parts(record), found) {
            let node = key(&place.namespace, &place.node(&found.info.key));
            nodes.entry((place.snapshotter, found.inner.to_string())).or_default().push(node);
        }
        Ok(())
    })?;
    Ok(nodes)
}
