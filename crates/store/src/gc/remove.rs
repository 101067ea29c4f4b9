//! The removal of records that nothing keeps alive: many short transactions, between which others have their turn.
//!
//! What refers goes before what it refers to, so that whoever takes hold of something between two transactions still finds
//! all that it keeps alive. Before each removal the nodes that became referred to since the mark are marked too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use redb::ReadTransaction;
use windlass_core::gc::Node;
use windlass_core::{Namespace, Result};

use super::graph::{ById, Depth, Id, Marked};
use super::scan::{Seen, kind};
use crate::blocking::blocking;
use crate::db::schema::{CONTENTS, IMAGES, LEASES, LINKS, SNAPSHOTS};
use crate::db::{self, Key, Transaction};
use crate::leases::remove_lease;
use crate::snapshots::{Place, forget};
use crate::store::Shared;

/// How long one transaction may remove, so that nobody waits for long.
const BUDGET: Duration = Duration::from_millis(4);
/// How many records are offered to one transaction at most.
const BATCH: usize = 512;

/// What was removed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removed {
    pub(super) leases: u64,
    pub(super) images: u64,
    pub(super) contents: u64,
    /// Those and all others.
    pub(super) records: u64,
    /// How many transactions removed something, and how long others may have waited: for all of them, and for the slowest.
    pub(super) transactions: u64,
    pub(super) pause: Duration,
    pub(super) longest_pause: Duration,
}

/// Hears what collections removed that others know by name: images and snapshots. Content and leases go unsaid, as with
/// containerd.
pub trait Observer: Send + Sync {
    /// Tells whether anybody wants to know; otherwise nothing is gathered.
    fn is_needed(&self) -> bool;

    /// Hears of something that is gone, once that is durable.
    fn removed(&self, namespace: &str, object: &Node);
}

/// What one transaction removed.
#[derive(Default)]
struct Gone {
    tally: Removed,
    /// What is to be told, by namespace; nothing unless somebody wants to know.
    told: Option<Vec<(String, Node)>>,
}

impl Gone {
    fn tell(&mut self, namespace: &str, object: impl FnOnce() -> Node) {
        if let Some(told) = &mut self.told {
            told.push((namespace.to_owned(), object()));
        }
    }
}

/// What is marked, by a commit and by what was noted since.
pub(super) struct Marks {
    seen: Seen,
    marked: Mutex<Marked>,
}

impl Marks {
    pub(super) fn new(seen: Seen) -> Self {
        let marked = Mutex::new(seen.mark());
        Self { seen, marked }
    }

    /// Tells whether a node is kept alive.
    pub(super) fn has(&self, namespace: &str, node: &str) -> bool {
        self.marked().contains_key(&self.seen.ids.of(namespace, node))
    }

    /// Marks what became referred to. On the writer thread this is exact: whoever comes later finds the record gone.
    fn catch_up(&self, tx: &Transaction) {
        let noted = tx.activity().take_noted();
        let roots = noted.iter().map(|key| (self.seen.ids.of_key(key), Depth::Deep));
        self.seen.graph.mark(&mut self.marked(), roots);
    }

    fn marked(&self) -> MutexGuard<'_, Marked> {
        // What is marked only grows: it is whole whatever panicked.
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes expired leases, then every record that is not marked.
pub(super) async fn run(
    shared: &Arc<Shared>,
    commit: ReadTransaction,
    marks: &Arc<Marks>,
    now: SystemTime,
) -> Result<Removed> {
    let mut removed = Removed::default();
    let expired = marks.seen.expired_leases.iter().map(|key| Candidate::Lease(key.clone())).collect();
    remove_all(shared, marks, expired, now, &mut removed).await?;
    let (commit, linked) = linked_garbage(commit, marks.clone()).await?;
    remove_all(shared, marks, linked, now, &mut removed).await?;
    let mut commit = Some(commit);
    for leaves in [Leaves::Contents, Leaves::Snapshots] {
        let mut after = None;
        while let Some(view) = commit.take() {
            let (view, page) = leaves.page(view, marks.clone(), after).await?;
            commit = Some(view);
            remove_all(shared, marks, page.garbage, now, &mut removed).await?;
            let Some(last) = page.last else { break };
            after = Some(last);
        }
    }
    Ok(removed)
}

/// A record that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Candidate {
    /// A lease that had expired, by its key.
    Lease(String),
    /// A node, by `namespace \0 node`.
    Node(String),
}

/// Returns the records with links that are not marked, those that refer to others before those.
async fn linked_garbage(view: ReadTransaction, marks: Arc<Marks>) -> Result<(ReadTransaction, Vec<Candidate>)> {
    blocking(move || {
        let mut keys: ById<String> = ById::default();
        {
            let marked = marks.marked();
            LINKS.visit(&view, "", None, usize::MAX, |key, _| {
                let id = marks.seen.ids.of_key(key);
                let collected = key
                    .split_once('\0')
                    .is_some_and(|(_, node)| matches!(kind(node), "content" | "snapshot" | "image"));
                if collected && !marked.contains_key(&id) {
                    keys.insert(id, key.to_owned());
                }
                Ok(())
            })?;
        }
        let nodes: Vec<Id> = keys.keys().copied().collect();
        let order = marks.seen.graph.referrers_first(&nodes);
        let garbage = order.into_iter().filter_map(|id| keys.remove(&id)).map(Candidate::Node).collect();
        Ok((view, garbage))
    })
    .await
}

