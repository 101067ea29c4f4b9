//! Hosts that failed and were passed over, for whoever wants to know although another one did what they were asked.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use windlass_core::Attempt;

/// How many different failures are kept.
const MOST: usize = 32;

/// A host that failed to do something, in whose place another one was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// What it was asked, and what came of it: the first time.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// The stable code of why it failed, as that of an error.
    pub reason: String,
    /// How often it failed so.
    pub times: u64,
}

/// The list of them. Cheap to clone; clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct List(Arc<Mutex<Vec<PassedOver>>>);

impl List {
    /// Takes note of a failure; tells whether it is the first one of its host for that reason.
    pub(crate) fn add(&self, attempt: &Attempt, reason: &str) -> bool {
        // Every change is one addition.
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |known: &&mut PassedOver| known.attempt.host == attempt.host && known.reason == reason;
        if let Some(known) = list.iter_mut().find(is_same) {
            known.times = known.times.saturating_add(1);
            return false;
        }
        if list.len() < MOST {
            list.push(PassedOver { attempt: attempt.clone(), reason: reason.to_owned(), times: 1 });
        }
        true
    }

    /// Returns all of them.
    pub(crate) fn all(&self) -> Vec<PassedOver> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_listed_once_for_each_reason() {
        let list = List::default();
        let attempt = |host: &str| Attempt::new(host, "GET", "no");
        assert!(list.add(&attempt("a.test"), "registry-failed"));
        assert!(!list.add(&attempt("a.test"), "registry-failed"));
        assert!(list.add(&attempt("a.test"), "digest-mismatch") && list.add(&attempt("b.test"), "registry-failed"));
        let all: Vec<_> = list.all().into_iter().map(|it| (it.attempt.host, it.reason, it.times)).collect();
        let expected =
            [("a.test", "registry-failed", 2), ("a.test", "digest-mismatch", 1), ("b.test", "registry-failed", 1)];
        assert_eq!(all, expected.map(|(host, reason, times)| (host.to_owned(), reason.to_owned(), times)));
        for number in 0..2 * MOST {
            assert!(list.add(&attempt(&format!("{number}.test")), "x"));
        }
        assert_eq!(list.all().len(), MOST);
    }
}
