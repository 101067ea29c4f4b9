//! Groups: mutations of one scope that are recorded together, or not at all.
//!
//! What can be done in a group is in the file of each noun, next to the trait: the single mutations of the traits are
//! groups of one.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use windlass_core::{Digest, Error, Result, Scope};

use crate::blocking::to_the_end;
use crate::content::remove_bytes;
use crate::db::{Barrier, Transaction};
use crate::store::Shared;

/// Mutations of one scope under way, in one transaction: see [`Store::transact`](crate::Store::transact).
///
/// What one member wrote, the next ones see; nobody else sees anything before all of it is durable. What members create is
/// held by the scope's lease, as it is when they are alone.
pub struct Group<'a> {
    pub(crate) tx: &'a Transaction,
    pub(crate) scope: &'a Scope,
    /// Blobs whose record went: their bytes go when that is durable.
    unrecorded: RefCell<Vec<Digest>>,
    /// What a member said that failed when it had written something.
    broken: Cell<Option<String>>,
}

impl<'a> Group<'a> {
    fn new(tx: &'a Transaction, scope: &'a Scope) -> Self {
        Self { tx, scope, unrecorded: RefCell::default(), broken: Cell::default() }
    }

    /// Returns the scope that everything here happens in.
    pub fn scope(&self) -> &Scope {
        self.scope
    }

    /// Carries out one member. One that fails halfway takes the group with it, even if its error is put aside.
    pub(crate) fn member<T>(&self, member: impl FnOnce(&Transaction) -> Result<T>) -> Result<T> {
        let before = self.tx.writes();
        let result = member(self.tx);
        if let Err(error) = &result
            && self.tx.writes() > before
        {
            self.broken.set(Some(error.to_string()));
        }
        result
    }

    /// Notes that a record of a blob went.
    pub(crate) fn unrecorded(&self, digest: &Digest) {
        self.unrecorded.borrow_mut().push(digest.clone());
    }

    fn finish(self) -> Result<Vec<Digest>> {
        match self.broken.take() {
            Some(error) => Err(Error::aborted(format!("a member of the group failed halfway: {error}"))),
            None => Ok(self.unrecorded.into_inner()),
        }
    }
}

impl Shared {
    /// Carries out a group, behind a barrier if there is one: [`Store::transact`](crate::Store::transact).
    ///
    /// 1. commit the records  2. remove the bytes of blobs whose last record went. A crash between the two leaves unrecorded
    ///    blobs that the sweep removes.
    pub(crate) async fn transact<T: Send + 'static>(
        self: &Arc<Self>,
        scope: &Scope,
        behind: Option<Barrier>,
        members: impl Fn(&Group<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let scope = scope.clone();
        let change = move |tx: &Transaction| {
            let group = Group::new(tx, &scope);
            let done = members(&group)?;
            Ok((done, group.finish()?))
        };
        let (done, unrecorded) = self.db.write_behind(behind, change).await?;
        if !unrecorded.is_empty() {
            to_the_end(remove_bytes(self.clone(), unrecorded)).await?;
        }
        Ok(done)
    }
}
