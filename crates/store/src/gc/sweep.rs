//! The part of a collection that removes bytes: blobs, snapshots and ingests that no record is left of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use futures::TryStreamExt;
use windlass_core::gc::Node;
use windlass_core::snapshot::{Info, Key, Snapshotter};
use windlass_core::{Digest, Kind, Result, ResultExt};

use super::graph::{BySelf, Id, Ids};
use super::{Collected, Failures, INGEST_AGE};
use crate::blocking::blocking;
use crate::content::{FoundIngest, recorded_anywhere};
use crate::db::schema::{CONTENTS, LEASES, RESOURCES};
use crate::db::{self, View, text_of};
use crate::snapshots::inner_names;
use crate::store::Shared;

/// Removes the blobs that no namespace has a record of.
pub(super) async fn blobs(shared: &Arc<Shared>, collected: &mut Collected, failures: &mut Failures) {
    let listing = {
        let shared = shared.clone();
        blocking(move || unrecorded(&shared)).await
    };
    for digest in failures.settle(listing).unwrap_or_default() {
        let removed = remove_blob(shared, &digest).await.context(|| format!("remove blob {digest}"));
        if let Some(Some(bytes)) = failures.settle(removed) {
            collected.blobs.add(bytes);
        }
    }
}

/// Returns the blobs that have no record at the moment. Blocking.
pub(super) fn unrecorded(shared: &Shared) -> Result<Vec<Digest>> {
    let ids = Ids::default();
    let mut recorded: HashSet<Id, BySelf> = HashSet::default();
    let id = |digest: &str| -> Id { ids.of("", digest) };
    shared.db.read(|view| {
        CONTENTS.visit(view, "", None, usize::MAX, |key, _| {
            recorded.extend(key.split_once('\0').map(|(_, digest)| id(digest)));
            Ok(())
        })
    })?;
    let mut found = Vec::new();
    shared.depot.each(|digest| {
        if !recorded.contains(&id(&digest.to_string())) {
            found.push(digest);
        }
    })?;
    Ok(found)
}

/// Removes a blob unless it got a record in the meantime. Whoever moves bytes into place or adopts them has the turn
/// until the record is there.
async fn remove_blob(shared: &Arc<Shared>, digest: &Digest) -> Result<Option<u64>> {
    let _turn = shared.turns.take(digest.to_string()).await;
    if shared.db.read(|view| recorded_anywhere(view, digest))? {
        return Ok(None);
    }
    shared.depot.remove(digest).await
}

/// Removes the snapshots behind the views that no record refers to, and what the snapshotters themselves lost track of.
pub(super) async fn snapshots(shared: &Arc<Shared>, collected: &mut Collected, failures: &mut Failures) {
    for (name, snapshotter) in &shared.snapshotters {
        let swept = sweep_snapshotter(shared, name, &**snapshotter, collected, failures).await;
        failures.settle(swept.context(|| format!("collect snapshots of {name}")));
        failures.settle(snapshotter.cleanup().await.context(|| format!("clean up snapshotter {name}")));
    }
}

async fn sweep_snapshotter(
    shared: &Arc<Shared>,
    name: &str,
    snapshotter: &dyn Snapshotter,
    collected: &mut Collected,
    failures: &mut Failures,
) -> Result<()> {
    // In this order: what was seen and is not being made any more has its record by now, or never gets one. Names are
    // never used twice, so what is garbage once stays garbage.
    let there: Vec<Info> = snapshotter.walk(&[]).try_collect().await?;
    let made: Vec<Info> = there.iter().filter(|info| !shared.building.has(&info.key)).cloned().collect();
    let recorded = shared.db.read(|view| inner_names(view, name))?;
    let garbage: HashSet<Key> = made.into_iter().map(|info| info.key).filter(|key| !recorded.contains(key)).collect();
    for key in children_first(&there, &garbage) {
        let bytes = snapshotter.usage(&key).await.map_or(0, |usage| usage.bytes);
        match snapshotter.remove(&key).await {
            Ok(()) => collected.snapshots.add(bytes),
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => failures.note(error.context(format!("remove snapshot {key}"))),
        }
    }
    Ok(())
}

/// Orders garbage so that children come before parents. What has a child that stays is left out, it has to stay too.
fn children_first(there: &[Info], garbage: &HashSet<Key>) -> Vec<Key> {
    let mut children: HashMap<&Key, u64> = HashMap::new();
    let parents: HashMap<&Key, &Key> =
        there.iter().filter_map(|info| Some((&info.key, info.parent.as_ref()?.as_key()))).collect();
    for parent in parents.values() {
        *children.entry(parent).or_default() += 1;
    }
    let childless = |children: &HashMap<&Key, u64>, key: &Key| children.get(key).is_none_or(|count| *count == 0);
    let mut ready: Vec<&Key> = garbage.iter().filter(|key| childless(&children, key)).collect();
    let mut order = Vec::new();
    while let Some(key) = ready.pop() {
        order.push(key.clone());
        let Some(parent) = parents.get(key) else { continue };
        if let Some(count) = children.get_mut(parent) {
            *count -= 1;
        }
        if childless(&children, parent)
            && let Some(parent) = garbage.get(*parent)
        {
            ready.push(parent);
        }
    }
    order
}

/// Removes the ingests that no lease holds and that nobody touched since `older_than`.
pub(super) async fn ingests(
    shared: &Arc<Shared>,
    older_than: SystemTime,
    collected: &mut Collected,
    failures: &mut Failures,
) {
    for found in failures.settle(shared.ingests.all().await).unwrap_or_default() {
        // The leases as they are now: what ended was removed, and what came since the mark counts.
        let held = shared.db.read(|view| is_held(view, &found));
        if failures.settle(held) != Some(false) {
            continue;
        }
        if found.touched_at >= older_than {
            let ends = found.touched_at + INGEST_AGE;
            collected.next_expiry = Some(collected.next_expiry.map_or(ends, |end| end.min(ends)));
            continue;
        }
        let removed = shared.ingests.sweep(&found, older_than).await;
        if failures.settle(removed.context(|| format!("discard ingest {}", found.id))) == Some(true) {
            collected.ingests.add(found.bytes);
        }
    }
}

/// Tells whether a lease holds an ingest.
pub(super) fn is_held(view: &impl View, found: &FoundIngest) -> Result<bool> {
    let Some((namespace, status)) = &found.owner else { return Ok(false) };
    let node = text_of(&Node::Ingest(status.ingest.to_string()));
    for lease in LEASES.keys(view, &db::Key::prefix([namespace.as_str()]), None, usize::MAX)? {
        if RESOURCES.contains(view, &db::Key::of([&lease, &node]))? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_core::Labels;
    use windlass_core::snapshot::State;

    fn info(key: &str, parent: Option<&str>) -> Info {
        let now = SystemTime::UNIX_EPOCH;
        Info {
            state: State::Committed,
            key: key.parse().unwrap(),
            parent: parent.map(|parent| parent.parse().unwrap()),
            labels: Labels::new(),
            created_at: now,
            updated_at: now,
        }
    }

    #[test]
    fn children_go_first_and_parents_of_what_stays_are_left() {
        let there = [
            info("a", None),
            info("b", Some("a")),
            info("c", Some("b")),
            info("kept-parent", None),
            info("kept", Some("kept-parent")),
        ];
        let garbage = ["a", "b", "c", "kept-parent"].iter().map(|key| key.parse().unwrap()).collect();
        let order: Vec<String> = children_first(&there, &garbage).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }
}
