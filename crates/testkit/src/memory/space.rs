//! All records of one namespace behind one lock, so that every change is atomic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use windlass_core::container::Container;
use windlass_core::content::{self, IngestRef, Ranges, Status};
use windlass_core::field::FieldMask;
use windlass_core::image::Image;
use windlass_core::lease::{self, Lease, Resource, ResourceKind};
use windlass_core::snapshot::{self, Key};
use windlass_core::{Digest, Error, Labels, Result, image};

use super::behind::Follow;

/// The records of a namespace.
#[derive(Default)]
pub(super) struct Space {
    /// Whether the namespace was created, or something in it.
    pub(super) exists: bool,
    pub(super) labels: Labels,
    pub(super) blobs: BTreeMap<Digest, Blob>,
    pub(super) ingests: BTreeMap<IngestRef, Ingest>,
    pub(super) images: BTreeMap<image::Name, Image>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) leases: BTreeMap<lease::Id, (Lease, BTreeSet<Resource>)>,
    pub(super) snapshots: BTreeMap<Key, Snapshot>,
}

pub(super) struct Blob {
    pub(super) info: content::Info,
    pub(super) bytes: Bytes,
}

pub(super) struct Ingest {
    pub(super) status: Status,
    pub(super) bytes: Vec<u8>,
    /// Which of the bytes were written.
    pub(super) here: Ranges,
    /// Whoever reads behind the writer.
    pub(super) follow: Arc<Follow>,
    pub(super) locked: Option<std::time::Instant>,
}

pub(super) struct Snapshot {
    pub(super) info: snapshot::Info,
    pub(super) directory: PathBuf,
}

/// A namespace's records, and the lease that holds what is created through this handle.
#[derive(Clone, Default)]
pub(super) struct Scoped {
    space: Arc<Mutex<Space>>,
    lease: Option<lease::Id>,
}

impl Scoped {
    pub(super) fn new(space: Arc<Mutex<Space>>, lease: Option<lease::Id>) -> Self {
        Self { space, lease }
    }

    // No change is left half-made by a panic that could poison the lock: each is checked first and made at the end.
    pub(super) fn lock(&self) -> MutexGuard<'_, Space> {
        lock(&self.space)
    }

    /// Records that something is about to be created or was found, before it is.
    pub(super) fn hold(&self, space: &mut Space, kind: ResourceKind, id: impl Into<String>) -> Result<()> {
        space.exists = true;
        let Some(lease) = &self.lease else { return Ok(()) };
        let Some((_, resources)) = space.leases.get_mut(lease) else {
            return Err(Error::not_found(format!("lease {lease} is not here")));
        };
        resources.insert(Resource { kind, id: id.into() });
        Ok(())
    }

    /// Records that the lease need not hold something any more.
    pub(super) fn release(&self, space: &mut Space, kind: ResourceKind, id: impl Into<String>) {
        if let Some((_, resources)) = self.lease.as_ref().and_then(|lease| space.leases.get_mut(lease)) {
            resources.remove(&Resource { kind, id: id.into() });
        }
    }
}

pub(super) fn lock(space: &Mutex<Space>) -> MutexGuard<'_, Space> {
    space.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Applies a mask to a record of which only labels can be changed.
pub(super) fn relabel(labels: &Labels, change: &Labels, mask: &FieldMask) -> Result<Labels> {
    let mut changed = labels.clone();
    if let [unknown, ..] = mask.apply_to_labels(&mut changed, change).as_slice() {
        return Err(unknown_field(unknown));
    }
    changed.validate()?;
    Ok(changed)
}

pub(super) fn unknown_field(path: &windlass_core::field::FieldPath) -> Error {
    Error::invalid_argument(format!("field {path} cannot be changed"))
}
