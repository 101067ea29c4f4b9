//! The two small files of an ingest: `ref` says whose it is, `state` what was declared and how far the hash got.
//!
//! `state` is a shortcut and never the truth: one that is missing, damaged or from before a reboot costs hashing the
//! data again, and nothing else. A hash state is believed only within the boot that wrote it, because within one boot
//! the data it covers cannot have been lost, and after a power cut it may have been.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use windlass_core::content::{Expected, IngestRef, Ranges};
use windlass_core::digest::{Algorithm, Hasher};
use windlass_core::{Digest, Error, Namespace, Result, timestamp};

use crate::disk::{Disk, How};

/// The version of both files.
const VERSION: u32 = 1;
/// The version of a `state` that says which ranges are here: without it, the data would be taken for whole up to its end.
const VERSION_WITH_RANGES: u32 = 2;
/// How many ranges are written down at most, the first ones: what is not written down is brought again.
const MOST_RANGES: usize = 1000;
/// How much of them is read: a ref has at most 1 KiB, escaped at most six times that.
const MAX_LEN: usize = 64 << 10;
/// The mode of both files.
const MODE: u32 = 0o600;

/// Whose an ingest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    version: u32,
    pub(super) namespace: Namespace,
    #[serde(rename = "ref")]
    pub(super) ingest: IngestRef,
    #[serde(with = "timestamp")]
    pub(super) started_at: SystemTime,
}

impl Owner {
    pub(super) fn new(namespace: Namespace, ingest: IngestRef, started_at: SystemTime) -> Self {
        Self { version: VERSION, namespace, ingest, started_at }
    }

    /// Reads the file; `None` when it is missing or damaged.
    pub(super) fn read(disk: &Disk, directory: &Path) -> Result<Option<Self>> {
        let owner: Option<Self> = read(disk, &directory.join("ref"))?;
        Ok(owner.filter(|owner| owner.version == VERSION))
    }

    pub(super) fn write(&self, disk: &Disk, directory: &Path) -> Result<()> {
        write(disk, directory, "ref", self)
    }
}

/// What was declared, and how far the hash got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The size that was declared.
    pub(super) total: Option<u64>,
    /// The digest that was declared.
    pub(super) expected: Option<Digest>,
    hash: Option<SavedHash>,
    /// Which ranges of the data are here; all of it when that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    here: Option<Ranges>,
}

/// A running hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedHash {
    boot: String,
    algorithm: String,
    /// How many bytes of the data it covers.
    offset: u64,
    state: Vec<u8>,
}

impl State {
    pub(super) fn new(declared: &Expected) -> Self {
        Self { version: VERSION, total: declared.size, expected: declared.digest.clone(), hash: None, here: None }
    }

    /// Adds the running hash of the first `offset` bytes, when this boot is known.
    pub(super) fn with_hash(mut self, boot: Option<&str>, hasher: &Hasher, offset: u64) -> Self {
        self.hash = boot.map(|boot| SavedHash {
            boot: boot.to_owned(),
            algorithm: hasher.algorithm().to_string(),
            offset,
            state: hasher.save(),
        });
        self
    }

    /// Adds which ranges of the data are here.
    pub(super) fn with_ranges(mut self, here: &Ranges) -> Self {
        self.version = VERSION_WITH_RANGES;
        self.here = Some(here.iter().take(MOST_RANGES).collect());
        self
    }

    /// Returns which ranges of data of that length are here; `None` when that is all of it.
    pub(super) fn here(&self, length: u64) -> Option<Ranges> {
        let mut here = self.here.clone()?;
        here.remove(&(length..u64::MAX));
        Some(here)
    }

    /// Returns what was declared.
    pub(super) fn declared(&self) -> Expected {
        Expected { digest: self.expected.clone(), size: self.total }
    }

    /// Returns the running hash and how much it covers, if it can be continued over data of that length.
    pub(super) fn hash(&self, boot: Option<&str>, algorithm: Algorithm, length: u64) -> Option<(Hasher, u64)> {
        let saved = self.hash.as_ref()?;
        let usable = Some(saved.boot.as_str()) == boot
            && saved.algorithm.parse::<Algorithm>().ok() == Some(algorithm)
            && saved.offset <= length;
        if !usable {
            return None;
        }
        Hasher::restore(algorithm, &saved.state).ok().map(|hasher| (hasher, saved.offset))
    }

    /// Reads the file; `None` when it is missing or damaged.
    pub(super) fn read(disk: &Disk, directory: &Path) -> Result<Option<Self>> {
        let state: Option<Self> = read(disk, &directory.join("state"))?;
        Ok(state.filter(|state| matches!(state.version, VERSION | VERSION_WITH_RANGES)))
    }

    pub(super) fn write(&self, disk: &Disk, directory: &Path) -> Result<()> {
        write(disk, directory, "state", self)
    }
}

/// Reads one line of digest and one of JSON; `None` when they are missing or do not belong together.
fn read<T: for<'de> Deserialize<'de>>(disk: &Disk, path: &Path) -> Result<Option<T>> {
    let Some(text) = disk.read(path, MAX_LEN)? else { return Ok(None) };
    let Some((digest, json)) = std::str::from_utf8(&text).ok().and_then(|text| text.split_once('\n')) else {
        return Ok(None);
    };
    let json = json.trim_end_matches('\n');
    if Digest::sha256(json.as_bytes()).hex() != digest {
        return Ok(None);
    }
    Ok(serde_json::from_str(json).ok())
}

