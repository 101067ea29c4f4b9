//! What has to be true of a store after whatever happened to its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt as _;
use windlass_core::content::ProviderExt as _;
use windlass_core::gc::Collector as _;
use windlass_core::snapshot::{Info, Snapshotter, State};
use windlass_core::{Descriptor, Digest, Kind, Scope};

use super::{Fact, SNAPSHOTTER, Thing};
use crate::store::Store;

/// Checks that every record has what it speaks of.
pub(super) async fn records(store: &Store) {
    let content = store.content(&Scope::default());
    let infos: Vec<_> = content.list(&[]).try_collect().await.unwrap();
    for info in infos {
        let descriptor = Descriptor::new("application/octet-stream", info.digest.clone(), info.size);
        let bytes = content.read_all(&descriptor, 1 << 20).await.unwrap();
        assert_eq!(Digest::sha256(&bytes), info.digest, "the bytes of a recorded blob");
    }
    let view = store.snapshotters(&Scope::default()).remove(SNAPSHOTTER).unwrap();
    let snapshots: Vec<Info> = view.walk(&[]).try_collect().await.unwrap();
    for info in snapshots {
        // An active one whose commit was cut short can only be removed.
        if info.state == State::Committed {
            view.usage(&info.key).await.unwrap();
        }
    }
}

/// Checks that what was acknowledged is so.
pub(super) async fn facts(store: &Store, facts: &BTreeMap<Thing, Fact>) {
    let scope = Scope::default();
    for (thing, fact) in facts {
        let found = match (thing, fact) {
            (Thing::Blob(_), Fact::Blob(descriptor)) => {
                store.content(&scope).read_all(descriptor, 1 << 20).await.map(|_| ())
            }
            (Thing::Blob(digest), _) => store.content(&scope).info(&digest.parse().unwrap()).await.map(|_| ()),
            (Thing::Image(name), _) => store.images(&scope).get(name).await.map(|image| {
                if let Fact::Target(target) = fact {
                    assert_eq!(image.target, *target, "{thing:?}");
                }
            }),
            (Thing::Lease(id), _) => {
                let leases = store.leases(&scope.namespace).list(&[]).await.unwrap();
                let there = leases.iter().any(|lease| lease.id == *id);
                there.then_some(()).ok_or_else(|| windlass_core::Error::not_found("no such lease"))
            }
            (Thing::Snapshot(key), _) => {
                let view = store.snapshotters(&scope).remove(SNAPSHOTTER).unwrap();
                view.stat(key).await.map(|_| ())
            }
        };
        match (fact, found) {
            (Fact::Gone, Err(error)) if error.is(Kind::NotFound) => {}
            (Fact::Gone, found) => panic!("{thing:?} is acknowledged to be gone: {found:?}"),
            (_, found) => found.unwrap_or_else(|error| panic!("{thing:?} was acknowledged: {error}")),
        }
    }
}

/// Makes every ingest look as if nobody had touched it for days.
pub(super) fn age_ingests(root: &Path) {
    let then = SystemTime::now() - Duration::from_hours(48);
    for ingest in std::fs::read_dir(root.join("content/ingest")).unwrap() {
        let ingest = ingest.unwrap().path();
        for file in std::fs::read_dir(&ingest).unwrap() {
            std::fs::File::open(file.unwrap().path()).unwrap().set_modified(then).unwrap();
        }
        std::fs::File::open(&ingest).unwrap().set_modified(then).unwrap();
    }
}

/// Checks that a collection leaves exactly what is referred to: no ingest, no blob and no snapshot without a record, and no
/// file that nobody knows.
pub(super) async fn collected(store: &Store, snapshotter: &dyn Snapshotter) {
    let root = store.root().to_owned();
    // Writers that were dropped have closed then.
    store.content(&Scope::default()).statuses(&[]).await.unwrap();
    age_ingests(&root);
    store.collect().await.unwrap();
    records(store).await;
    let infos: Vec<_> = store.content(&Scope::default()).list(&[]).try_collect().await.unwrap();
    let recorded: BTreeSet<String> = infos.iter().map(|info| info.digest.hex().to_owned()).collect();
    assert_eq!(names(&root.join("content/blobs/sha256")), recorded, "blobs");
    let leased = store.leases(&Scope::default().namespace);
    let mut held = 0;
    for lease in leased.list(&[]).await.unwrap() {
        let resources = leased.resources(&lease.id).await.unwrap();
        held += resources.iter().filter(|held| held.kind == windlass_core::lease::ResourceKind::Ingest).count();
    }
    assert_eq!(names(&root.join("content/ingest")), BTreeSet::new(), "ingests");
    assert_eq!(held, 0, "ingests that leases hold");
    let known = ["content", "lock", "meta.redb", "snapshots"].map(str::to_owned);
    assert_eq!(names(&root), BTreeSet::from(known), "files in the root");
    assert_eq!(names(&root.join("content")), BTreeSet::from(["blobs", "ingest", "small"].map(str::to_owned)));
    assert_eq!(names(&root.join("content/small")), BTreeSet::new(), "small blobs on their way");
    let view = store.snapshotters(&Scope::default()).remove(SNAPSHOTTER).unwrap();
    let recorded: Vec<Info> = view.walk(&[]).try_collect().await.unwrap();
    let behind: Vec<Info> = snapshotter.walk(&[]).try_collect().await.unwrap();
    assert_eq!(behind.len(), recorded.len(), "snapshots");
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
