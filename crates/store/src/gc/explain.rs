//! Saying what a collection would do, and why not: both read one commit and change nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use futures::TryStreamExt as _;
use windlass_core::gc::{Doomed, DoomedKind, Node, Pin, PinReason};
use windlass_core::{Digest, Error, Kind, Namespace, Result, ResultExt, snapshot};

use super::graph::{Id, Marked};
use super::scan::{Reason, Root, Seen};
use super::{INGEST_AGE, sweep};
use crate::blocking::blocking;
use crate::content::recorded_anywhere;
use crate::db::schema::{CONTAINERS, CONTENTS, IMAGES, LEASES, LINKS, RESOURCES, SNAPSHOTS};
use crate::db::{self, Key, LinksText, View, text_of};
use crate::snapshots::inner_names;
use crate::store::Shared;

/// Says what a collection would remove.
pub(crate) async fn plan(shared: &Arc<Shared>) -> Result<Vec<Doomed>> {
    let now = SystemTime::now();
    let reader = shared.clone();
    let (mut doomed, seen, marked) = blocking(move || {
        let view = reader.db.snapshot()?;
        let seen = Seen::read(&view, now)?;
        let marked = seen.mark();
        let mut doomed = Vec::new();
        expired(&view, &seen, &marked, &mut doomed)?;
        contents(&reader, &view, &seen, &marked, &mut doomed)?;
        Ok((doomed, seen, marked))
    })
    .await?;
    snapshots(shared, &seen, &marked, &mut doomed).await?;
    for found in shared.ingests.all().await? {
        let held = found.owner.as_ref().is_some_and(|(namespace, status)| {
            let node = text_of(&Node::Ingest(status.ingest.to_string()));
            marked.contains_key(&seen.ids.of(namespace.as_str(), &node))
        });
        if !held && found.touched_at < now - INGEST_AGE {
            let (namespace, id) = match found.owner {
                Some((namespace, status)) => (Some(namespace), status.ingest.to_string()),
                None => (None, found.id),
            };
            doomed.push(Doomed { kind: DoomedKind::Ingest, namespace, id, bytes: found.bytes });
        }
    }
    Ok(doomed)
}

fn expired(view: &impl View, seen: &Seen, marked: &Marked, doomed: &mut Vec<Doomed>) -> Result<()> {
    let mut note = |kind, namespace: &str, id: &str| {
        doomed.push(Doomed { kind, namespace: Some(namespace.parse()?), id: id.to_owned(), bytes: 0 });
        Ok::<(), Error>(())
    };
    for key in &seen.expired_leases {
        if let Some((namespace, id)) = key.split_once('\0') {
            note(DoomedKind::Lease, namespace, id)?;
        }
    }
    IMAGES.visit(view, "", None, usize::MAX, |key, _| {
        let Some((namespace, name)) = key.split_once('\0') else { return Ok(()) };
        let id = seen.ids.of(namespace, &text_of(&Node::Image(name.to_owned())));
        if marked.contains_key(&id) { Ok(()) } else { note(DoomedKind::Image, namespace, name) }
    })
}

fn contents(shared: &Shared, view: &impl View, seen: &Seen, marked: &Marked, doomed: &mut Vec<Doomed>) -> Result<()> {
    let mut garbage: Vec<(Namespace, Digest)> = Vec::new();
    let mut kept: HashSet<Digest> = HashSet::new();
    let is_marked =
        |namespace: &str, digest: &str| marked.contains_key(&seen.ids.of(namespace, &format!("content/{digest}")));
    CONTENTS.visit(view, "", None, usize::MAX, |key, _| {
        if let Some((namespace, digest)) = key.split_once('\0')
            && !is_marked(namespace, digest)
        {
            garbage.push((namespace.parse()?, digest.parse()?));
        }
        Ok(())
    })?;
    for (_, digest) in &garbage {
        for namespace in db::schema::NAMESPACES.keys(view, "", None, usize::MAX)? {
            let text = digest.to_string();
            if CONTENTS.contains(view, &Key::of([&namespace, &text]))? && is_marked(&namespace, &text) {
                kept.insert(digest.clone());
            }
        }
    }
    // Bytes go once, whatever number of records goes.
    let mut counted = HashSet::new();
    let unrecorded = sweep::unrecorded(shared)?.into_iter().map(|digest| (None, digest));
    for (namespace, digest) in
        garbage.into_iter().map(|(namespace, digest)| (Some(namespace), digest)).chain(unrecorded)
    {
        let goes = !kept.contains(&digest) && counted.insert(digest.clone());
        let bytes = if goes { shared.depot.look(&digest)?.unwrap_or_default() } else { 0 };
        doomed.push(Doomed { kind: DoomedKind::Content, namespace, id: digest.to_string(), bytes });
    }
    Ok(())
}

