//! Room: what a pull still has to write, reckoned before anything large moves, and whether it fits.
//!
//! Compressed bytes are known exactly: the sizes of the descriptors, less what ingests already have. How large a layer
//! becomes is known only to whoever has unpacked it, so there are two numbers:
//!
//! | | at least | probably |
//! |---|---|---|
//! | bytes of a layer | its blob, if compressed; nothing if plain: a tar may be headers alone | 1, 2.7 (gzip) or 3.1 (zstd) times its blob |
//! | bytes below a snapshotter that copies | the same | for each layer, its own and those of all below it |
//! | files | one a blob, two a layer | one more for each 16 KiB of layers, mke2fs' own guess |
//!
//! The factors are those of Debian-based images of Docker's library. What is needed at least and is not free refuses the
//! pull; what is needed probably and is not free is a warning. A filesystem that compresses, or a layer of names alone, may
//! need less than a compressed layer has: [`Pull::ignore_space`](crate::Pull::ignore_space) is for those who know.

use serde::Serialize;
use windlass_core::media_type::{Compression, Role};
use windlass_core::room::{Free, Size};
use windlass_core::{Descriptor, Error, Result};

/// How many bytes of layers have a file, probably: `inode_ratio` of mke2fs.conf(5).
const BYTES_A_FILE: u64 = 16 << 10;
/// The directory of a snapshot and the tree in it.
const FILES_A_LAYER: u64 = 2;

/// What a pull still has to write, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    /// How many blobs are not here yet.
    pub blobs: usize,
    /// How many layers are not unpacked yet.
    pub layers: usize,
    /// The bytes of the blobs that are still to come, exactly.
    pub download: u64,
    /// The bytes of the layers' trees.
    pub unpacked: Amount,
    /// The filesystems that take them, as far as the host knows.
    pub places: Vec<Place>,
    /// Whether it fits.
    pub verdict: Verdict,
}

/// A number that is known only between two others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// It is this at least.
    pub at_least: u64,
    /// It is this, by experience.
    pub probably: u64,
}

/// A filesystem, and what it has to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The filesystem, and what is free on it.
    #[serde(flatten)]
    pub free: Free,
    /// The bytes it has to take.
    pub needs_bytes: Amount,
    /// The files it has to take.
    pub needs_files: Amount,
}

/// Whether something fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The host does not know what is free.
    Unknown,
    /// It fits.
    Fits,
    /// It may not fit.
    Tight,
    /// It cannot fit.
    TooLittle,
}

/// What is not here yet of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The bytes that each blob lacks.
    pub(crate) blobs: Vec<u64>,
    /// The layers that are not unpacked, bottom first, each with what lies below it in its stack.
    pub(crate) layers: Vec<MissingLayer>,
    /// Whether a snapshot is a copy of its parent.
    pub(crate) copies: bool,
}

/// A layer that is not unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MissingLayer {
    pub(crate) own: Amount,
    /// What all layers below have together, probably.
    pub(crate) below: u64,
}

impl Room {
    /// Reckons what is needed of the filesystems that take content and snapshots.
    pub(crate) fn of(missing: &Missing, content: Option<Free>, snapshots: Option<Free>) -> Self {
        let download = missing.blobs.iter().sum();
        let blobs = missing.blobs.len() as u64;
        let layers = missing.layers.len() as u64;
        let unpacked = missing.layers.iter().fold(Amount::default(), |sum, layer| {
            let copied = if missing.copies { layer.below } else { 0 };
            sum.plus(layer.own).plus(Amount { at_least: 0, probably: copied })
        });
        let files = Amount { at_least: layers * FILES_A_LAYER, probably: unpacked.probably / BYTES_A_FILE };
        let files = Amount { probably: files.at_least + files.probably, ..files };
        let mut places: Vec<Place> = Vec::new();
        let mut put = |free: Option<Free>, needs_bytes: Amount, needs_files: Amount| {
            let Some(free) = free else { return };
            match places.iter_mut().find(|place| place.free.filesystem == free.filesystem) {
                Some(place) => {
                    place.needs_bytes = place.needs_bytes.plus(needs_bytes);
                    place.needs_files = place.needs_files.plus(needs_files);
                }
                None => places.push(Place { free, needs_bytes, needs_files }),
            }
        };
        if blobs > 0 {
            put(content, Amount::exactly(download), Amount::exactly(blobs));
        }
        if layers > 0 {
            put(snapshots, unpacked, files);
        }
        let verdict = places.iter().map(Place::verdict).max();
        let nothing = if blobs + layers == 0 { Verdict::Fits } else { Verdict::Unknown };
        let verdict = verdict.unwrap_or(nothing);
        Self { blobs: missing.blobs.len(), layers: missing.layers.len(), download, unpacked, places, verdict }
    }

