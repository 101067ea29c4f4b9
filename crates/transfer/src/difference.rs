//! The difference of two snapshots, as a layer in the content store.

use windlass_core::diff::CompareOptions;
use windlass_core::snapshot::{Key, Mount, Name, Snapshotter, State};
use windlass_core::{Descriptor, Error, Kind, Labels, Leased, Result, ResultExt as _};

/// The label of the lease of a comparison whose layer somebody writes out.
pub const LEASE_LABEL: &str = "windlass.dev/diff";

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshots {
    /// What was; the parent of the other one when absent, or nothing if that has none.
    pub lower: Option<Key>,
    /// What is.
    pub upper: Key,
}

/// Compares two snapshots. A committed one is looked at through a view, which goes again. The layer is held by the lease.
///
/// # Errors
/// `NotFound` without one of the snapshots; those of the comparer.
///
/// # Cancel safety
/// Dropping the call leaves at most views and an ingest, which the lease holds.
pub async fn compare(
    leased: &Leased,
    snapshotter: Option<&str>,
    snapshots: &Snapshots,
    options: CompareOptions,
) -> Result<Descriptor> {
    let (_, snapshotter) = leased.snapshotter(snapshotter)?;
    let upper = snapshotter.stat(&snapshots.upper).await?;
    let lower = match &snapshots.lower {
        Some(lower) => Some(lower.clone()),
        None => upper.parent.map(|parent| parent.as_key().clone()),
    };
    let mut views = Vec::new();
    let compared = async {
        let above = mounts(leased, &**snapshotter, &snapshots.upper, &mut views).await?;
        let below = match &lower {
            Some(lower) => mounts(leased, &**snapshotter, lower, &mut views).await?,
            None => Vec::new(),
        };
        leased.comparer.compare(&below, &above, options).await
    };
    let compared = compared.await;
    for view in &views {
        match snapshotter.remove(view).await {
            Err(error) if !error.is(Kind::NotFound) => {
                tracing::warn!(%error, %view, "a view that was made to compare stays for as long as its lease");
            }
            _ => {}
        }
    }
    compared.context(|| format!("compare snapshot {}", snapshots.upper))
}

/// Returns the mounts of a snapshot; of a committed one those of a view of it.
async fn mounts(leased: &Leased, snapshotter: &dyn Snapshotter, key: &Key, views: &mut Vec<Key>) -> Result<Vec<Mount>> {
    if snapshotter.stat(key).await?.state != State::Committed {
        return snapshotter.mounts(key).await;
    }
    let name: Name = key.as_str().parse()?;
    let view: Key = format!("compare-{}-{}", leased.lease(), views.len()).parse()?;
    let mounts = snapshotter.view(&view, Some(&name), Labels::new()).await;
    match mounts {
        Ok(mounts) => {
            views.push(view);
            Ok(mounts)
        }
        Err(error) if error.is(Kind::AlreadyExists) => {
            Err(Error::unavailable(format!("the view {view} is there")).hint("try again"))
        }
        Err(error) => Err(error),
    }
}
