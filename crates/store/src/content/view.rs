//! Content as one namespace sees it: its own records over the bytes that all namespaces share.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::content::{
    BLOB_MISSING, Expected, FETCH_AGAIN, Info, IngestRef, Ingester, Provider, ReaderAt, Status, Store, Writer,
};
use windlass_core::field::FieldMask;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::gc::Node;
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, Listing, Result, ResultExt, Scope};

use super::ingests::{Start, not_found};
use super::open_refs::Held;
use super::records::{content_key, not_here};
use super::writer::IngestWriter;
use crate::blocking::to_the_end;
use crate::db::schema::{CONTENTS, RESOURCES};
use crate::db::{self, Key, admit, hold, is_open_to, listing, text_of};
use crate::store::Shared;

/// Content of one namespace; what is created is held by the scope's lease.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

impl Content {
    pub(super) fn key(&self, digest: &Digest) -> String {
        content_key(&self.scope.namespace, digest)
    }

    /// Tells whether the blob is here for the scope, and lets the scope's lease hold it. A blob that only other namespaces
    /// have is adopted when digest and size are those it has, and one of them lets it go that way.
    async fn present(&self, digest: &Digest, size: Option<u64>, ingest: &IngestRef) -> Result<bool> {
        let key = self.key(digest);
        let recorded = self.shared.db.read(|view| CONTENTS.get(view, &key))?;
        let Some(there) = self.shared.depot.size(digest).await? else { return Ok(false) };
        // Known to be damaged: it is brought once more.
        if self.shared.condemned.has(digest) {
            return Ok(false);
        }
        match recorded {
            // A blob that was damaged is brought once more.
            Some(info) if info.size != there => Ok(false),
            Some(_) => self.hold(digest).await,
            None if size == Some(there) && self.may_adopt(digest)? => {
                to_the_end(self.clone().adopt(digest.clone(), there, ingest.clone())).await
            }
            None => Ok(false),
        }
    }

    fn may_adopt(&self, digest: &Digest) -> Result<bool> {
        self.shared.db.read(|view| self.shared.sharing.lets_take_over_blob(view, digest))
    }

    /// Lets the scope's lease hold a recorded blob; `false` when the record has gone meanwhile.
    pub(super) async fn hold(&self, digest: &Digest) -> Result<bool> {
        if self.scope.lease.is_none() {
            return Ok(true);
        }
        let (key, scope, node) = (self.key(digest), self.scope.clone(), Node::Content(digest.clone()));
        let hold = move |tx: &db::Transaction| {
            let there = CONTENTS.contains(tx, &key)?;
            if there {
                hold(tx, &scope, std::slice::from_ref(&node))?;
            }
            Ok(there)
        };
        self.shared.db.write(hold).await
    }

    /// Lets the scope's lease hold an ingest, whose ref is locked: before anything of it comes to the disk, or right after when its writer
    /// was dropped. Until then there is nothing to hold, and one that becomes a blob at once is spared the record.
    pub(super) async fn hold_ingest(&self, ingest: &IngestRef) -> Result<()> {
        let Some(key) = self.resource(ingest) else { return Ok(()) };
        if self.shared.db.read(|view| RESOURCES.contains(view, &key))? {
            return Ok(());
        }
        let (scope, node) = (self.scope.clone(), Node::Ingest(ingest.to_string()));
        self.shared.db.write(move |tx| hold(tx, &scope, std::slice::from_ref(&node))).await
    }

    /// Lets the scope's lease no longer hold an ingest that is about to be discarded; its ref is locked.
    pub(super) async fn release(&self, ingest: &IngestRef) -> Result<()> {
        let Some(key) = self.resource(ingest) else { return Ok(()) };
        if !self.shared.db.read(|view| RESOURCES.contains(view, &key))? {
            return Ok(());
        }
        self.shared.db.write(move |tx| RESOURCES.remove(tx, &key).map(|_| ())).await
    }

    /// Returns the key of the record that the scope's lease, if there is one, holds an ingest.
    fn resource(&self, ingest: &IngestRef) -> Option<String> {
        let lease = self.scope.lease.as_ref()?;
        let node = text_of(&Node::Ingest(ingest.to_string()));
        Some(Key::of([self.scope.namespace.as_str(), lease.as_str(), &node]))
    }

    /// Records a blob whose bytes are here already; `false` when they have gone meanwhile.
    ///
    /// Bytes below `blobs` were verified and synced before they came there, recorded or not. That they came there is made
    /// durable once more: whoever moved them may have died before doing so.
    async fn adopt(self, digest: Digest, size: u64, ingest: IngestRef) -> Result<bool> {
        // The turn keeps the bytes from being collected before the record is there.
        let _turn = self.shared.turns.take(digest.to_string()).await;
        if self.shared.depot.size(&digest).await? != Some(size) {
            return Ok(false);
        }
        let now = SystemTime::now();
        let info = Info { digest, size, created_at: now, updated_at: now, labels: Labels::new() };
        self.record(info, Some(ingest)).await?;
        Ok(true)
    }

