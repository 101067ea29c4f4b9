//! What of a plan is not here yet, and the room that it needs.

use std::collections::BTreeSet;

use windlass_core::content::Expected;
use windlass_core::media_type::Role;
use windlass_core::room::{self, Free, Keeps, Size};
use windlass_core::{Error, Kind, Leased, Result};

use crate::fetch::Fetch;
use crate::plan::{BlobPlan, Plan};
use crate::pull::Content;
use crate::room::{Amount, Missing, MissingLayer, Room, Verdict};
use crate::unpack::Unpacker;

/// Looks what of a plan is missing and how much is free for it.
///
/// What another namespace has is found out only where it matters: when there is too little room for all of it.
pub(crate) async fn survey(
    leased: &Leased,
    fetch: &Fetch,
    plan: &Plan,
    unpacker: Option<&Unpacker>,
    content: Content,
) -> Result<Room> {
    let kept =
        |blob: &&BlobPlan| content == Content::Keep || unpacker.is_none() || !plan.is_layer(&blob.descriptor.digest);
    let blobs: Vec<&BlobPlan> = plan.blobs.iter().filter(|blob| !blob.present).filter(kept).collect();
    let free_content = free(&*leased.room, Keeps::Content).await;
    let snapshots = match unpacker {
        Some(unpacker) => free(&*leased.room, Keeps::Snapshots(&unpacker.name)).await,
        None => None,
    };
    let missing = missing(fetch, plan, &blobs, unpacker, Sharing::Ignored).await?;
    let room = Room::of(&missing, free_content.clone(), snapshots.clone());
    if room.verdict != Verdict::TooLittle {
        return Ok(room);
    }
    let missing = self::missing(fetch, plan, &blobs, unpacker, Sharing::TakenOver).await?;
    Ok(Room::of(&missing, free_content, snapshots))
}

/// Adds to the error of a full disk what was reached and what is free there now.
pub(crate) async fn explain(error: Error, room: &dyn room::Room, of: Keeps<'_>, reached: &str) -> Error {
    if !is_full(&error) {
        return error;
    }
    let Some(Free { filesystem, bytes, inodes, .. }) = free(room, of).await else { return error.context(reached) };
    let files = inodes.map_or_else(String::new, |files| format!(" and {files} files"));
    error.context(format!("{reached}, {}{files} are free on {filesystem}", Size(bytes)))
}

/// Tells whether a disk or a quota is what was exhausted: a registry's patience has the same kind.
pub(crate) fn is_full(error: &Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    error.os_cause().is_some_and(|cause| matches!(cause.kind(), StorageFull | QuotaExceeded))
}

/// A host that cannot tell what is free is as good as one that does not know.
async fn free(room: &dyn room::Room, of: Keeps<'_>) -> Option<Free> {
    room.free(of).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the room for this was not checked");
        None
    })
}

/// What is made of the things that another namespace has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// They count as missing.
    Ignored,
    /// They are taken over, as the pull would do it.
    TakenOver,
}

async fn missing(
    fetch: &Fetch,
    plan: &Plan,
    blobs: &[&BlobPlan],
    unpacker: Option<&Unpacker>,
    sharing: Sharing,
) -> Result<Missing> {
    let mut missing = Missing::default();
    for blob in blobs {
        if sharing == Sharing::TakenOver && is_taken_over(fetch, blob).await? {
            continue;
        }
        missing.blobs.push(blob.descriptor.size.saturating_sub(fetch.offset(&blob.descriptor).await.unwrap_or(0)));
    }
    let Some(unpacker) = unpacker else { return Ok(missing) };
    missing.copies = !unpacker.snapshotter.capabilities().rebase;
    let mut seen = BTreeSet::new();
    for image in &plan.images {
        let mut below = 0;
        for layer in &image.layers {
            let own = match layer.descriptor.media_type.role() {
                Role::Layer(_) => Amount::unpacked(&layer.descriptor),
                _ => Amount::default(),
            };
            let is_new = seen.insert(&layer.chain_id);
            if is_new && !unpacker.has_or_takes_over(layer, sharing == Sharing::TakenOver).await? {
                missing.layers.push(MissingLayer { own, below });
            }
            below += own.probably;
        }
    }
    Ok(missing)
}

/// Tells whether a blob was here in another namespace; it is opened as a fetch would do it.
async fn is_taken_over(fetch: &Fetch, blob: &BlobPlan) -> Result<bool> {
    let before = fetch.offset(&blob.descriptor).await;
    match fetch.content.writer(&blob.descriptor.ingest_ref(), Expected::from(&blob.descriptor)).await {
        Err(error) if error.is(Kind::AlreadyExists) => Ok(true),
        // Somebody writes it, or there is no room for even that: it is not here.
        Err(error) => {
            tracing::debug!(%error, digest = %blob.descriptor.digest, "whether it is here was not found out");
            Ok(false)
        }
        Ok(writer) => {
            drop(writer);
            if before.unwrap_or(0) == 0 {
                fetch.discard(&blob.descriptor).await;
            }
            Ok(false)
        }
    }
}
