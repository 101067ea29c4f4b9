//! Activations: mounts below a state directory, with a record beside them.
//!
//! ```text
//! STATE/<number>/record.json   what was activated in which namespace; written before the first mount
//! STATE/<number>/<n>/          the place of the n-th mount
//! ```
//!
//! What mounts are known: those of the kernel, `windlass/erofs-lower` with the overlay that it belongs to, and the prefixes
//! `format/` and `mkdir/` of containerd (`transform`). What else begins with a prefix, and `loop`, is refused by name.
//!
//! The directory lives as long as the mounts, so it belongs where a restart of the machine empties it. Whoever opens it takes
//! over what is still mounted, and removes what a crash left half-made. Activations are held by nothing but their names: no
//! lease and no back reference lets them go.

mod plan;
mod transform;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rustix::mount::UnmountFlags;
use serde::{Deserialize, Serialize};
use windlass_core::activation::{Activation, Active, Manager, Name, Options};
use windlass_core::error::{Error, IoResultExt as _, Result, ResultExt as _};
use windlass_core::field::FieldMask;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::snapshot::Mount;
use windlass_core::{Labels, Namespace};

use crate::{mount, tree};
use plan::Plan;

const RECORD: &str = "record.json";

/// The activations of a state directory. Cheap to clone.
#[derive(Clone)]
pub struct Activations(Arc<Shared>);

struct Shared {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: BTreeMap<(Namespace, Name), Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    /// Somebody works on it.
    Busy,
    Here(Record),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    number: u64,
    namespace: Namespace,
    /// Whether everything was mounted.
    complete: bool,
    activation: Activation,
}

impl Activations {
    /// Opens a state directory, which is created when missing: what is still mounted as its record says is taken over, the
    /// rest is unmounted and removed.
    ///
    /// # Errors
    /// Those of the directory. What cannot be removed is logged and stays.
    pub async fn open(directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        blocking(move || {
            fs::create_dir_all(&directory).attempt(|| format!("create {}", directory.display()))?;
            // What the kernel calls it: mounts are looked up by that name.
            let directory = fs::canonicalize(&directory).attempt(|| format!("find {}", directory.display()))?;
            let shared = Shared { state: Mutex::new(recover(&directory)?), directory };
            Ok(Self(Arc::new(shared)))
        })
        .await
    }
}

/// Runs work that blocks to its end, also when nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::internal("the work on an activation was lost").source(error)))
}

/// Reads what an earlier owner left.
fn recover(directory: &Path) -> Result<State> {
    let mut state = State::default();
    let attempt = || format!("read {}", directory.display());
    for entry in fs::read_dir(directory).attempt(attempt)? {
        let path = entry.attempt(attempt)?.path();
        let Some(number) = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok()) else { continue };
        state.next = state.next.max(number.saturating_add(1));
        match whole(&path) {
            Some(record) if record.number == number => {
                let key = (record.namespace.clone(), record.activation.name.clone());
                state.entries.insert(key, Entry::Here(record));
            }
            _ => {
                if let Err(error) = clear(&path) {
                    tracing::warn!(%error, path = %path.display(), "what is left of an activation stays");
                }
            }
        }
    }
    Ok(state)
}

/// Reads a record whose mounts are all there.
fn whole(directory: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(directory.join(RECORD)).ok()?).ok()?;
    let mounted =
        |active: &Active| mount::mounted_at(Path::new(&active.mount_point)).is_ok_and(|found| found.is_some());
    (record.complete && record.activation.active.iter().all(mounted)).then_some(record)
}

/// Unmounts whatever is mounted in the directory of an activation, and removes it.
fn clear(directory: &Path) -> Result<()> {
    let attempt = || format!("clear {}", directory.display());
    let mut places: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory).attempt(attempt)? {
        places.push(entry.attempt(attempt)?.path());
    }
    // The later ones may stand on the earlier ones.
    places.sort_by_key(|path| std::cmp::Reverse(path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok())));
    for place in places.iter().filter(|place| place.is_dir()) {
        while mount::mounted_at(place)?.is_some() {
            mount::unmount_with(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        // Never more than an empty directory: what is still mounted is not deleted through it.
        fs::remove_dir(place).attempt(attempt)?;
    }
    match fs::remove_file(directory.join(RECORD)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).attempt(attempt)?,
        _ => {}
    }
    let _ = fs::remove_file(directory.join(TEMPORARY_RECORD));
    fs::remove_dir(directory).attempt(attempt)
}

const TEMPORARY_RECORD: &str = "record.json.new";

/// Writes a record in one step. It needs not survive a power cut, which takes the mounts along.
fn write(directory: &Path, record: &Record) -> Result<()> {
    let attempt = || format!("write the record in {}", directory.display());
    let json = serde_json::to_vec(record).map_err(|error| Error::internal("encode an activation").source(error))?;
    let new = directory.join(TEMPORARY_RECORD);
    fs::write(&new, json).and_then(|()| fs::rename(&new, directory.join(RECORD))).attempt(attempt)
}

/// The right to work on a name; whatever is found when it is dropped is what the name is from then on.
struct Turn {
    shared: Arc<Shared>,
    key: (Namespace, Name),
    left: Option<Record>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        match self.left.take() {
            Some(record) => state.entries.insert(self.key.clone(), Entry::Here(record)),
            None => state.entries.remove(&self.key),
        };
    }
}