    /// Records a blob that is in its place and lets the scope's lease hold it, in one transaction, instead of the ingest
    /// that brought it. That it came to its place is made durable right before, on the database's thread.
    pub(super) async fn record(&self, info: Info, ingest: Option<IngestRef>) -> Result<Info> {
        let placed = self.shared.depot.barrier(info.digest.algorithm());
        self.shared.transact(&self.scope, placed, move |group| group.record_blob(&info, ingest.as_ref())).await
    }

    /// Discards what a crash right after a commit left of the ingest.
    async fn forget_ingest(&self, ingest: &IngestRef) -> Result<()> {
        if !self.shared.ingests.exists(&self.scope.namespace, ingest) {
            return Ok(());
        }
        match self.shared.ingests.claim(&self.scope.namespace, ingest).await {
            Ok(held) => self.give_up(held, ingest).await,
            // Its writer will find out by itself.
            Err(_) => Ok(()),
        }
    }

    /// Discards an ingest that is of no use any more. The lease lets go of it first: what it holds and is not there would
    /// not be found again.
    async fn give_up(&self, held: Held, ingest: &IngestRef) -> Result<()> {
        self.release(ingest).await?;
        self.shared.ingests.discard(held, &self.scope.namespace, ingest).await.map(|_| ())
    }

    pub(super) fn already_exists(&self, digest: &Digest) -> Error {
        Error::already_exists(format!("blob {digest} is in namespace {} already", self.scope.namespace))
    }
}

#[async_trait]
impl Provider for Content {
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        let info = self.info(&descriptor.digest).await?;
        let (depot, digest) = (&self.shared.depot, &info.digest);
        let damaged = |what: String| Error::data_loss(what).hint(FETCH_AGAIN);
        if self.shared.condemned.has(digest) {
            return Err(damaged(format!("blob {digest} was found to be damaged")));
        }
        match depot.reader(digest).await {
            Ok(reader) if reader.size() == info.size => Ok(reader),
            Ok(reader) => {
                Err(damaged(format!("blob {digest} has {} bytes on {depot}, {} were stored", reader.size(), info.size)))
            }
            Err(error) if error.is(Kind::NotFound) => {
                Err(damaged(format!("the bytes of blob {digest} are gone from {depot}")).coded(BLOB_MISSING))
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Ingester for Content {
    async fn writer(&self, ingest: &IngestRef, expected: Expected) -> Result<Box<dyn Writer>> {
        let open = async {
            if let Some(digest) = &expected.digest
                && self.present(digest, expected.size, ingest).await?
            {
                self.forget_ingest(ingest).await?;
                return Err(self.already_exists(digest));
            }
            let held = self.shared.ingests.claim(&self.scope.namespace, ingest).await?;
            // Whoever had the ref until now may just have committed.
            if let Some(digest) = &expected.digest
                && self.present(digest, expected.size, ingest).await?
            {
                self.give_up(held, ingest).await?;
                return Err(self.already_exists(digest));
            }
            let scope = self.scope.clone();
            if !self.shared.db.read(|view| is_open_to(view, &scope))? {
                self.shared.db.write(move |tx| admit(tx, &scope, &[])).await?;
            }
            let scope = self.scope.clone();
            let opened = self.shared.ingests.continued(held, scope, ingest.clone(), expected.clone()).await?;
            if matches!(opened.start, Start::Sink(_)) {
                self.hold_ingest(ingest).await?;
            }
            Ok(Box::new(IngestWriter::new(self.clone(), opened)) as Box<dyn Writer>)
        };
        open.await.context(|| format!("open ingest {ingest}"))
    }
}

#[async_trait]
impl Store for Content {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let key = self.key(digest);
        self.shared.db.read(|view| CONTENTS.get(view, &key))?.ok_or_else(|| not_here(&self.scope.namespace, digest))
    }

    fn list(&self, filters: &[Filter]) -> Listing<Info> {
        let prefix = Key::prefix([self.scope.namespace.as_str()]);
        listing(self.shared.clone(), &CONTENTS, prefix, filters, |info| info)
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let (info, mask) = (info.clone(), mask.clone());
        self.shared.transact(&self.scope, None, move |group| group.update_content(&info, &mask)).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let digest = digest.clone();
        self.shared.transact(&self.scope, None, move |group| group.delete_content(&digest)).await
    }

    async fn status(&self, ingest: &IngestRef) -> Result<Status> {
        self.shared.ingests.status(&self.scope.namespace, ingest).await
    }

    async fn statuses(&self, filters: &[Filter]) -> Result<Vec<Status>> {
        let mut statuses: Vec<Status> = self
            .shared
            .ingests
            .all()
            .await?
            .into_iter()
            .filter_map(|found| found.owner)
            .filter(|(namespace, status)| *namespace == self.scope.namespace && any_matches(filters, status))
            .map(|(_, status)| status)
            .collect();
        statuses.sort_by(|a, b| a.ingest.cmp(&b.ingest));
        Ok(statuses)
    }

    async fn abort(&self, ingest: &IngestRef) -> Result<()> {
        let held = self.shared.ingests.claim(&self.scope.namespace, ingest).await?;
        self.release(ingest).await?;
        let existed = self.shared.ingests.discard(held, &self.scope.namespace, ingest).await?;
        if existed { Ok(()) } else { Err(not_found(ingest)) }
    }
}
