//! Damage to the database: whatever way it shows, it becomes an error that says what to do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use windlass_core::error::{Error, Result};

use super::batch::Failure;

/// What mends a damaged database.
pub(crate) const MEND: &str = "`dist fsck --repair` sets it aside and makes a new one of what is on the disk";

/// Uses the database, which is not made to be read when it is damaged and may panic over it.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(Failure::into_error),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(damaged(said.unwrap_or("it cannot be read")))
        }
    }
}

/// Returns the error of a database that is not what was written.
pub(super) fn damaged(what: &str) -> Error {
    Error::data_loss(format!("the records of snapshots are damaged: {what}")).hint(MEND)
}
