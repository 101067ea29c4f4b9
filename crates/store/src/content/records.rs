//! The records of blobs: written with what they refer to, and held by the lease that brought them.

use std::sync::Arc;
use std::time::SystemTime;

use windlass_core::content::{Info, IngestRef};
use windlass_core::field::FieldMask;
use windlass_core::gc::Node;
use windlass_core::{Digest, Error, Namespace, Result, ResultExt};

use crate::db::schema::{CONTENTS, NAMESPACES, RESOURCES};
use crate::db::{Key, Links, Transaction, View, admit, set_links, text_of, unlink};
use crate::group::Group;
use crate::store::Shared;

impl Group<'_> {
    /// Returns the record of a blob, as the group has it so far.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn content(&self, digest: &Digest) -> Result<Info> {
        let namespace = &self.scope.namespace;
        CONTENTS.get(self.tx, &content_key(namespace, digest))?.ok_or_else(|| not_here(namespace, digest))
    }

    /// Changes the labels of a blob that the mask names: [`Store::update`](windlass_core::content::Store::update).
    ///
    /// # Errors
    /// As the trait's.
    pub fn update_content(&self, change: &Info, mask: &FieldMask) -> Result<Info> {
        let update = |tx: &Transaction| {
            let mut info = self.content(&change.digest)?;
            if let Some(path) = mask.apply_to_labels(&mut info.labels, &change.labels).first() {
                return Err(Error::invalid_argument(format!("field {path} of a blob cannot be changed"))
                    .hint("labels and labels.<key> can"));
            }
            info.labels.validate()?;
            info.updated_at = SystemTime::now();
            put(tx, &self.scope.namespace, &info)?;
            Ok(info)
        };
        self.member(update).context(|| format!("update blob {}", change.digest))
    }

    /// Deletes the record of a blob; its bytes go after the group, if no namespace has a record of them any more.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_content(&self, digest: &Digest) -> Result<()> {
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            if !CONTENTS.remove(tx, &content_key(namespace, digest))? {
                return Err(not_here(namespace, digest));
            }
            unlink(tx, namespace, &Node::Content(digest.clone()))
        })?;
        self.unrecorded(digest);
        Ok(())
    }

    /// Records a blob, whether its bytes are here or not: for measuring a store of a size that nobody wants to fill with
    /// bytes. A record without bytes is damage; what brings content is [`Ingester`](windlass_core::content::Ingester).
    ///
    /// # Errors
    /// `NotFound` when the scope's lease does not exist; `InvalidArgument` for labels over the limit.
    #[doc(hidden)]
    pub fn record_content(&self, info: &Info) -> Result<Info> {
        info.labels.validate()?;
        self.record_blob(info, None)
    }

    /// Records a blob whose bytes are in place and durable. The scope's lease holds it, instead of the ingest that brought
    /// it.
    pub(super) fn record_blob(&self, info: &Info, ingest: Option<&IngestRef>) -> Result<Info> {
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            admit(tx, self.scope, &[Node::Content(info.digest.clone())])?;
            let info = match CONTENTS.get(tx, &content_key(namespace, &info.digest))? {
                // The record of a blob whose bytes had gone.
                Some(before) => repaired(before, info),
                None => info.clone(),
            };
            put(tx, namespace, &info)?;
            if let (Some(lease), Some(ingest)) = (&self.scope.lease, ingest) {
                let brought = text_of(&Node::Ingest(ingest.to_string()));
                RESOURCES.remove(tx, &Key::of([namespace.as_str(), lease.as_str(), &brought]))?;
            }
            Ok(info)
        })
    }
}

/// Removes the bytes of blobs of which a record went, unless some namespace has another.
pub(crate) async fn remove_bytes(shared: Arc<Shared>, digests: Vec<Digest>) -> Result<()> {
    shared.faults.reach("delete: record removed").await;
    for digest in digests {
        let _turn = shared.turns.take(digest.to_string()).await;
        if shared.db.read(|view| recorded_anywhere(view, &digest))? {
            continue;
        }
        shared.depot.remove(&digest).await?;
    }
    Ok(())
}

/// Tells whether any namespace has a record of a blob.
pub(crate) fn recorded_anywhere(view: &impl View, digest: &Digest) -> Result<bool> {
    let digest = digest.to_string();
    for namespace in NAMESPACES.keys(view, "", None, usize::MAX)? {
        if CONTENTS.contains(view, &Key::of([namespace.as_str(), &digest]))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn put(tx: &Transaction, namespace: &Namespace, info: &Info) -> Result<()> {
    CONTENTS.put(tx, &content_key(namespace, &info.digest), info)?;
    set_links(tx, namespace, &Node::Content(info.digest.clone()), &Links::of(&info.labels))
}

/// Returns the record of a blob that was brought again: what was said of it before stays said.
fn repaired(before: Info, now: &Info) -> Info {
    let mut labels = before.labels;
    labels.extend(&now.labels);
    Info { labels, created_at: before.created_at, ..now.clone() }
}

pub(super) fn not_here(namespace: &Namespace, digest: &Digest) -> Error {
    Error::not_found(format!("blob {digest} is not in namespace {namespace}"))
        .hint("`dist content ls` lists those there are")
}

/// Returns the key of a blob's record.
pub(super) fn content_key(namespace: &Namespace, digest: &Digest) -> String {
    Key::of([namespace.as_str(), &digest.to_string()])
}
