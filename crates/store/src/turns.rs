//! Taking turns on a key: whoever moves the bytes of one digest, or the record of one snapshot name, is alone with it.
//!
//! This is exclusion between tasks of one process; between processes the root lock does it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Keys = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// The keys that somebody has or waits for.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Keys>);

/// The right to a key until it is dropped.
pub(crate) struct Turn {
    key: String,
    keys: Arc<Keys>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for a key. The guard is meant to be held over await points: that is the turn.
    pub(crate) async fn take(&self, key: impl Into<String>) -> Turn {
        let key = key.into();
        let lock = {
            let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            keys.entry(key.clone()).or_default().clone()
        };
        let guard = Some(lock.lock_owned().await);
        Turn { key, keys: self.0.clone(), guard }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.guard.take());
        // Waiters have clones of the lock; without any the table's is the only one.
        if keys.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_key_is_taken_in_turn_and_forgotten_afterwards() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let _other = turns.take("b").await;
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take("a").await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
