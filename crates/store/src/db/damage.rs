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

#[cfg(test)]
mod tests {
    use windlass_core::{Kind, Labels};

    use super::super::schema::{CONTENTS, IMAGES, NAMESPACES, NamespaceRecord};
    use super::super::{Database, FILE};
    use super::*;
    use crate::disk::Disk;

    /// Opens the database of a root, reads all of it and writes to it.
    async fn use_it(root: &std::path::Path) -> Result<()> {
        let database = Database::open(&Disk::real(), root, crate::unsynced::Trust::Full)?;
        database.read(|view| {
            NAMESPACES.all(view, "")?;
            IMAGES.all(view, "")?;
            CONTENTS.all(view, "").map(|_| ())
        })?;
        database.write(|tx| put(tx, "new")).await
    }

    fn put(tx: &super::super::Transaction, name: &str) -> Result<()> {
        let record = NamespaceRecord { labels: Labels::new(), created_at: std::time::SystemTime::now() };
        NAMESPACES.put(tx, name, &record)
    }

    #[tokio::test]
    async fn whatever_is_flipped_or_cut_off_nothing_panics_and_damage_is_data_loss() {
        let root = tempfile::tempdir().unwrap();
        let database = Database::open(&Disk::real(), root.path(), crate::unsynced::Trust::Full).unwrap();
        database.write(|tx| (0..500).try_for_each(|number| put(tx, &format!("namespace-{number}")))).await.unwrap();
        drop(database);
        let whole = std::fs::read(root.path().join(FILE)).unwrap();
        let mut found = 0;
        let mut attempt = async |bytes: &[u8], what: String| {
            let copy = tempfile::tempdir().unwrap();
            std::fs::write(copy.path().join(FILE), bytes).unwrap();
            if let Err(error) = use_it(copy.path()).await {
                assert!(error.is(Kind::DataLoss), "{what}: {error:?}");
                assert!(error.hint_text().is_some_and(|hint| hint.contains("fsck --repair")), "{what}: {error:?}");
                found += 1;
            }
        };
        // The header, and a byte of each part of each page.
        for at in (0..256).step_by(3).chain((0..whole.len()).step_by(5461)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            attempt(&bytes, format!("byte {at}")).await;
        }
        for length in [1, 100, 4096, 5000, whole.len() / 2, whole.len() - 1] {
            attempt(&whole[..length], format!("length {length}")).await;
        }
        assert!(found > 10, "{found}");
    }
}
