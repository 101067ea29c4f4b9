//! The records of a snapshotter: which snapshots there are, in what state, on which parent, in which directory.
//!
//! Every change is one transaction; the rules of the life of a snapshot are checked inside of it. Not here: the
//! directories themselves, and the order in which they and the records change.

mod batch;
pub(crate) mod damage;
pub(crate) mod schema;

use std::collections::HashSet;
use std::path::Path;
use std::time::SystemTime;

use futures::stream::{self, StreamExt as _};
use redb::{ReadOnlyTable, ReadableTable};
use windlass_core::Listing;
use windlass_core::error::{Error, Result};
use windlass_core::field::FieldMask;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::label::Labels;
use windlass_core::snapshot::{Commit, Info, Key, Name, State, TARGET_LABEL, Usage};

pub(crate) use batch::Failure;
use batch::Writer;
use damage::guarded;
pub(crate) use schema::{CURRENT_FORMAT, Record};
use schema::{IDS, NEXT_ID, SNAPSHOTS};

/// How many records are read at a time by a listing.
const PAGE: usize = 256;

/// How deep parents are followed: far more than any image has layers, so that a damaged database cannot make a loop.
const MAX_PARENTS: usize = 100_000;

/// A snapshot and what it stands on, the nearest parent first.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) own: Record,
    pub(crate) parents: Vec<Record>,
}

/// What a snapshot begins with.
#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) key: Key,
    pub(crate) state: State,
    pub(crate) parent: Option<Name>,
    pub(crate) labels: Labels,
    /// When it began, before there was a directory.
    pub(crate) at: SystemTime,
}

/// How a snapshot is to be committed.
#[derive(Debug, Clone)]
pub(crate) struct Settle {
    pub(crate) key: Key,
    pub(crate) name: Name,
    pub(crate) commit: Commit,
    pub(crate) rebase: bool,
}

/// The records, in one database file.
pub(crate) struct Records {
    writer: Writer,
}

impl Records {
    /// Opens the database; a file that is missing is created by the first change.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { writer: Writer::open(path)? })
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Record> {
        self.read(|snapshots| expect(snapshots, key), || Err(missing(key)))
    }

    pub(crate) fn find(&self, key: &Key) -> Result<Option<Record>> {
        self.read(|snapshots| snapshots.find(key), || Ok(None))
    }

    pub(crate) fn chain(&self, key: &Key) -> Result<Chain> {
        self.read(|snapshots| chain(snapshots, expect(snapshots, key)?), || Err(missing(key)))
    }

    /// Checks what [`Records::begin`] will check, and returns the parent.
    pub(crate) fn admit(&self, begin: &Begin) -> Result<Option<Record>> {
        self.read(
            |snapshots| admit(snapshots, begin),
            || begin.parent.as_ref().map_or(Ok(None), |parent| Err(missing(parent.as_key()))),
        )
    }

    /// Records a new snapshot that has the directory `id`.
    pub(crate) fn begin(&self, id: u64, begin: Begin) -> Result<Chain> {
        self.writer.write(move |tables| {
            let parent = admit(&tables.snapshots, &begin)?;
            let own = Record {
                id,
                info: Info {
                    state: begin.state,
                    key: begin.key.clone(),
                    parent: begin.parent.clone(),
                    labels: begin.labels.clone(),
                    created_at: begin.at,
                    updated_at: begin.at,
                },
                usage: None,
            };
            let chain = chain(&tables.snapshots, own)?;
            tables.put(&chain.own)?;
            if let Some(parent) = parent {
                tables.children.insert((parent.info.key.as_str(), begin.key.as_str()), ())?;
            }
            let next = tables.meta.get(NEXT_ID)?.map_or(0, |next| next.value());
            tables.meta.insert(NEXT_ID, next.max(id + 1))?;
            Ok(chain)
        })
    }