    /// Refuses what cannot fit, and warns of what may not.
    ///
    /// # Errors
    /// `ResourceExhausted` with the numbers.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(place) = self.places.iter().find(|place| place.verdict() == self.verdict) else { return Ok(()) };
        match self.verdict {
            Verdict::TooLittle => Err(Error::resource_exhausted(self.lack(place, "at least", |need| need.at_least))
                .hint(
                    "`dist images rm` makes room, `dist gc --plan` says what could go; or choose a root on another \
                     filesystem with --root; --ignore-space tries all the same",
                )),
            Verdict::Tight => {
                tracing::warn!("{}; the disk may become full", self.lack(place, "probably", |need| need.probably));
                Ok(())
            }
            Verdict::Fits | Verdict::Unknown => Ok(()),
        }
    }

    /// Says what a filesystem lacks, by one of the two numbers.
    fn lack(&self, place: &Place, how: &str, number: impl Fn(&Amount) -> u64) -> String {
        let what = format!("{} and {}", count(self.blobs, "blob"), count(self.layers, "layer"));
        let Free { filesystem, directory, bytes, inodes } = &place.free;
        let (needed, files) = (number(&place.needs_bytes), number(&place.needs_files));
        match inodes {
            Some(inodes) if needed <= *bytes && files > *inodes => {
                format!("needs {how} {files} files for {what} below {directory}, {inodes} are free on {filesystem}")
            }
            _ => format!(
                "needs {how} {} for {what} below {directory}, {} are free on {filesystem}",
                Size(needed),
                Size(*bytes)
            ),
        }
    }
}

impl Place {
    /// Tells whether it fits.
    pub fn verdict(&self) -> Verdict {
        let files = self.free.inodes.unwrap_or(u64::MAX);
        let fits = |number: fn(&Amount) -> u64| {
            number(&self.needs_bytes) <= self.free.bytes && number(&self.needs_files) <= files
        };
        match (fits(|need| need.at_least), fits(|need| need.probably)) {
            (false, _) => Verdict::TooLittle,
            (true, false) => Verdict::Tight,
            (true, true) => Verdict::Fits,
        }
    }
}

impl Amount {
    fn exactly(number: u64) -> Self {
        Self { at_least: number, probably: number }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            at_least: self.at_least.saturating_add(other.at_least),
            probably: self.probably.saturating_add(other.probably),
        }
    }

    /// Reckons how large a layer becomes.
    pub(crate) fn unpacked(layer: &Descriptor) -> Self {
        let size = layer.size;
        let (at_least, probably) = match layer.media_type.role() {
            Role::Layer(Compression::None) => (0, size),
            Role::Layer(Compression::Zstd) => (size, size.saturating_mul(31) / 10),
            _ => (size, size.saturating_mul(27) / 10),
        };
        Self { at_least, probably }
    }
}

