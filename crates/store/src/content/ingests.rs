//! Ingests on disk: `content/ingest/<id>/{ref,data,state}`, where the id is the hash of namespace and ref.
//!
//! An ingest needs no record in the database: its directory says whose it is. It lasts until it is committed or aborted,
//! or until nobody holds it and a day has passed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use windlass_core::content::{Expected, IngestRef, Status};
use windlass_core::{Digest, Error, Namespace, Result, Scope, lease};

use super::open_refs::{Held, OpenRefs};
use super::sink::Sink;
use super::state::{Owner, State};
use crate::blocking::blocking;
use crate::disk::{Disk, Look};

/// The mode of an ingest's directory.
const MODE: u32 = 0o700;

/// The directory of ingests.
#[derive(Clone)]
pub(crate) struct Ingests {
    disk: Disk,
    directory: PathBuf,
    open: OpenRefs,
    boot: Option<Arc<str>>,
}

/// An ingest that was opened: the lock of its ref, and where its data is.
pub(super) struct Opened {
    pub(super) held: Held,
    pub(super) start: Start,
    pub(super) status: Status,
}

/// Where the data of an ingest is that was opened.
pub(super) enum Start {
    /// On the disk.
    Sink(Box<Sink>),
    /// Nowhere yet.
    Unborn(Box<Unborn>),
}

/// An ingest of which nothing is on the disk yet. One that ends as a [`small`](super::small) blob never is.
pub(super) struct Unborn {
    ingests: Ingests,
    namespace: Namespace,
    ingest: IngestRef,
    declared: Expected,
    started_at: SystemTime,
}

/// An ingest as it lies on disk.
pub(crate) struct Found {
    /// The name of its directory.
    pub(crate) id: String,
    /// Whose it is; `None` when the directory does not say.
    pub(crate) owner: Option<(Namespace, Status)>,
    /// When anything in it changed last.
    pub(crate) touched_at: SystemTime,
    /// How much it takes up.
    pub(crate) bytes: u64,
}

impl Ingests {
    /// Opens the directory below `content`, both of which exist.
    pub(super) fn open(disk: &Disk, content: &Path) -> Self {
        let directory = content.join("ingest");
        Self { disk: disk.clone(), directory, open: OpenRefs::default(), boot: disk.boot().map(Into::into) }
    }

    /// Locks the ref of an ingest.
    ///
    /// # Errors
    /// `Unavailable` naming age and offset of the writer that has it.
    pub(super) async fn claim(&self, namespace: &Namespace, ingest: &IngestRef) -> Result<Held> {
        self.open.claim(&id(namespace, ingest)).await.map_err(|holder| {
            Error::unavailable(format!(
                "ingest {ingest} has a writer since {} s, at byte {}",
                holder.age.as_secs(),
                holder.offset
            ))
            .hint("wait until it is done, or stop it")
        })
    }

    /// Opens an ingest whose ref is locked, new or where it was left. A new one comes to the disk when there is something
    /// to keep.
    ///
    /// # Errors
    /// `FailedPrecondition` when it was declared with another digest or size, or has more bytes than are declared.
    pub(super) async fn continued(
        &self,
        held: Held,
        scope: Scope,
        ingest: IngestRef,
        expected: Expected,
    ) -> Result<Opened> {
        let started_at = SystemTime::now();
        let (ingests, declared, namespace) = (self.clone(), expected, scope.namespace.clone());
        let unborn = Box::new(Unborn { ingests, namespace, ingest, declared, started_at });
        if !self.exists(&unborn.namespace, &unborn.ingest) {
            let status = unborn.status();
            held.announce(scope, status.clone());
            return Ok(Opened { held, start: Start::Unborn(unborn), status });
        }
        blocking(move || {
            let (sink, status) = unborn.open()?;
            held.set_offset(sink.offset());
            Ok(Opened { held, start: Start::Sink(sink), status })
        })
        .await
    }

