//! One sync for everybody who waits for it: whoever comes before it begins has its work covered by it.

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_core::Result;

use crate::blocking::blocking;
use crate::db::again;

/// The syncs of one thing, such as a directory.
#[derive(Debug, Default)]
pub(crate) struct Together {
    begun: AtomicU64,
    last: tokio::sync::Mutex<Option<Sync>>,
}

/// A sync that is over.
#[derive(Debug)]
struct Sync {
    number: u64,
    outcome: Result<()>,
}

impl Together {
    /// Returns when a sync is over that began after the call: one that is made now, on the blocking pool, or the one that
    /// somebody else made who came meanwhile.
    ///
    /// # Errors
    /// Those of that sync, whoever made it.
    ///
    /// # Cancel safety
    /// A call that is dropped syncs for nobody; the next one does it again.
    pub(crate) async fn pass(&self, sync: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let ours = self.begun.load(Ordering::Acquire) + 1;
        let mut last = self.last.lock().await;
        if let Some(over) = last.as_ref().filter(|over| over.number >= ours) {
            return over.outcome();
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let outcome = blocking(sync).await;
        last.insert(Sync { number, outcome }).outcome()
    }
}

impl Sync {
    fn outcome(&self) -> Result<()> {
        self.outcome.as_ref().copied().map_err(again)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use windlass_core::Error;

    use super::*;

    #[tokio::test]
    async fn whoever_comes_while_a_sync_runs_shares_the_next_one() {
        let (together, syncs) = (Arc::new(Together::default()), Arc::new(AtomicU32::new(0)));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let together = together.clone();
            async move {
                let sync = move || {
                    begin.send(()).unwrap();
                    released.recv().unwrap();
                    Ok(())
                };
                together.pass(sync).await
            }
        });
        begun.await.unwrap();
        let later = (0..20).map(|_| {
            let (together, syncs) = (together.clone(), syncs.clone());
            tokio::spawn(async move {
                let sync = move || {
                    syncs.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                };
                together.pass(sync).await
            })
        });
        let later: Vec<_> = later.collect();
        tokio::task::yield_now().await;
        assert!(later.iter().all(|task| !task.is_finished()), "nobody may use, or overtake, the sync that runs");
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        for task in later {
            task.await.unwrap().unwrap();
        }
        assert_eq!(syncs.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_sync_that_fails_fails_those_who_shared_it_and_nobody_after() {
        let together = Together::default();
        let running = together.last.lock().await;
        let mut failing = Box::pin(together.pass(|| Err(Error::resource_exhausted("by design"))));
        let mut shared = Box::pin(together.pass(|| panic!("shared with the first")));
        assert!(futures::poll!(&mut failing).is_pending() && futures::poll!(&mut shared).is_pending());
        drop(running);
        let (failed, shared) = futures::join!(failing, shared);
        assert!(failed.unwrap_err().is(windlass_core::Kind::ResourceExhausted));
        assert!(shared.unwrap_err().is(windlass_core::Kind::ResourceExhausted));
        together.pass(|| Ok(())).await.unwrap();
    }
}
