//! The writer thread: takes the changes that are queued, carries them out in one transaction and commits them together.
//!
//! A commit costs two syncs of the disk whatever is in it, so callers that come at the same time share one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use windlass_core::error::IoResultExt;
use windlass_core::{Error, Result};

use super::barrier::{Barrier, Passed};
use super::damage::guarded;
use super::latest::Latest;
use super::{Activity, Transaction};

/// How many changes share a commit at most, so that nobody waits for an endless queue.
const MAX_GROUP: usize = 256;

/// The handle of the writer thread; dropping it waits until everything queued is done.
pub(super) struct Writer {
    queue: Option<Sender<Box<dyn Change>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(database: Arc<redb::Database>, activity: Arc<Activity>, latest: Arc<Latest>) -> Result<Self> {
        let (queue, queued) = channel();
        let thread = std::thread::Builder::new()
            .name("windlass-meta".to_owned())
            .spawn(move || run(&Committing { database, activity, latest }, &queued))
            .attempt(|| "start the thread of the metadata database".to_owned())?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(super) async fn submit<T, F>(&self, barrier: Option<Barrier>, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Transaction) -> Result<T> + Send + 'static,
    {
        let gone = || Error::internal("the thread of the metadata database is gone");
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        // One entry per waiting caller: the queue is as long as there are callers.
        queue.send(Box::new(Queued { barrier, change, outcome: None, reply })).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the metadata database panicked");
        }
    }
}

/// What the thread commits to.
struct Committing {
    database: Arc<redb::Database>,
    activity: Arc<Activity>,
    latest: Arc<Latest>,
}

fn run(to: &Committing, queued: &Receiver<Box<dyn Change>>) {
    while let Ok(first) = queued.recv() {
        let mut group = vec![first];
        group.extend(queued.try_iter().take(MAX_GROUP - 1));
        commit_together(to, behind_barriers(group));
    }
}

/// Passes the barriers of a group, each once; a change whose barrier fails leaves the group.
fn behind_barriers(group: Vec<Box<dyn Change>>) -> Vec<Box<dyn Change>> {
    let mut passed = Passed::default();
    let mut behind = Vec::with_capacity(group.len());
    for change in group {
        match change.barrier().map_or(Ok(()), |barrier| passed.pass(barrier)) {
            Ok(()) => behind.push(change),
            Err(error) => change.answer(Some(error)),
        }
    }
    behind
}

/// Carries out a group in one transaction. A change that fails after it wrote something, or panics, leaves the group, and
/// the others start over without it.
fn commit_together(to: &Committing, mut group: Vec<Box<dyn Change>>) {
    while !group.is_empty() {
        let committed = guarded(|| {
            let transaction = Transaction::begin(&to.database, &to.activity)?;
            let mut mutations = 0;
            let spoils = |change: &mut Box<dyn Change>| {
                let before = transaction.writes();
                let spoils = change.spoils(&transaction);
                mutations += u64::from(transaction.writes() > before);
                spoils
            };
            match group.iter_mut().position(spoils) {
                None => {
                    let deletions = transaction.deletions();
                    // Before, so that nothing is kept for who does not read at the moment; after, for who read meanwhile.
                    to.latest.is_over();
                    let committed = transaction.commit();
                    to.latest.is_over();
                    committed?;
                    to.activity.committed(mutations, deletions);
                    Ok(None)
                }
                Some(spoiler) => transaction.abort().map(|()| Some(spoiler)),
            }
        });
        match committed {
            Ok(Some(spoiler)) => group.remove(spoiler).answer(None),
            Ok(None) => return group.into_iter().for_each(|change| change.answer(None)),
            Err(error) => return group.into_iter().for_each(|change| change.answer(Some(&error))),
        }
    }
}

/// A change in the queue.
trait Change: Send {
    /// Returns what has to be durable before the change is.
    fn barrier(&self) -> Option<&Barrier>;

    /// Carries the change out and tells whether it failed halfway.
    fn spoils(&mut self, transaction: &Transaction) -> bool;

    /// Tells the caller what came of it; `failure` is that of the commit.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

struct Queued<T, F> {
    barrier: Option<Barrier>,
    change: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: Fn(&Transaction) -> Result<T> + Send> Change for Queued<T, F> {
    fn barrier(&self) -> Option<&Barrier> {
        self.barrier.as_ref()
    }

    fn spoils(&mut self, transaction: &Transaction) -> bool {
        let before = transaction.writes();
        // Callers bring code of their own. Where it got to is unknown, but the transaction is given up then, and with it
        // whatever the change has touched.
        let carried_out = catch_unwind(AssertUnwindSafe(|| (self.change)(transaction)));
        let panicked = carried_out.is_err();
        let outcome =
            carried_out.unwrap_or_else(|_| Err(Error::internal("a change of the metadata database panicked")));
        let failed = outcome.is_err();
        self.outcome = Some(outcome);
        panicked || failed && transaction.writes() > before
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let outcome = match (self.outcome, failure) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(done)), None) => Ok(done),
            (_, Some(failure)) => Err(again(failure)),
            (None, None) => Err(Error::internal("a change of the metadata database was not carried out")),
        };
        // A caller that stopped waiting does not want to know.
        let _ = self.reply.send(outcome);
    }
}

/// The same failure once more, for each of those who waited for one thing.
pub(crate) fn again(error: &Error) -> Error {
    let again = Error::new(error.kind(), error.to_string());
    match error.hint_text() {
        Some(hint) => again.hint(hint),
        None => again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Records;

    static NUMBERS: Records<u32> = Records::new("numbers");

    fn put(key: &'static str, fail: bool) -> (Box<dyn Change>, oneshot::Receiver<Result<()>>) {
        let (reply, answer) = oneshot::channel();
        let change = move |tx: &Transaction| {
            NUMBERS.put(tx, key, &1)?;
            if fail { Err(Error::not_found("by design")) } else { Ok(()) }
        };
        (Box::new(Queued { barrier: None, change, outcome: None, reply }), answer)
    }

    #[test]
    fn a_change_that_fails_halfway_leaves_no_trace_and_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let database = redb::Database::create(directory.path().join("db")).unwrap();
        let (changes, mut answers): (Vec<_>, Vec<_>) =
            [put("a", false), put("b", true), put("c", false), put("d", true)].into_iter().unzip();
        let activity = Arc::<Activity>::default();
        let database = Arc::new(database);
        let to = Committing { database: database.clone(), activity: activity.clone(), latest: Arc::default() };
        commit_together(&to, changes);
        let failed: Vec<bool> = answers.iter_mut().map(|answer| answer.try_recv().unwrap().is_err()).collect();
        assert_eq!(failed, [false, true, false, true]);
        assert_eq!(activity.count().mutations, 2);
        let view = Transaction::begin(&database, &activity).unwrap();
        let there = ["a", "b", "c", "d"].map(|key| NUMBERS.get(&view, key).unwrap().is_some());
        assert_eq!(there, [true, false, true, false]);
    }
}