    /// Returns where an ingest stands.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn status(&self, namespace: &Namespace, ingest: &IngestRef) -> Result<Status> {
        let id = id(namespace, ingest);
        let holder = self.open.holder(&id).await;
        let (disk, directory) = (self.disk.clone(), self.directory.join(&id));
        // Before the look: what comes to the disk meanwhile is announced for as long as it has a writer.
        let announced = self.open.announced(&id);
        let found = blocking(move || look(&disk, &directory, id)).await?;
        let owner = found.and_then(|found| found.owner).or(announced);
        let Some((_, mut status)) = owner else { return Err(not_found(ingest)) };
        if let Some(holder) = holder {
            status.offset = status.offset.max(holder.offset);
        }
        Ok(status)
    }

    /// Tells whether there is anything of an ingest on disk.
    pub(crate) fn exists(&self, namespace: &Namespace, ingest: &IngestRef) -> bool {
        matches!(self.disk.look(&self.directory.join(id(namespace, ingest))), Ok(Some(_)))
    }

    /// Lists the ingests of all namespaces.
    pub(crate) async fn all(&self) -> Result<Vec<Found>> {
        let announced = self.open.all_announced();
        let (disk, directory) = (self.disk.clone(), self.directory.clone());
        let mut all = blocking(move || {
            let mut names = Vec::new();
            disk.list(&directory, |name| names.push(name.to_owned()))?;
            let mut all = Vec::new();
            for name in names {
                // One that goes away meanwhile is not listed.
                all.extend(look(&disk, &directory.join(&name), name)?);
            }
            Ok(all)
        })
        .await?;
        for (id, (namespace, status)) in announced {
            if !all.iter().any(|found| found.id == id) {
                let (touched_at, bytes) = (SystemTime::now(), status.offset);
                all.push(Found { id, owner: Some((namespace, status)), touched_at, bytes });
            }
        }
        for found in &mut all {
            if let (Some(holder), Some((_, status))) = (self.open.holder(&found.id).await, &mut found.owner) {
                status.offset = status.offset.max(holder.offset);
            }
        }
        Ok(all)
    }

    /// Returns the ingests that a lease holds and of which nothing is on the disk yet.
    pub(crate) fn unborn_of(&self, namespace: &Namespace, lease: &lease::Id) -> Vec<IngestRef> {
        self.open.announced_for(namespace, lease)
    }

    /// Discards an ingest whose ref is locked by `held`, and tells whether there was one.
    pub(super) async fn discard(&self, held: Held, namespace: &Namespace, ingest: &IngestRef) -> Result<bool> {
        let (disk, directory) = (self.disk.clone(), self.directory.join(id(namespace, ingest)));
        blocking(move || {
            let removed = disk.remove_dir_all(&directory);
            drop(held);
            removed
        })
        .await
    }

    /// Discards what an abandoned ingest left, unless somebody has opened it since it was looked at.
    pub(crate) async fn sweep(&self, found: &Found, older_than: SystemTime) -> Result<bool> {
        let Ok(held) = self.open.claim(&found.id).await else { return Ok(false) };
        let (disk, directory) = (self.disk.clone(), self.directory.join(&found.id));
        let id = found.id.clone();
        blocking(move || {
            let abandoned = look(&disk, &directory, id)?.is_some_and(|now| now.touched_at < older_than);
            let removed = abandoned && disk.remove_dir_all(&directory)?;
            drop(held);
            Ok(removed)
        })
        .await
    }
}

pub(super) fn not_found(ingest: &IngestRef) -> Error {
    Error::not_found(format!("ingest {ingest} is not here")).hint("`dist content active` lists those there are")
}

/// Returns the name of an ingest's directory.
fn id(namespace: &Namespace, ingest: &IngestRef) -> String {
    Digest::sha256(format!("{namespace}\0{ingest}").as_bytes()).hex().to_owned()
}

impl Start {
    /// Returns the data on the disk, which it is brought to if need be. Blocking.
    pub(super) fn sink(self) -> Result<Box<Sink>, (Self, Error)> {
        match self {
            Self::Sink(sink) => Ok(sink),
            Self::Unborn(unborn) => match unborn.open() {
                Ok((sink, _)) => Ok(sink),
                Err(error) => Err((Self::Unborn(unborn), error)),
            },
        }
    }

    /// Tells where the first gap is, when there are any.
    pub(super) fn gap(&self) -> Option<u64> {
        match self {
            Self::Sink(sink) => sink.gap(),
            Self::Unborn(_) => None,
        }
    }

    /// Returns how many bytes are on the disk.
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Sink(sink) => sink.offset(),
            Self::Unborn(_) => 0,
        }
    }
}