impl Shared {
    // Every change under the lock is one call: a panic leaves nothing half-made.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn absent(name: &Name) -> Error {
        Error::not_found(format!("activation {name} is not here"))
    }

    fn busy(name: &Name) -> Error {
        Error::unavailable(format!("somebody activates or deactivates {name} just now")).hint("try again")
    }

    fn get(&self, key: &(Namespace, Name)) -> Result<Record> {
        match self.lock().entries.get(key) {
            Some(Entry::Here(record)) => Ok(record.clone()),
            Some(Entry::Busy) => Err(Self::busy(&key.1)),
            None => Err(Self::absent(&key.1)),
        }
    }

    /// Takes a name that is there, to work on it.
    fn take(self: &Arc<Self>, key: (Namespace, Name)) -> Result<(Turn, Record)> {
        let record = self.get(&key)?;
        let mut state = self.lock();
        match state.entries.insert(key.clone(), Entry::Busy) {
            Some(Entry::Here(_)) => {}
            other => {
                // Somebody was faster.
                match other {
                    Some(entry) => state.entries.insert(key.clone(), entry),
                    None => state.entries.remove(&key),
                };
                return Err(Self::busy(&key.1));
            }
        }
        drop(state);
        Ok((Turn { shared: self.clone(), key, left: Some(record.clone()) }, record))
    }

    /// Takes a name that is free.
    fn reserve(self: &Arc<Self>, key: (Namespace, Name)) -> Result<(Turn, u64)> {
        let mut state = self.lock();
        match state.entries.get(&key) {
            Some(Entry::Here(_)) => return Err(Error::already_exists(format!("activation {} is here", key.1))),
            Some(Entry::Busy) => return Err(Self::busy(&key.1)),
            None => {}
        }
        state.entries.insert(key.clone(), Entry::Busy);
        let number = state.next;
        state.next += 1;
        drop(state);
        Ok((Turn { shared: self.clone(), key, left: None }, number))
    }

    fn activate(self: &Arc<Self>, key: (Namespace, Name), mounts: Vec<Mount>, options: Options) -> Result<Activation> {
        let plan = Plan::of(mounts, options.temporary)?;
        options.labels.validate()?;
        let (mut turn, number) = self.reserve(key)?;
        let directory = self.directory.join(number.to_string());
        let activation =
            Activation { name: turn.key.1.clone(), active: Vec::new(), system: Vec::new(), labels: options.labels };
        let mut record = Record { number, namespace: turn.key.0.clone(), complete: false, activation };
        tree::make(&directory, 0o700)?;
        let made = write(&directory, &record).and_then(|()| plan.carry_out(&directory, &mut record.activation));
        let made = made.and_then(|()| {
            record.complete = true;
            write(&directory, &record)
        });
        if let Err(error) = made {
            if let Err(error) = clear(&directory) {
                tracing::warn!(%error, path = %directory.display(), "what was mounted stays");
            }
            return Err(error.context(format!("activate {}", turn.key.1)));
        }
        turn.left = Some(record.clone());
        Ok(record.activation)
    }

    fn deactivate(self: &Arc<Self>, key: (Namespace, Name)) -> Result<()> {
        let (mut turn, mut record) = self.take(key)?;
        let directory = self.directory.join(record.number.to_string());
        let attempt = || format!("deactivate {}", record.activation.name);
        let mut active = std::mem::take(&mut record.activation.active);
        while let Some(last) = active.last() {
            let place = Path::new(&last.mount_point);
            if mount::mounted_at(place).context(attempt)?.is_some()
                && let Err(error) = mount::unmount(place)
            {
                let name = record.activation.name.clone();
                record.activation.active = active;
                turn.left = Some(record);
                return Err(error.context(format!("deactivate {name}")));
            }
            active.pop();
        }
        turn.left = None;
        clear(&directory).context(attempt)
    }

    fn update(self: &Arc<Self>, key: (Namespace, Name), change: &Labels, mask: &FieldMask) -> Result<Activation> {
        let (mut turn, mut record) = self.take(key)?;
        let mut labels = record.activation.labels.clone();
        if let [other, ..] = mask.apply_to_labels(&mut labels, change).as_slice() {
            return Err(Error::invalid_argument(format!("field {other} of an activation cannot be changed"))
                .hint("labels and labels.KEY can"));
        }
        labels.validate()?;
        record.activation.labels = labels;
        write(&self.directory.join(record.number.to_string()), &record)?;
        turn.left = Some(record.clone());
        Ok(record.activation)
    }
}

#[async_trait]
impl Manager for Activations {
    async fn activate(
        &self,
        namespace: &Namespace,
        name: &Name,
        mounts: Vec<Mount>,
        options: Options,
    ) -> Result<Activation> {
        let (shared, key) = (self.0.clone(), (namespace.clone(), name.clone()));
        blocking(move || shared.activate(key, mounts, options)).await
    }

    async fn deactivate(&self, namespace: &Namespace, name: &Name) -> Result<()> {
        let (shared, key) = (self.0.clone(), (namespace.clone(), name.clone()));
        blocking(move || shared.deactivate(key)).await
    }

    async fn info(&self, namespace: &Namespace, name: &Name) -> Result<Activation> {
        self.0.get(&(namespace.clone(), name.clone())).map(|record| record.activation)
    }

    async fn update(
        &self,
        namespace: &Namespace,
        name: &Name,
        labels: &Labels,
        mask: &FieldMask,
    ) -> Result<Activation> {
        let (shared, key) = (self.0.clone(), (namespace.clone(), name.clone()));
        let (labels, mask) = (labels.clone(), mask.clone());
        blocking(move || shared.update(key, &labels, &mask)).await
    }

    async fn list(&self, namespace: &Namespace, filters: &[Filter]) -> Result<Vec<Activation>> {
        let state = self.0.lock();
        let of_namespace = state.entries.iter().filter(|((of, _), _)| of == namespace);
        let here = of_namespace.filter_map(|(_, entry)| match entry {
            Entry::Here(record) => Some(&record.activation),
            Entry::Busy => None,
        });
        Ok(here.filter(|activation| any_matches(filters, *activation)).cloned().collect())
    }
}
