//! Whether what a host keeps is what it was, as far as its services tell, while others work on it: the bytes of blobs, what images
//! point at, the snapshots that configs name, and those that snapshots stand on.
//!
//! Nothing is changed. What seems to be missing counts when the record that refers to it is still the one that it was, with its
//! times: somebody may have removed both, or be bringing both again. Not here: what only the disk and the databases tell, such as
//! what is left over, which is for the check of a root that nobody else has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt as _;
use tokio::task::JoinSet;
use windlass_core::content::{BLOB_MISSING, Info, Store};
use windlass_core::fsck::{Affected, Depth, Finding, Problem};
use windlass_core::progress::{State, Task, Tracker};
use windlass_core::snapshot::{self, Name, Snapshotter};
use windlass_core::{Descriptor, Digest, Error, Host, Kind, MediaType, Namespace, Result, Services, gc};

use crate::inventory::Inventory;

/// How much of a blob is read at once, in bytes.
const PART: usize = 1 << 20;

/// Looks at everything in all namespaces. The worst findings are the first.
///
/// # Errors
/// Those of the services; what is damaged or missing is a finding.
///
/// # Cancel safety
/// Nothing was changed by a check that is dropped, and nothing goes on.
pub async fn scrub(host: &dyn Host, depth: Depth, progress: &Tracker) -> Result<Vec<Finding>> {
    let any = host.services(&Namespace::default().into()).await?;
    let mut of_all = Vec::new();
    for namespace in any.namespaces.list().await? {
        of_all.push(host.services(&namespace.into()).await?);
    }
    let mut problems = BTreeSet::new();
    let mut blobs = BTreeMap::new();
    for services in &of_all {
        look_at_content(services, &mut blobs, &mut problems).await?;
        look_at_images(services, &mut problems).await?;
        for (name, snapshotter) in services.snapshotters.iter() {
            look_at_snapshots(services, name, &**snapshotter, &mut problems).await?;
        }
    }
    problems.extend(look_at_blobs(blobs, depth, progress).await?);
    let mut findings: Vec<Finding> = problems.into_iter().map(Finding::new).collect();
    if !findings.is_empty() {
        for services in &of_all {
            add_images(services, &mut findings).await?;
        }
    }
    findings.sort_by_key(Finding::severity);
    Ok(findings)
}

/// A blob that is to be looked at.
struct Blob {
    /// One record of it.
    info: Info,
    /// The store that has it.
    content: Arc<dyn Store>,
}

/// Looks at the records of blobs: at the snapshots that they name. Adds the blobs to those that are to be looked at.
async fn look_at_content(
    services: &Services,
    blobs: &mut BTreeMap<Digest, Blob>,
    problems: &mut BTreeSet<Problem>,
) -> Result<()> {
    let mut listed = services.content.list(&[]);
    while let Some(info) = listed.try_next().await? {
        for (name, key) in snapshots_named(&info) {
            let Some(snapshotter) = services.snapshotters.get(name) else { continue };
            if !is_here(&**snapshotter, key).await? && is_still(services.content.info(&info.digest).await, &info)? {
                let (namespace, snapshotter) = (services.scope.namespace.clone(), name.to_owned());
                problems.insert(Problem::SnapshotMissing { namespace, snapshotter, key: key.to_owned() });
            }
        }
        let content = services.content.clone();
        blobs.entry(info.digest.clone()).or_insert(Blob { info, content });
    }
    Ok(())
}

/// Returns the snapshots that a record names, with their snapshotters.
fn snapshots_named(info: &Info) -> impl Iterator<Item = (&str, &str)> {
    info.labels.iter().filter_map(|(label, key)| {
        let name = label.strip_prefix(gc::REF_SNAPSHOT)?;
        Some((name.split_once('/').map_or(name, |(name, _)| name), key))
    })
}

async fn is_here(snapshotter: &dyn Snapshotter, key: &str) -> Result<bool> {
    let Ok(key) = key.parse() else { return Ok(false) };
    Ok(or_gone(snapshotter.stat(&key).await)?.is_some())
}

/// Makes nothing of what is not there.
fn or_gone<T>(looked: Result<T>) -> Result<Option<T>> {
    match looked {
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        looked => looked.map(Some),
    }
}

/// Tells whether a record is still the one that it was.
fn is_still<T: PartialEq>(looked: Result<T>, was: &T) -> Result<bool> {
    Ok(or_gone(looked)?.is_some_and(|is| is == *was))
}

async fn look_at_images(services: &Services, problems: &mut BTreeSet<Problem>) -> Result<()> {
    let mut listed = services.images.list(&[]);
    while let Some(image) = listed.try_next().await? {
        let is_here = or_gone(services.content.info(&image.target.digest).await)?.is_some();
        if !is_here && is_still(services.images.get(&image.name).await, &image)? {
            let (namespace, Descriptor { digest, size, .. }) = (services.scope.namespace.clone(), image.target);
            problems.insert(Problem::TargetMissing { namespace, name: image.name, target: digest, size });
        }
    }
    Ok(())
}

/// Looks whether every snapshot's parent is there.
async fn look_at_snapshots(
    services: &Services,
    name: &str,
    snapshotter: &dyn Snapshotter,
    problems: &mut BTreeSet<Problem>,
) -> Result<()> {
    let listed: Vec<snapshot::Info> = snapshotter.walk(&[]).try_collect().await?;
    let keys: BTreeSet<&str> = listed.iter().map(|info| info.key.as_str()).collect();
    let parents = listed.iter().filter_map(|info| Some((info, info.parent.as_ref()?)));
    for (info, parent) in parents.filter(|(_, parent)| !keys.contains(parent.as_str())) {
        if !is_here(snapshotter, parent.as_str()).await? && is_still(snapshotter.stat(&info.key).await, info)? {
            problems.insert(Problem::ParentMissing {
                namespace: services.scope.namespace.clone(),
                snapshotter: name.to_owned(),
                key: info.key.to_string(),
                parent: parent.to_string(),
            });
        }
    }
    Ok(())
}