    /// Changes labels.
    pub(crate) fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let (info, mask) = (info.clone(), mask.clone());
        self.writer.write(move |tables| {
            let mut record = expect(&tables.snapshots, &info.key)?;
            if let Some(other) = mask.apply_to_labels(&mut record.info.labels, &info.labels).first() {
                return Err(Error::invalid_argument(format!(
                    "field {other} of snapshot {} cannot be changed",
                    info.key
                ))
                .hint("labels and labels.<key> can")
                .into());
            }
            record.info.labels.validate()?;
            record.info.updated_at = SystemTime::now();
            tables.put(&record)?;
            Ok(record.info)
        })
    }

    /// Checks what [`Records::settle`] will check, and returns the record that will come of it.
    pub(crate) fn can_settle(&self, settle: &Settle) -> Result<Record> {
        self.read(|snapshots| settled(snapshots, settle), || Err(missing(&settle.key)))
    }

    /// Turns an active snapshot into a committed one.
    pub(crate) fn settle(&self, settle: Settle, usage: Usage) -> Result<()> {
        self.writer.write(move |tables| {
            let mut record = settled(&tables.snapshots, &settle)?;
            record.usage = Some(usage);
            tables.snapshots.remove(settle.key.as_str())?;
            tables.put(&record)?;
            if let Some(parent) = &record.info.parent {
                tables.children.remove((parent.as_str(), settle.key.as_str()))?;
                tables.children.insert((parent.as_str(), record.info.key.as_str()), ())?;
            }
            Ok(())
        })
    }

    /// Turns an active snapshot into the committed one of a name, in place of the one that may have the name: what stands
    /// on that stands on this from now on. Returns the directory that nobody has any more.
    pub(crate) fn replace(&self, name: &Name, key: &Key, parent: Option<&Name>, usage: Usage) -> Result<Option<u64>> {
        let (name, key, parent) = (name.clone(), key.clone(), parent.cloned());
        self.writer.write(move |tables| {
            let new = expect(&tables.snapshots, &key)?;
            let old = tables.snapshots.find(name.as_key())?;
            if new.info.state != State::Active || old.as_ref().is_some_and(|old| old.info.state != State::Committed) {
                return Err(
                    Error::failed_precondition(format!("snapshot {key} cannot take the place of {name}")).into()
                );
            }
            let own = new.info.parent.clone();
            let parent = old.as_ref().map_or(parent.or(own.clone()), |old| old.info.parent.clone());
            let labels = old.as_ref().map_or(new.info.labels.clone(), |old| old.info.labels.clone());
            let created_at = old.as_ref().map_or(new.info.created_at, |old| old.info.created_at);
            let info = Info {
                state: State::Committed,
                key: name.as_key().clone(),
                parent,
                labels,
                created_at,
                updated_at: SystemTime::now(),
            };
            tables.snapshots.remove(key.as_str())?;
            if let Some(own) = &own {
                tables.children.remove((own.as_str(), key.as_str()))?;
            }
            if let Some(old) = &old {
                tables.ids.remove(old.id)?;
            }
            if let Some(parent) = &info.parent {
                tables.children.insert((parent.as_str(), name.as_str()), ())?;
            }
            tables.put(&Record { id: new.id, info, usage: Some(usage) })?;
            Ok(old.map(|old| old.id))
        })
    }

    /// Checks what [`Records::remove`] will check.
    pub(crate) fn can_remove(&self, key: &Key) -> Result<Record> {
        let Some(read) = self.writer.begin_read()? else { return Err(missing(key)) };
        let check = || -> Result<Record, Failure> {
            removable(&read.open_table(SNAPSHOTS)?, &read.open_table(schema::CHILDREN)?, key)
        };
        guarded(check)
    }

    /// Forgets a snapshot and returns what was recorded of it.
    pub(crate) fn remove(&self, key: &Key) -> Result<Record> {
        let key = key.clone();
        self.writer.write(move |tables| {
            let record = removable(&tables.snapshots, &tables.children, &key)?;
            tables.snapshots.remove(key.as_str())?;
            tables.ids.remove(record.id)?;
            if let Some(parent) = &record.info.parent {
                tables.children.remove((parent.as_str(), key.as_str()))?;
            }
            Ok(record)
        })
    }

    /// Loses a record, as damage would.
    #[cfg(test)]
    pub(crate) fn lose(&self, key: &Key) {
        let key = key.clone();
        let lose = move |tables: &mut schema::Tables<'_>| {
            let record = expect(&tables.snapshots, &key)?;
            tables.ids.remove(record.id)?;
            tables.snapshots.remove(key.as_str())?;
            Ok(())
        };
        self.writer.write(lose).unwrap();
    }

    /// Lists what matches, as it was when the listing began.
    pub(crate) fn list(&self, filters: &[Filter]) -> Listing<Info> {
        let table = match self.snapshots() {
            Ok(Some(table)) => table,
            Ok(None) => return stream::empty().boxed(),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let filters = filters.to_vec();
        let pages = stream::try_unfold(Some((table, String::new())), move |state| {
            let filters = filters.clone();
            async move {
                let Some((table, after)) = state else { return Ok(None) };
                let read = tokio::task::spawn_blocking(move || page(table, &after, &filters));
                read.await.map_err(|error| Error::internal("list snapshots").source(error))?.map(Some)
            }
        });
        pages
            .map(|page| match page {
                Ok(infos) => stream::iter(infos.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .flatten()
            .boxed()
    }

    /// Returns the directories that belong to a record.
    pub(crate) fn ids(&self) -> Result<HashSet<u64>> {
        let Some(read) = self.writer.begin_read()? else { return Ok(HashSet::new()) };
        let collect = || -> Result<HashSet<u64>, Failure> {
            let table = read.open_table(IDS)?;
            let ids = table.iter()?.map(|entry| Ok(entry?.0.value()));
            ids.collect()
        };
        guarded(collect)
    }

    /// Returns the first id that was never recorded.
    pub(crate) fn next_id(&self) -> Result<u64> {
        let Some(read) = self.writer.begin_read()? else { return Ok(1) };
        let next = || -> Result<u64, Failure> {
            Ok(read.open_table(schema::META)?.get(NEXT_ID)?.map_or(1, |next| next.value()))
        };
        guarded(next)
    }

    fn snapshots(&self) -> Result<Option<ReadOnlyTable<&'static str, &'static [u8]>>> {
        let Some(read) = self.writer.begin_read()? else { return Ok(None) };
        guarded(|| Ok(Some(read.open_table(SNAPSHOTS)?)))
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&ReadOnlyTable<&'static str, &'static [u8]>) -> Result<T, Failure>,
        empty: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match self.snapshots()? {
            Some(snapshots) => guarded(|| read(&snapshots)),
            None => empty(),
        }
    }
}

type Snapshots<'a> = &'a dyn Find;

/// Finds a record by its key, in a transaction that reads or in one that writes.
trait Find {
    fn find(&self, key: &Key) -> Result<Option<Record>, Failure>;
}

impl<T: ReadableTable<&'static str, &'static [u8]>> Find for T {
    fn find(&self, key: &Key) -> Result<Option<Record>, Failure> {
        self.get(key.as_str())?
            .map(|value| Record::decode(key.as_str(), value.value()))
            .transpose()
            .map_err(Failure::Broken)
    }
}

fn missing(key: &Key) -> Error {
    Error::not_found(format!("snapshot {key} does not exist"))
}

fn expect(snapshots: Snapshots<'_>, key: &Key) -> Result<Record, Failure> {
    snapshots.find(key)?.ok_or_else(|| missing(key).into())
}

fn chain(snapshots: Snapshots<'_>, own: Record) -> Result<Chain, Failure> {
    let mut parents = Vec::new();
    let mut next = own.info.parent.clone();
    while let Some(name) = next.take() {
        if parents.len() == MAX_PARENTS {
            return Err(Error::data_loss(format!("snapshot {} has parents without end", own.info.key)).into());
        }
        let parent = snapshots.find(name.as_key())?.ok_or_else(|| {
            Error::data_loss(format!("snapshot {} has lost its ancestor {name}", own.info.key))
                .hint("remove it and unpack the image again")
        })?;
        next.clone_from(&parent.info.parent);
        parents.push(parent);
    }
    Ok(Chain { own, parents })
}

fn committed(snapshots: Snapshots<'_>, name: &Name) -> Result<Record, Failure> {
    let record = expect(snapshots, name.as_key())?;
    if record.info.state != State::Committed {
        return Err(Error::failed_precondition(format!(
            "snapshot {name} is {} and only committed ones can be parents",
            record.info.state
        ))
        .into());
    }
    Ok(record)
}

fn admit(snapshots: Snapshots<'_>, begin: &Begin) -> Result<Option<Record>, Failure> {
    if snapshots.find(&begin.key)?.is_some() {
        return Err(Error::already_exists(format!("snapshot {} exists", begin.key)).into());
    }
    if let Some(target) = begin.labels.get(TARGET_LABEL) {
        let target: Key = target.parse()?;
        if snapshots.find(&target)?.is_some_and(|record| record.info.state == State::Committed) {
            return Err(Error::already_exists(format!(
                "snapshot {target}, which {} is meant to become, exists",
                begin.key
            ))
            .into());
        }
    }
    begin.parent.as_ref().map(|parent| committed(snapshots, parent)).transpose()
}

fn settled(snapshots: Snapshots<'_>, settle: &Settle) -> Result<Record, Failure> {
    let Settle { key, name, commit, rebase } = settle;
    let mut record = expect(snapshots, key)?;
    if record.info.state != State::Active {
        return Err(Error::failed_precondition(format!(
            "snapshot {key} is {} and only active ones can be committed",
            record.info.state
        ))
        .into());
    }
    if snapshots.find(name.as_key())?.is_some() {
        return Err(Error::already_exists(format!("snapshot {name} exists")).into());
    }
    match (&record.info.parent, &commit.parent) {
        (_, None) => {}
        (Some(own), Some(wanted)) if own == wanted => {}
        (None, Some(wanted)) if *rebase => {
            committed(snapshots, wanted)?;
            record.info.parent = Some(wanted.clone());
        }
        (None, Some(wanted)) => {
            return Err(Error::failed_precondition(format!(
                "this snapshotter cannot put snapshot {key} onto {wanted} afterwards"
            ))
            .hint("prepare it on its parent")
            .into());
        }
        (Some(own), Some(wanted)) => {
            return Err(Error::failed_precondition(format!(
                "snapshot {key} stands on {own} and cannot be put onto {wanted}"
            ))
            .into());
        }
    }
    record.info.labels.extend(&commit.labels);
    record.info.labels.validate()?;
    record.info.state = State::Committed;
    record.info.key = name.as_key().clone();
    // A committed snapshot is a new one; so it is with containerd.
    record.info.created_at = SystemTime::now();
    record.info.updated_at = record.info.created_at;
    Ok(record)
}

fn removable(
    snapshots: Snapshots<'_>,
    children: &impl ReadableTable<(&'static str, &'static str), ()>,
    key: &Key,
) -> Result<Record, Failure> {
    let record = expect(snapshots, key)?;
    if let Some(child) = children.range((key.as_str(), "")..)?.next() {
        let child = child?.0;
        let (parent, child) = child.value();
        if parent == key.as_str() {
            return Err(Error::failed_precondition(format!("snapshot {key} has children, among them {child}"))
                .hint("remove its children first")
                .into());
        }
    }
    Ok(record)
}

type PageState = Option<(ReadOnlyTable<&'static str, &'static [u8]>, String)>;

/// Reads the next records behind a key; keys are never empty, so the empty text is before all of them.
fn page(
    table: ReadOnlyTable<&'static str, &'static [u8]>,
    after: &str,
    filters: &[Filter],
) -> Result<(Vec<Info>, PageState)> {
    let read = || -> Result<(Vec<Info>, Option<String>), Failure> {
        let bounds = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let (mut infos, mut last, mut count) = (Vec::new(), None, 0);
        for entry in table.range::<&str>(bounds)?.take(PAGE) {
            let (key, value) = entry?;
            let info = Record::decode(key.value(), value.value()).map_err(Failure::Broken)?.info;
            if any_matches(filters, &info) {
                infos.push(info);
            }
            last = Some(key.value().to_owned());
            count += 1;
        }
        Ok((infos, last.filter(|_| count == PAGE)))
    };
    let (infos, last) = guarded(read)?;
    Ok((infos, last.map(|last| (table, last))))
}