async fn snapshots(shared: &Arc<Shared>, seen: &Seen, marked: &Marked, doomed: &mut Vec<Doomed>) -> Result<()> {
    let mut records = Vec::new();
    shared.db.read(|view| {
        for (key, record) in SNAPSHOTS.all(view, "")? {
            let mut parts = key.splitn(3, '\0');
            let (Some(namespace), Some(snapshotter)) = (parts.next(), parts.next()) else { continue };
            let node = Node::Snapshot { snapshotter: snapshotter.to_owned(), key: record.info.key.to_string() };
            let stays = marked.contains_key(&seen.ids.of(namespace, &text_of(&node)));
            records.push((namespace.parse::<Namespace>()?, snapshotter.to_owned(), record, stays));
        }
        Ok(())
    })?;
    for (name, behind) in &shared.snapshotters {
        let of = || records.iter().filter(|(_, snapshotter, ..)| snapshotter == name);
        let kept: HashSet<_> = of().filter(|(.., stays)| *stays).map(|(_, _, record, _)| &record.inner).collect();
        let mut counted = HashSet::new();
        for (namespace, _, record, _) in of().filter(|(.., stays)| !stays) {
            let goes = !kept.contains(&record.inner) && counted.insert(record.inner.clone());
            let bytes = if goes { usage(&**behind, &record.inner).await? } else { 0 };
            let id = format!("{name}/{}", record.info.key);
            doomed.push(Doomed { kind: DoomedKind::Snapshot, namespace: Some(namespace.clone()), id, bytes });
        }
        let there: Vec<snapshot::Info> = behind.walk(&[]).try_collect().await?;
        let recorded = shared.db.read(|view| inner_names(view, name))?;
        for info in there.iter().filter(|info| !recorded.contains(&info.key) && !shared.building.has(&info.key)) {
            let (id, bytes) = (format!("{name}/{}", info.key), usage(&**behind, &info.key).await?);
            doomed.push(Doomed { kind: DoomedKind::Snapshot, namespace: None, id, bytes });
        }
    }
    Ok(())
}

async fn usage(snapshotter: &dyn snapshot::Snapshotter, key: &snapshot::Key) -> Result<u64> {
    match snapshotter.usage(key).await {
        Ok(usage) => Ok(usage.bytes),
        // A record whose snapshot has gone goes as well, and frees nothing.
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::DataLoss) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Finds what keeps an object alive.
///
/// # Errors
/// `NotFound` when the object is not in the namespace.
pub(crate) async fn why(shared: &Arc<Shared>, namespace: &Namespace, node: &Node) -> Result<Option<Pin>> {
    let (reader, namespace, node) = (shared.clone(), namespace.clone(), node.clone());
    let attempt = format!("find what keeps {node}");
    let found = blocking(move || {
        let view = reader.db.snapshot()?;
        if !exists(&view, &reader, &namespace, &node)? {
            return Err(Error::not_found(format!("{node} is not in namespace {namespace}")));
        }
        let seen = Seen::read(&view, SystemTime::now())?;
        let id = seen.ids.of(namespace.as_str(), &text_of(&node));
        let roots: Vec<_> = seen.roots.iter().map(|root| (root.id, root.depth)).collect();
        let Some((place, path)) = seen.graph.path(&roots, id) else { return Ok(None) };
        let names = names(&view, &seen, &namespace, &path)?;
        let named = path.iter().map(|id| names.get(id).cloned()).collect::<Option<Vec<_>>>();
        let path = named.ok_or_else(|| Error::internal("an object on the way lost its name"))?;
        let reason = seen.roots.get(place).map(|root| reason(&seen, root)).transpose()?;
        Ok(reason.map(|reason| Pin { reason, path }))
    });
    found.await.context(|| attempt)
}

/// Returns the nodes with these ids: whatever is on a path has links, is named by links, or is held by a lease.
fn names(view: &impl View, seen: &Seen, namespace: &Namespace, path: &[Id]) -> Result<HashMap<Id, Node>> {
    let mut names = HashMap::new();
    let prefix = Key::prefix([namespace.as_str()]);
    let mut note = |text: &str| {
        let id = seen.ids.of(namespace.as_str(), text);
        if path.contains(&id) {
            names.extend(db::node(text).map(|node| (id, node)));
        }
    };
    LINKS.visit(view, &prefix, None, usize::MAX, |key, value| {
        let links: LinksText<'_> = db::decode(value)?;
        let texts = links.parent.iter().chain(&links.to).chain(&links.from);
        key.strip_prefix(&prefix).into_iter().chain(texts.map(|text| &*text.0)).for_each(&mut note);
        Ok(())
    })?;
    RESOURCES.visit(view, &prefix, None, usize::MAX, |key, _| {
        key.strip_prefix(&prefix).and_then(|held| held.split_once('\0')).into_iter().for_each(|(_, node)| note(node));
        Ok(())
    })?;
    Ok(names)
}

fn reason(seen: &Seen, root: &Root) -> Result<PinReason> {
    Ok(match root.reason {
        Reason::Record => PinReason::Record,
        Reason::Label => PinReason::RootLabel,
        Reason::Until(end) => PinReason::Until(end),
        Reason::Lease(place) => {
            let key = seen.leases.get(place).and_then(|key| key.split_once('\0'));
            let (_, id) = key.ok_or_else(|| Error::internal("a lease lost its name"))?;
            PinReason::Lease(id.parse()?)
        }
    })
}

fn exists(view: &impl View, shared: &Shared, namespace: &Namespace, node: &Node) -> Result<bool> {
    let of = |id: &str| Key::of([namespace.as_str(), id]);
    match node {
        Node::Content(digest) => Ok(CONTENTS.contains(view, &of(&digest.to_string()))?
            // Bytes without any record are here, and nothing keeps them.
            || (!recorded_anywhere(view, digest)? && shared.depot.look(digest)?.is_some())),
        Node::Snapshot { snapshotter, key } => {
            SNAPSHOTS.contains(view, &Key::of([namespace.as_str(), snapshotter, key]))
        }
        Node::Ingest(ingest) => Ok(shared.ingests.exists(namespace, &ingest.parse()?)),
        Node::Image(name) => IMAGES.contains(view, &of(name)),
        Node::Lease(id) => LEASES.contains(view, &of(id)),
        Node::Container(id) => CONTAINERS.contains(view, &of(id)),
    }
}

/// Tells whether a lease has expired that no collection has taken away yet.
pub(crate) fn has_expired_leases(shared: &Shared) -> Result<bool> {
    let now = SystemTime::now();
    let leases = shared.db.read(|view| LEASES.all(view, ""))?;
    Ok(leases.iter().any(|(_, lease)| lease.expires_at.is_some_and(|end| end <= now)))
}