/// Looks at blobs, as many at once as there are processors.
async fn look_at_blobs(blobs: BTreeMap<Digest, Blob>, depth: Depth, progress: &Tracker) -> Result<Vec<Problem>> {
    let total = blobs.values().map(|blob| blob.info.size).sum();
    let reading = Arc::new(Reading { depth, done: AtomicU64::new(0), total, task: progress.task("blobs") });
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut blobs, mut looks, mut problems) = (blobs.into_iter(), JoinSet::new(), Vec::new());
    loop {
        while looks.len() < at_once
            && let Some((digest, blob)) = blobs.next()
        {
            let reading = reading.clone();
            // A task of its own, because hashing takes a processor.
            looks.spawn(async move { reading.look(digest, &blob).await });
        }
        let Some(looked) = looks.join_next().await else { break };
        problems.extend(looked.map_err(|error| Error::internal("looking at a blob panicked").source(error))??);
    }
    reading.task.set(State::Done);
    Ok(problems)
}

/// How blobs are read, and how far that is.
struct Reading {
    depth: Depth,
    done: AtomicU64,
    total: u64,
    task: Task,
}

impl Reading {
    async fn look(&self, digest: Digest, Blob { info, content }: &Blob) -> Result<Option<Problem>> {
        let size = info.size;
        let problem = match self.read(&**content, &digest, size).await {
            Ok(Read::Good) => return Ok(None),
            Ok(Read::Size(found)) => Problem::BlobSize { digest, size, found },
            Ok(Read::Other(found)) => Problem::BlobDigest { digest, size, found },
            Err(error) if error.is(Kind::NotFound) || error.code() == BLOB_MISSING => {
                Problem::BlobMissing { digest, size }
            }
            Err(error) if is_of_the_host(&error) => return Err(error),
            Err(error) => Problem::BlobUnreadable { digest, size, detail: error.to_string() },
        };
        let again = or_gone(content.info(&info.digest).await)?;
        // Labels may change under a blob that is as it was.
        Ok(again.filter(|again| again.created_at == info.created_at).map(|_| problem))
    }

    async fn read(&self, content: &dyn Store, digest: &Digest, size: u64) -> Result<Read> {
        let reader = content.reader(&Descriptor::new(MediaType::OCTET_STREAM, digest.clone(), size)).await?;
        if reader.size() != size {
            return Ok(Read::Size(reader.size()));
        }
        if self.depth == Depth::Sizes {
            // A store may have a record of what it lost.
            reader.read_at(0, 1).await?;
            return Ok(Read::Good);
        }
        let (mut hasher, mut at) = (digest.algorithm().hasher(), 0);
        while at < size {
            let part = reader.read_at(at, PART).await?;
            if part.is_empty() {
                return Ok(Read::Size(at));
            }
            hasher.update(&part);
            at += part.len() as u64;
            let offset = self.done.fetch_add(part.len() as u64, Ordering::Relaxed) + part.len() as u64;
            self.task.set(State::Checking { offset: offset.min(self.total), total: self.total });
        }
        let found = hasher.finish();
        Ok(if found == *digest { Read::Good } else { Read::Other(found) })
    }
}

/// What a blob is like.
enum Read {
    Good,
    /// It has this size.
    Size(u64),
    /// It has this digest.
    Other(Digest),
}

/// Tells whether an error says something of whoever was asked, and nothing of what he was asked for.
fn is_of_the_host(error: &Error) -> bool {
    use Kind::{
        Aborted, Canceled, DeadlineExceeded, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable,
    };
    [Aborted, Canceled, DeadlineExceeded, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable]
        .contains(&error.kind())
}

/// Adds to each finding the images that it affects.
async fn add_images(services: &Services, findings: &mut [Finding]) -> Result<()> {
    let mut listed = services.images.list(&[]);
    while let Some(image) = listed.try_next().await? {
        let namespace = &services.scope.namespace;
        let affected = Affected { namespace: namespace.clone(), name: image.name.clone() };
        // Of an image whose documents are damaged nothing else is known.
        let inventory = Inventory::of(&*services.content, &image.target).await.unwrap_or_default();
        let mut blobs = inventory.blobs();
        blobs.insert(image.target.digest.clone(), image.target);
        let snapshots: BTreeSet<Name> =
            inventory.manifests.iter().flat_map(|part| &part.chain).map(Name::from).collect();
        for finding in findings.iter_mut() {
            let is_affected = match &finding.problem {
                Problem::BlobMissing { digest, .. }
                | Problem::BlobSize { digest, .. }
                | Problem::BlobDigest { digest, .. }
                | Problem::BlobUnreadable { digest, .. } => blobs.contains_key(digest),
                Problem::TargetMissing { namespace: of, name, .. } => (of, name) == (namespace, &affected.name),
                Problem::SnapshotMissing { namespace: of, key, .. }
                | Problem::ParentMissing { namespace: of, key, .. } => {
                    of == namespace && snapshots.iter().any(|name| name.as_str() == key)
                }
                _ => false,
            };
            if is_affected {
                finding.images.push(affected.clone());
            }
        }
    }
    Ok(())
}