fn count(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use windlass_core::{Kind, MediaType};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn free(filesystem: &str, bytes: u64, inodes: Option<u64>) -> Free {
        Free { filesystem: filesystem.to_owned(), directory: format!("/on{filesystem}"), bytes, inodes }
    }

    fn layer(at_least: u64, probably: u64, below: u64) -> MissingLayer {
        MissingLayer { own: Amount { at_least, probably }, below }
    }

    /// Two blobs of 10 and 20 MiB, and their layers, gzip.
    fn missing() -> Missing {
        let layers = vec![layer(10 * MIB, 27 * MIB, 0), layer(20 * MIB, 54 * MIB, 27 * MIB)];
        Missing { blobs: vec![10 * MIB, 20 * MIB], layers, copies: false }
    }

    #[test]
    fn what_fits_is_decided_by_bytes_and_files_of_each_filesystem() {
        let one = |bytes: u64, inodes| [Some(free("/dev/a", bytes, inodes)), Some(free("/dev/a", bytes, inodes))];
        let two =
            |content: u64, snapshots: u64| [Some(free("/dev/a", content, None)), Some(free("/dev/b", snapshots, None))];
        let files = 2 + 4 + 81 * MIB / BYTES_A_FILE;
        for (case, [content, snapshots], verdict) in [
            ("room for all", one(111 * MIB, Some(files)), Verdict::Fits),
            ("a byte less than probable", one(111 * MIB - 1, Some(files)), Verdict::Tight),
            ("a file less than probable", one(111 * MIB, Some(files - 1)), Verdict::Tight),
            ("what is certain", one(60 * MIB, None), Verdict::Tight),
            ("a byte less than certain", one(60 * MIB - 1, None), Verdict::TooLittle),
            ("a file less than certain", one(111 * MIB, Some(5)), Verdict::TooLittle),
            ("no limit of files", one(111 * MIB, None), Verdict::Fits),
            ("two filesystems", two(30 * MIB, 81 * MIB), Verdict::Fits),
            ("too little for content", two(30 * MIB - 1, 81 * MIB), Verdict::TooLittle),
            ("too little for snapshots", two(1000 * MIB, 29 * MIB), Verdict::TooLittle),
            ("only one is known", [None, Some(free("/dev/b", 80 * MIB, None))], Verdict::Tight),
            ("nothing is known", [None, None], Verdict::Unknown),
        ] {
            let room = Room::of(&missing(), content, snapshots);
            assert_eq!(room.verdict, verdict, "{case}: {room:?}");
            assert_eq!(room.check().is_err(), verdict == Verdict::TooLittle, "{case}");
        }
    }

    #[test]
    fn nothing_that_is_missing_needs_no_room() {
        let full = || Some(free("/dev/a", 0, Some(0)));
        let room = Room::of(&Missing::default(), full(), full());
        assert_eq!((room.verdict, room.places.as_slice()), (Verdict::Fits, [].as_slice()));
    }

    #[test]
    fn layers_that_were_unpacked_and_blobs_that_are_half_here_need_less() {
        let half = Missing { blobs: vec![MIB], layers: Vec::new(), copies: false };
        assert_eq!(Room::of(&half, Some(free("/dev/a", MIB, Some(1))), None).verdict, Verdict::Fits);
        let unpack = Missing { blobs: Vec::new(), ..missing() };
        assert_eq!(
            Room::of(&unpack, Some(free("/dev/a", 0, Some(0))), Some(free("/dev/b", 81 * MIB, None))).verdict,
            Verdict::Fits
        );
    }

    #[test]
    fn a_snapshotter_that_copies_probably_needs_more_and_certainly_no_more() {
        let copied = Missing { copies: true, ..missing() };
        let room = Room::of(&copied, Some(free("/dev/a", 111 * MIB, None)), Some(free("/dev/a", 111 * MIB, None)));
        assert_eq!(room.unpacked, Amount { at_least: 30 * MIB, probably: 108 * MIB });
        assert_eq!(room.verdict, Verdict::Tight);
    }

    #[test]
    fn layers_grow_by_their_compression() {
        for (media_type, at_least, probably) in [
            (MediaType::OCI_LAYER, 0, 1000),
            (MediaType::OCI_LAYER_GZIP, 1000, 2700),
            (MediaType::OCI_LAYER_ZSTD, 1000, 3100),
            (MediaType::DOCKER_LAYER_GZIP, 1000, 2700),
        ] {
            let layer = Descriptor::of(media_type, &[0; 1000]);
            assert_eq!(Amount::unpacked(&layer), Amount { at_least, probably }, "{media_type}");
        }
    }

    #[test]
    fn the_refusal_has_the_numbers_and_what_to_do() {
        let place = || Some(free("/dev/vda", 30 * MIB, Some(1000)));
        let error = Room::of(&missing(), place(), place()).check().unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert_eq!(
            error.to_string(),
            "needs at least 60.0 MiB for 2 blobs and 2 layers below /on/dev/vda, 30.0 MiB are free on /dev/vda"
        );
        let hint = error.hint_text().unwrap();
        assert!(
            ["dist images rm", "dist gc --plan", "--root", "--ignore-space"].iter().all(|it| hint.contains(it)),
            "{hint}"
        );
        let place = || Some(free("/dev/vda", 1000 * MIB, Some(3)));
        let error = Room::of(&missing(), place(), place()).check().unwrap_err().to_string();
        assert!(error.contains("needs at least 6 files") && error.contains("3 are free"), "{error}");
    }
}