/// The tables with records that may have no links.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    Contents,
    Snapshots,
}

/// The garbage among some records, and the key of the last of them; none behind the end.
struct Page {
    garbage: Vec<Candidate>,
    last: Option<String>,
}

impl Leaves {
    async fn page(
        self,
        view: ReadTransaction,
        marks: Arc<Marks>,
        after: Option<String>,
    ) -> Result<(ReadTransaction, Page)> {
        blocking(move || {
            let mut page = Page { garbage: Vec::new(), last: None };
            let marked = marks.marked();
            let mut visit = |key: &str, _: &[u8]| {
                let node = self.node(key);
                let id = marks.seen.ids.of_key(&node);
                // What has links had its turn.
                if !marked.contains_key(&id) && !marks.seen.graph.has(id) {
                    page.garbage.push(Candidate::Node(node));
                }
                page.last = Some(key.to_owned());
                Ok(())
            };
            match self {
                Self::Contents => CONTENTS.visit(&view, "", after.as_deref(), PAGE, &mut visit)?,
                Self::Snapshots => SNAPSHOTS.visit(&view, "", after.as_deref(), PAGE, &mut visit)?,
            }
            drop(marked);
            Ok((view, page))
        })
        .await
    }

    /// Returns `namespace \0 node` for the key of a record.
    fn node(self, key: &str) -> String {
        let (namespace, rest) = key.split_once('\0').unwrap_or_default();
        match self {
            Self::Contents => format!("{namespace}\0content/{rest}"),
            Self::Snapshots => format!("{namespace}\0snapshot/{}", rest.replacen('\0', "/", 1)),
        }
    }
}

/// How many records are looked at in one go.
const PAGE: usize = 16 << 10;

async fn remove_all(
    shared: &Arc<Shared>,
    marks: &Arc<Marks>,
    candidates: Vec<Candidate>,
    now: SystemTime,
    removed: &mut Removed,
) -> Result<()> {
    let candidates = Arc::new(candidates);
    let mut next = 0;
    while next < candidates.len() {
        let (marks, candidates) = (marks.clone(), candidates.clone());
        let observer = shared.observer.get().filter(|observer| observer.is_needed());
        let is_needed = observer.is_some();
        let some = move |tx: &Transaction| {
            let began = Instant::now();
            marks.catch_up(tx);
            let mut outcome = Gone { told: is_needed.then(Vec::new), ..Gone::default() };
            let mut done = next;
            for candidate in candidates.iter().skip(next).take(BATCH) {
                remove(tx, &marks, candidate, now, &mut outcome)?;
                done += 1;
                if began.elapsed() > BUDGET {
                    break;
                }
            }
            Ok((done, outcome, began))
        };
        let (done, Gone { tally: outcome, told }, began) = shared.db.write(some).await?;
        for (namespace, object) in told.unwrap_or_default() {
            observer.inspect(|observer| observer.removed(&namespace, &object));
        }
        // Up to here, because the commit is a part of what others wait for.
        let pause = began.elapsed();
        removed.leases += outcome.leases;
        removed.images += outcome.images;
        removed.contents += outcome.contents;
        removed.records += outcome.records;
        removed.transactions += u64::from(outcome.records > 0);
        removed.pause += pause;
        removed.longest_pause = removed.longest_pause.max(pause);
        next = done;
    }
    Ok(())
}

/// Removes a record, unless it is kept alive by now.
fn remove(tx: &Transaction, marks: &Marks, candidate: &Candidate, now: SystemTime, gone: &mut Gone) -> Result<()> {
    let key = match candidate {
        Candidate::Lease(key) => {
            // There may be another one under the same id meanwhile.
            if LEASES.get(tx, key)?.is_some_and(|lease| lease.expires_at.is_some_and(|end| end <= now)) {
                remove_lease(tx, key)?;
                gone.tally.leases += 1;
                gone.tally.records += 1;
            }
            return Ok(());
        }
        Candidate::Node(key) => key,
    };
    let Some((namespace, text)) = key.split_once('\0') else { return Ok(()) };
    if marks.has(namespace, text) {
        return Ok(());
    }
    gone.tally.records += 1;
    match db::node(text) {
        Some(Node::Content(digest)) => {
            LINKS.remove(tx, key)?;
            gone.tally.contents += u64::from(CONTENTS.remove(tx, &Key::of([namespace, &digest.to_string()]))?);
        }
        Some(Node::Snapshot { snapshotter, key: name }) => {
            let record = SNAPSHOTS.get(tx, &Key::of([namespace, &snapshotter, &name]))?;
            let place = Place { namespace: namespace.parse::<Namespace>()?, snapshotter: snapshotter.clone() };
            match record {
                Some(record) => {
                    forget(tx, &place, &record.info.key, record.info.parent.as_ref())?;
                    gone.tell(namespace, || Node::Snapshot { snapshotter, key: name });
                }
                None => drop(LINKS.remove(tx, key)?),
            }
        }
        // An image whose time was put off is marked: whoever did that wrote its links.
        Some(Node::Image(name)) => {
            LINKS.remove(tx, key)?;
            if IMAGES.remove(tx, &Key::of([namespace, &name]))? {
                gone.tally.images += 1;
                gone.tell(namespace, || Node::Image(name));
            }
        }
        _ => {}
    }
    Ok(())
}
