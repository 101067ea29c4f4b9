//! A new database of what is on the disk: blobs, documents, the names of snapshots, and what the old one still says.
//!
//! [`plan`] decides, as a pure function of what was found; [`rebuild`] carries out.

mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use windlass_core::error::IoResultExt;
use windlass_core::fsck::Problem;
use windlass_core::gc::Node;
use windlass_core::progress::Tracker;
use windlass_core::{Digest, Result, ResultExt};

use super::documents::Document;
use super::salvage::salvage;
use super::{Behind, Bytes, Depth, hashing, ingests};
use crate::blocking::blocking;
use crate::db::schema::{CONTAINERS, CONTENTS, IMAGES, LEASES, NAMESPACES, RESOURCES};
use crate::db::{Database, FILE, Links, Transaction, set_links};
use crate::disk::Disk;
use crate::elsewhere::Elsewhere;
use crate::unsynced::Trust;
use crate::{containers, images};
use plan::{Found, Plan};

/// Where the new database is made.
pub(super) const WORKSHOP: &str = "meta.rebuild";
/// How many records go into one transaction.
const BATCH: usize = 1000;

/// Replaces the database of a root, which nobody has open; the caller has the lock. The old one stays beside it, as
/// `meta.redb.damaged-<n>`.
///
/// 1. make the new one in `meta.rebuild/`  2. give the old one its second name  3. rename the new one over the first
/// 4. sync the root. Until 3 the old one is in its place, and the next repair begins anew.
///
/// # Errors
/// Those of the filesystem, and of the content store that has the blobs.
pub async fn rebuild(
    root: &Path,
    elsewhere: Option<&Elsewhere>,
    behind: BTreeMap<String, Behind>,
    progress: &Tracker,
) -> Result<()> {
    let (bytes, progress) = (Bytes::of(root, elsewhere)?, progress.clone());
    let plan = blocking(move || look(&bytes, &behind, &progress)).await?;
    let (disk, workshop) = (Disk::real(), root.join(WORKSHOP));
    disk.remove_dir_all(&workshop)?;
    disk.create_dir(&workshop, 0o700)?;
    fill(&disk, &workshop, plan).await.context(|| format!("make a new database in {}", workshop.display()))?; // 1.
    let path = root.join(FILE);
    if disk.look(&path)?.is_some() {
        let kept = free_name(&disk, root)?;
        std::fs::hard_link(&path, &kept).attempt(|| format!("keep {} as {}", path.display(), kept.display()))?; // 2.
    }
    disk.rename(&workshop.join(FILE), &path)?; // 3.
    disk.sync_dir(root)?; // 4.
    disk.remove_dir_all(&workshop)?;
    Ok(())
}

fn free_name(disk: &Disk, root: &Path) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let path = root.join(format!("{FILE}.damaged-{number}"));
        if disk.look(&path)?.is_none() {
            return Ok(path);
        }
        number += 1;
    }
}

/// Finds out what there is, and decides what is to be recorded.
fn look(bytes: &Bytes, behind: &BTreeMap<String, Behind>, progress: &Tracker) -> Result<Plan> {
    let (root, mut findings) = (bytes.root(), Vec::new());
    let stored = bytes.list(&mut findings)?;
    let good = hashing::check(bytes, Depth::Bytes, &stored, progress, &mut findings)?;
    for finding in findings {
        if let Problem::BlobDigest { digest, .. } | Problem::BlobUnreadable { digest, .. } = finding.problem {
            tracing::warn!(%digest, "a blob is damaged, and only an old record of it can be kept");
        }
    }
    let documents: BTreeMap<Digest, _> =
        good.keys().filter_map(|digest| Some((digest.clone(), Document::find_out(bytes, digest)?))).collect();
    let snapshots = behind
        .iter()
        .map(|(name, behind)| (name.clone(), behind.snapshots.iter().map(|had| had.info.clone()).collect()))
        .collect();
    let found =
        Found { stored, good, documents, snapshots, ingests: ingests::namespaces(root)?, salvaged: salvage(root) };
    Ok(plan::plan(found, std::time::SystemTime::now()))
}

async fn fill(disk: &Disk, directory: &Path, plan: Plan) -> Result<()> {
    let database = Database::open(disk, directory, Trust::Full)?;
    write_all(&database, plan.namespaces, |tx, (name, record)| NAMESPACES.put(tx, name, record)).await?;
    write_all(&database, plan.contents, |tx, (namespace, info)| {
        CONTENTS.put(tx, &format!("{namespace}\0{}", info.digest), info)?;
        set_links(tx, namespace, &Node::Content(info.digest.clone()), &Links::of(&info.labels))
    })
    .await?;
    write_all(&database, plan.snapshots, |tx, (place, record)| place.put(tx, record)).await?;
    write_all(&database, plan.leases, |tx, (key, lease)| LEASES.put(tx, key, lease)).await?;
    write_all(&database, plan.resources, |tx, (key, held)| RESOURCES.put(tx, key, held)).await?;
    write_all(&database, plan.containers, |tx, (namespace, container)| {
        CONTAINERS.put(tx, &format!("{namespace}\0{}", container.id), container)?;
        set_links(tx, namespace, &Node::Container(container.id.clone()), &containers::links(container))
    })
    .await?;
    // Last, as in a pull: a name is there when what it points at is.
    write_all(&database, plan.images, |tx, (namespace, image)| {
        IMAGES.put(tx, &format!("{namespace}\0{}", image.name), image)?;
        set_links(tx, namespace, &Node::Image(image.name.to_string()), &images::links(image))
    })
    .await
}

async fn write_all<T: Clone + Send + 'static>(
    database: &Database,
    records: Vec<T>,
    write: fn(&Transaction, &T) -> Result<()>,
) -> Result<()> {
    for batch in records.chunks(BATCH) {
        let batch = batch.to_vec();
        database.write(move |tx| batch.iter().try_for_each(|record| write(tx, record))).await?;
    }
    Ok(())
}
