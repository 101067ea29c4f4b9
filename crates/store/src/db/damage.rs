//! Damage to the database: whatever way it shows, it becomes an error that says what to do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use windlass_core::{Error, Result};

/// What mends a damaged database.
pub(super) const MEND: &str = "`dist fsck --repair` sets it aside and makes a new one of what is on the disk";

/// Uses the database, which is not made to be read when it is damaged and may panic over it.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(damaged(said.unwrap_or("it cannot be read")))
        }
    }
}

/// Returns the error of a database that is not what was written.
pub(crate) fn damaged(what: &str) -> Error {
    Error::data_loss(format!("the metadata database is damaged: {what}")).hint(MEND)
}
