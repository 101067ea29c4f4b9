//! One collection at a time; whoever asks while one runs shares the next.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use windlass_core::Result;

use super::Collected;
use crate::db::{Count, again};

/// The collections of one store.
#[derive(Default)]
pub(crate) struct Runs {
    begun: AtomicU64,
    last: tokio::sync::Mutex<Option<Run>>,
    /// For whoever does not want to wait for one that runs.
    until_now: Mutex<Collections>,
}

/// A collection that is over.
struct Run {
    number: u64,
    outcome: Result<Collected>,
    past: Past,
}

/// The collections of a store until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collections {
    /// How many there were.
    pub runs: u64,
    /// How long writers waited for them, all in all.
    pub pauses: Duration,
}

/// What the schedule wants to know about the collections until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// How many there were.
    pub(crate) runs: u32,
    /// How long others waited for them, all in all.
    pub(crate) pauses: Duration,
    /// How much had happened when the last one began, and what it changed itself.
    pub(crate) seen: Count,
}

impl Runs {
    /// Returns what came of a collection that began after the call: one that is made now, or the one that somebody else
    /// who asked meanwhile had made.
    pub(crate) async fn share<F>(&self, collect: impl FnOnce() -> F) -> Result<Collected>
    where
        F: Future<Output = (Result<Collected>, Count)>,
    {
        let ours = self.begun.load(Ordering::Acquire) + 1;
        let mut last = self.last.lock().await;
        if let Some(run) = last.as_ref().filter(|run| run.number >= ours) {
            return run.outcome();
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let (outcome, seen) = collect().await;
        let before = last.as_ref().map(|run| run.past).unwrap_or_default();
        let pause = outcome.as_ref().map(|collected| collected.pause).unwrap_or_default();
        let past = Past { runs: before.runs.saturating_add(1), pauses: before.pauses + pause, seen };
        *self.until_now.lock().unwrap_or_else(PoisonError::into_inner) =
            Collections { runs: past.runs.into(), pauses: past.pauses };
        let run = last.insert(Run { number, outcome, past });
        run.outcome()
    }

    /// Returns those that are over.
    pub(crate) fn until_now(&self) -> Collections {
        *self.until_now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the schedule wants to know; waits for a collection that runs.
    pub(crate) async fn past(&self) -> Past {
        self.last.lock().await.as_ref().map(|run| run.past).unwrap_or_default()
    }
}

impl Run {
    fn outcome(&self) -> Result<Collected> {
        self.outcome.as_ref().map(Clone::clone).map_err(again)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_while_a_collection_runs_share_one_that_begins_afterwards() {
        let runs = Arc::new(Runs::default());
        let made = Arc::new(AtomicU64::new(0));
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let collect = |wait: Option<tokio::sync::oneshot::Receiver<()>>| {
            let (runs, made) = (runs.clone(), made.clone());
            tokio::spawn(async move {
                let work = || async move {
                    if let Some(wait) = wait {
                        wait.await.unwrap();
                    }
                    let contents = made.fetch_add(1, Ordering::SeqCst) + 1;
                    (Ok(Collected { contents, ..Collected::default() }), Count::default())
                };
                runs.share(work).await.unwrap().contents
            })
        };
        let first = collect(Some(released));
        while runs.begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..5).map(|_| collect(None)).collect();
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), 1);
        for shared in later {
            assert_eq!(shared.await.unwrap(), 2);
        }
        assert_eq!(runs.past().await.runs, 2);
    }
}
