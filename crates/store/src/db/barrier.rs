//! What has to be durable before a record is: passed on the writer thread, right before the commit.

use std::fmt;
use std::sync::Arc;

use windlass_core::{Error, Result};

/// A sync that a change waits for.
#[derive(Clone)]
pub(crate) struct Barrier {
    what: &'static str,
    pass: Arc<dyn Fn() -> Result<()> + Send + Sync>,
}

impl Barrier {
    /// Makes one. Barriers of one database that sync the same have the same name, and others have not.
    pub(crate) fn new(what: &'static str, pass: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self { what, pass: Arc::new(pass) }
    }

    /// Passes it, without a change that waits for that.
    #[cfg(test)]
    pub(crate) fn pass_alone(&self) -> Result<()> {
        (self.pass)()
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Barrier").field(&self.what).finish()
    }
}

/// The barriers of one commit.
#[derive(Default)]
pub(super) struct Passed(Vec<(&'static str, Result<()>)>);

impl Passed {
    /// Passes a barrier, unless that was done, and tells what came of it. Blocking.
    pub(super) fn pass(&mut self, barrier: &Barrier) -> Result<(), &Error> {
        let before = self.0.iter().position(|(what, _)| *what == barrier.what);
        let index = before.unwrap_or_else(|| {
            self.0.push((barrier.what, (barrier.pass)()));
            self.0.len() - 1
        });
        self.0.get(index).map_or(Ok(()), |(_, outcome)| outcome.as_ref().copied())
    }
}