/// Writes the same beside the file and moves it there, so that a reader sees the old or the new one.
fn write<T: Serialize>(disk: &Disk, directory: &Path, name: &str, value: &T) -> Result<()> {
    let json = serde_json::to_string(value)
        .map_err(|error| Error::internal(format!("the {name} of an ingest cannot be encoded")).source(error))?;
    let text = format!("{}\n{json}\n", Digest::sha256(json.as_bytes()).hex());
    let new = directory.join(format!("{name}.new"));
    disk.open(&new, How::Replace(MODE))?.write_all_at(text.as_bytes(), 0)?;
    disk.rename(&new, &directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hasher {
        let mut hasher = Algorithm::Sha256.hasher();
        hasher.update(b"hello");
        hasher
    }

    #[test]
    fn a_hash_is_continued_only_in_its_boot_with_its_algorithm_over_its_data() {
        let state = State::new(&Expected::default()).with_hash(Some("boot"), &hello(), 5);
        assert_eq!(state.hash(Some("boot"), Algorithm::Sha256, 5).unwrap().1, 5);
        assert!(state.hash(Some("other"), Algorithm::Sha256, 5).is_none());
        assert!(state.hash(None, Algorithm::Sha256, 5).is_none());
        assert!(state.hash(Some("boot"), Algorithm::Sha512, 5).is_none());
        assert!(state.hash(Some("boot"), Algorithm::Sha256, 4).is_none());
    }

    #[test]
    fn a_damaged_state_is_as_good_as_none() {
        let (disk, directory) = (Disk::real(), tempfile::tempdir().unwrap());
        let state = State::new(&Expected::default()).with_hash(Some("boot"), &hello(), 5);
        assert_eq!(State::read(&disk, directory.path()).unwrap(), None);
        state.write(&disk, directory.path()).unwrap();
        assert_eq!(State::read(&disk, directory.path()).unwrap(), Some(state));
        let path = directory.path().join("state");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(State::read(&disk, directory.path()).unwrap(), None);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(State::read(&disk, directory.path()).unwrap(), None);
    }

    /// What version 1 wrote must be readable for ever.
    #[test]
    fn the_files_of_version_1_are_read() {
        let (disk, directory) = (Disk::real(), tempfile::tempdir().unwrap());
        std::fs::write(directory.path().join("ref"), include_str!("../../tests/fixtures/format-1/ingest.ref")).unwrap();
        std::fs::write(directory.path().join("state"), include_str!("../../tests/fixtures/format-1/ingest.state"))
            .unwrap();
        let owner = Owner::read(&disk, directory.path()).unwrap().unwrap();
        assert_eq!((owner.namespace.as_str(), owner.ingest.as_str()), ("default", "layer-1"));
        let state = State::read(&disk, directory.path()).unwrap().unwrap();
        assert_eq!(state.declared(), Expected { digest: Some(Digest::sha256(b"hello world")), size: Some(11) });
        let (mut hasher, offset) = state.hash(Some("golden"), Algorithm::Sha256, 5).unwrap();
        assert_eq!(offset, 5);
        hasher.update(b" world");
        assert_eq!(hasher.finish(), Digest::sha256(b"hello world"));
        // And written the same way today.
        let today = State::new(&state.declared()).with_hash(Some("golden"), &hello(), 5);
        assert_eq!(today, state);
        today.write(&disk, directory.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(directory.path().join("state")).unwrap(),
            include_str!("../../tests/fixtures/format-1/ingest.state")
        );
    }

    /// What version 2 wrote, of an ingest that was written at several places, must be readable for ever.
    #[test]
    fn the_state_of_version_2_is_read() {
        let (disk, directory) = (Disk::real(), tempfile::tempdir().unwrap());
        let golden = include_str!("../../tests/fixtures/format-1/ingest.ranges.state");
        std::fs::write(directory.path().join("state"), golden).unwrap();
        let state = State::read(&disk, directory.path()).unwrap().unwrap();
        assert_eq!(state.declared(), Expected { digest: Some(Digest::sha256(b"hello world")), size: Some(11) });
        let here = |length| state.here(length).unwrap().iter().collect::<Vec<_>>();
        assert_eq!(here(11), [0..5, 8..10]);
        assert_eq!(here(9), [0..5, 8..9], "no more than there is data");
        assert_eq!(here(3), [0..3; 1]);
        assert_eq!(state.hash(Some("golden"), Algorithm::Sha256, 5).unwrap().1, 5);
        assert!(state.hash(Some("golden"), Algorithm::Sha256, 3).is_none());
        // And written the same way today.
        let ranges = [0..5, 8..10].into_iter().collect();
        let today = State::new(&state.declared()).with_hash(Some("golden"), &hello(), 5).with_ranges(&ranges);
        today.write(&disk, directory.path()).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("state")).unwrap(), golden);
    }

    #[test]
    fn of_very_many_ranges_the_first_are_written_down() {
        let (disk, directory) = (Disk::real(), tempfile::tempdir().unwrap());
        let far = u64::MAX / 2;
        let ranges: Ranges = (0..100_000).map(|at| far + at * 2..far + at * 2 + 1).collect();
        State::new(&Expected::default()).with_ranges(&ranges).write(&disk, directory.path()).unwrap();
        let here = State::read(&disk, directory.path()).unwrap().unwrap().here(u64::MAX).unwrap();
        assert!(here.iter().count() >= 500 && ranges.iter().take(500).eq(here.iter().take(500)));
    }
}
