//! The part of a collection that happens in one transaction: roots, marking, and the removal of unmarked records.

use std::collections::HashSet;
use std::time::SystemTime;

use windlass_core::gc::{FLAT, Node};
use windlass_core::{Namespace, Result};

use super::mark::{Depth, Marked, mark};
use crate::db::schema::{CONTENTS, IMAGES, LEASES, LINKS, RESOURCES, SNAPSHOTS};
use crate::db::{Key, Links, Transaction, text_of};
use crate::leases::remove_lease;
use crate::snapshots::{Place, forget};

/// How many records are looked at in one go.
const PAGE: usize = 1024;

/// What was removed, and what the sweep has to know.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) leases: u64,
    pub(super) images: u64,
    pub(super) contents: u64,
    /// The ingests that a lease holds, as `namespace \0 ingest/<ref>`.
    pub(super) held_ingests: HashSet<String>,
}

/// Removes expired leases and every record that cannot be reached.
pub(super) fn collect(tx: &Transaction, now: SystemTime) -> Result<Removed> {
    let mut removed = Removed::default();
    let mut roots = leased(tx, now, &mut removed)?;
    let expired_images = add_roots(tx, now, &mut roots)?;
    let marked = mark(roots, |node| LINKS.get(tx, node))?;
    for image in &expired_images {
        if !marked.contains_key(image) {
            removed.images += u64::from(remove_image(tx, image)?);
        }
    }
    removed.contents = remove_contents(tx, &marked)?;
    remove_snapshots(tx, &marked)?;
    removed.held_ingests = marked.into_keys().filter(|node| node.contains("\0ingest/")).collect();
    Ok(removed)
}

/// Returns what live leases hold, and removes those that have expired.
fn leased(tx: &Transaction, now: SystemTime, removed: &mut Removed) -> Result<Vec<(String, Depth)>> {
    let mut roots = Vec::new();
    for (key, lease) in LEASES.all(tx, "")? {
        if lease.expires_at.is_some_and(|end| end <= now) {
            remove_lease(tx, &key)?;
            removed.leases += 1;
            continue;
        }
        let depth = if lease.labels.get(FLAT).is_some() { Depth::Flat } else { Depth::Deep };
        let Some((namespace, _)) = key.split_once('\0') else { continue };
        let prefix = Key::prefix([&key]);
        for held in RESOURCES.keys(tx, &prefix, None, usize::MAX)? {
            if let Some(node) = held.strip_prefix(&prefix) {
                roots.push((format!("{namespace}\0{node}"), depth));
            }
        }
    }
    Ok(roots)
}

/// Adds the records that are roots by themselves, and returns the images that have expired.
fn add_roots(tx: &Transaction, now: SystemTime, roots: &mut Vec<(String, Depth)>) -> Result<Vec<String>> {
    let mut expired_images = Vec::new();
    each(
        |after| LINKS.page(tx, "", after, PAGE),
        |node, links: Links| {
            let kind = node.split_once('\0').and_then(|(_, node)| node.split_once('/')).map_or("", |(kind, _)| kind);
            let expired = links.expires_at.is_some_and(|end| end <= now);
            let root = match kind {
                "image" if expired => {
                    expired_images.push(node);
                    return Ok(());
                }
                "image" | "container" => true,
                // Held until a time, or for good.
                _ => links.expires_at.is_some() && !expired || links.root && links.expires_at.is_none(),
            };
            if root {
                roots.push((node, Depth::Deep));
            }
            Ok(())
        },
    )?;
    Ok(expired_images)
}

fn remove_image(tx: &Transaction, node: &str) -> Result<bool> {
    LINKS.remove(tx, node)?;
    let Some((namespace, name)) = node.split_once("\0image/") else { return Ok(false) };
    IMAGES.remove(tx, &Key::of([namespace, name]))
}

fn remove_contents(tx: &Transaction, marked: &Marked) -> Result<u64> {
    let mut garbage = Vec::new();
    each(
        |after| CONTENTS.keys(tx, "", after, PAGE).map(keyed),
        |key, ()| {
            if let Some((namespace, digest)) = key.split_once('\0')
                && !marked.contains_key(&format!("{namespace}\0content/{digest}"))
            {
                garbage.push(key);
            }
            Ok(())
        },
    )?;
    for key in &garbage {
        CONTENTS.remove(tx, key)?;
        if let Some((namespace, digest)) = key.split_once('\0') {
            LINKS.remove(tx, &format!("{namespace}\0content/{digest}"))?;
        }
    }
    Ok(garbage.len() as u64)
}

fn remove_snapshots(tx: &Transaction, marked: &Marked) -> Result<()> {
    let mut garbage = Vec::new();
    each(
        |after| SNAPSHOTS.page(tx, "", after, PAGE),
        |key, record| {
            let mut parts = key.splitn(3, '\0');
            let (Some(namespace), Some(snapshotter)) = (parts.next(), parts.next()) else { return Ok(()) };
            let node = Node::Snapshot { snapshotter: snapshotter.to_owned(), key: record.info.key.to_string() };
            if !marked.contains_key(&Key::of([namespace, &text_of(&node)])) {
                let namespace: Namespace = namespace.parse()?;
                garbage.push((Place { namespace, snapshotter: snapshotter.to_owned() }, record.info));
            }
            Ok(())
        },
    )?;
    for (place, info) in &garbage {
        forget(tx, place, &info.key, info.parent.as_ref())?;
    }
    Ok(())
}

fn keyed(keys: Vec<String>) -> Vec<(String, ())> {
    keys.into_iter().map(|key| (key, ())).collect()
}

/// Visits records page by page.
fn each<T>(
    page: impl Fn(Option<&str>) -> Result<Vec<(String, T)>>,
    mut visit: impl FnMut(String, T) -> Result<()>,
) -> Result<()> {
    let mut after: Option<String> = None;
    loop {
        let records = page(after.as_deref())?;
        let Some((last, _)) = records.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, record) in records {
            visit(key, record)?;
        }
    }
}
