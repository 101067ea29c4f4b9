//! Claims: who does what in a host at the moment, so that the same work is done once and the others wait for it.
//!
//! A claim lives in the process that owns a root and ends with whoever made it, however that ends: nothing is recorded,
//! and nothing has to be cleaned up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::progress::{State, Task};
use crate::room::Size;

/// The claims of a host. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Claims(Arc<Mutex<BTreeMap<String, Claimed>>>);

/// Work that somebody does.
#[derive(Debug, Clone)]
pub struct Claimed {
    by: String,
    task: Task,
}

impl fmt::Display for Claimed {
    /// Says who does it, and how far it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.by)?;
        let Some(object) = self.task.object() else { return Ok(()) };
        match object.state {
            State::Fetching { offset, total } => write!(f, ", {} of {} fetched", Size(offset), Size(total)),
            State::Unpacking { offset, total } => write!(f, ", {} of {} unpacked", Size(offset), Size(total)),
            State::Waiting { .. } => write!(f, ", which waits itself"),
            State::Retrying { .. } => write!(f, ", which tries again"),
            _ => Ok(()),
        }
    }
}

/// The right to do something; given up when it is dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    work: String,
}

impl Claims {
    // A panic while the lock was held cannot leave a half-made state behind: every change is one call.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Claimed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims some work for whom that names, who tells with the task how far it is.
    ///
    /// # Errors
    /// Who does it already.
    pub fn claim(&self, work: impl Into<String>, by: impl Into<String>, task: &Task) -> Result<Claim, Claimed> {
        let work = work.into();
        let mut claims = self.lock();
        if let Some(claimed) = claims.get(&work) {
            return Err(claimed.clone());
        }
        claims.insert(work.clone(), Claimed { by: by.into(), task: task.clone() });
        Ok(Claim { claims: self.clone(), work })
    }

    /// Returns who does some work, if anybody does.
    pub fn claimed(&self, work: &str) -> Option<Claimed> {
        self.lock().get(work).cloned()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Tracker;

    #[test]
    fn work_is_claimed_once_until_the_claim_is_dropped() {
        let claims = Claims::default();
        let task = Tracker::new().task("layer-1");
        let claim = claims.claim("layer-1", "the pull of a", &task).unwrap();
        task.set(State::Fetching { offset: 1 << 20, total: 2 << 20 });
        let claimed = claims.claim("layer-1", "the pull of b", &task).unwrap_err();
        assert_eq!(claimed.to_string(), "the pull of a, 1.0 MiB of 2.0 MiB fetched");
        assert!(claims.claim("layer-2", "the pull of b", &task).is_ok());
        drop(claim);
        assert!(claims.claimed("layer-1").is_none());
        assert!(claims.claim("layer-1", "the pull of b", &task).is_ok());
    }
}