impl Unborn {
    /// Brings the ingest to the disk, or finds it there. Blocking.
    pub(super) fn open(&self) -> Result<(Box<Sink>, Status)> {
        let Ingests { disk, directory, boot, .. } = &self.ingests;
        let directory = directory.join(id(&self.namespace, &self.ingest));
        let owner = Owner::new(self.namespace.clone(), self.ingest.clone(), self.started_at);
        let owner = open_directory(disk, &directory, owner)?;
        let left = State::read(disk, &directory)?.unwrap_or_default();
        let declared = declare(&owner.ingest, left.declared(), self.declared.clone())?;
        // Before the sink writes down what is declared: an opener who is refused declares nothing.
        let there = disk.look(&directory.join("data"))?.map_or(0, |data| data.length);
        check_size(&owner.ingest, there, declared.size)?;
        let sink = Sink::open(disk.clone(), &directory, declared.clone(), &left, boot.clone())?;
        let status = Status {
            ingest: owner.ingest,
            offset: sink.offset(),
            total: declared.size,
            expected: declared.digest,
            started_at: owner.started_at,
            updated_at: sink.updated_at()?.max(owner.started_at),
        };
        Ok((Box::new(sink), status))
    }

    fn status(&self) -> Status {
        Status {
            ingest: self.ingest.clone(),
            offset: 0,
            total: self.declared.size,
            expected: self.declared.digest.clone(),
            started_at: self.started_at,
            updated_at: self.started_at,
        }
    }
}

/// Makes the directory of an ingest say whose it is, and returns that. A crash may have left one that does not.
fn open_directory(disk: &Disk, directory: &Path, owner: Owner) -> Result<Owner> {
    disk.create_dir(directory, MODE)?;
    if let Some(owner) = Owner::read(disk, directory)? {
        return Ok(owner);
    }
    owner.write(disk, directory)?;
    Ok(owner)
}

/// Joins what was declared before with what is declared now.
fn declare(ingest: &IngestRef, before: Expected, now: Expected) -> Result<Expected> {
    fn same<T: PartialEq + std::fmt::Display>(
        ingest: &IngestRef,
        what: &str,
        before: Option<T>,
        now: Option<T>,
    ) -> Result<Option<T>> {
        match (before, now) {
            (Some(before), Some(now)) if before != now => Err(Error::failed_precondition(format!(
                "ingest {ingest} is in progress with {what} {before}, not {now}"
            ))
            .hint("abort it, or write under another ref")),
            (before, now) => Ok(before.or(now)),
        }
    }
    Ok(Expected {
        digest: same(ingest, "digest", before.digest, now.digest)?,
        size: same(ingest, "size", before.size, now.size)?,
    })
}

fn check_size(ingest: &IngestRef, offset: u64, total: Option<u64>) -> Result<()> {
    match total {
        Some(total) if offset > total => Err(Error::failed_precondition(format!(
            "ingest {ingest} has {offset} bytes already, more than the {total} that are declared"
        ))
        .hint("abort it, or write under another ref")),
        _ => Ok(()),
    }
}

/// Looks at the directory of an ingest; `None` when it is gone.
pub(crate) fn look(disk: &Disk, directory: &Path, id: String) -> Result<Option<Found>> {
    let Some(Look { modified_at: directory_at, .. }) = disk.look(directory)? else { return Ok(None) };
    let data = disk.look(&directory.join("data"))?;
    let (length, data_at) = data.map_or((0, directory_at), |data| (data.length, data.modified_at));
    let left = State::read(disk, directory)?.unwrap_or_default();
    let (offset, bytes) = left.here(length).map_or((length, length), |here| (here.prefix(), here.length_from(0)));
    let owner = match Owner::read(disk, directory)? {
        None => None,
        Some(owner) => {
            let Expected { digest, size } = left.declared();
            let Owner { namespace, ingest, started_at, .. } = owner;
            // The clock of the filesystem is a coarser one.
            let updated_at = data_at.max(started_at);
            let status = Status { ingest, offset, total: size, expected: digest, started_at, updated_at };
            Some((namespace, status))
        }
    };
    Ok(Some(Found { id, owner, touched_at: data_at.max(directory_at), bytes }))
}
