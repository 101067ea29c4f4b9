//! Snapshots behind the view that are being made: they have no record yet, and the sweep must not take them for garbage.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_core::snapshot::Key;

/// The names of snapshots that are being made.
#[derive(Clone, Default)]
pub(crate) struct Building(Arc<Mutex<HashSet<Key>>>);

/// One of them, until it is dropped.
pub(super) struct UnderConstruction {
    name: Key,
    all: Building,
}

impl Building {
    /// Says that a snapshot is going to be made. To be called before it exists, and held until it has a record.
    pub(super) fn begin(&self, name: &Key) -> UnderConstruction {
        self.names().insert(name.clone());
        UnderConstruction { name: name.clone(), all: self.clone() }
    }

    /// Tells whether a snapshot is being made. Ask before looking for its record: it gets that before it leaves here.
    pub(crate) fn has(&self, name: &Key) -> bool {
        self.names().contains(name)
    }

    fn names(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderConstruction {
    fn drop(&mut self) {
        self.all.names().remove(&self.name);
    }
}
