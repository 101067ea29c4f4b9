//! Writing the entries of a layer as an EROFS image: two files in a directory, whatever the layer has.
//!
//! The module is given one entry after the other, and holds to what [`crate::extract`] holds to, with a tree in memory in
//! the place of a directory: names are looked up in what the layer brought, and in the images below it when those are
//! known. The bytes of files go straight into one of the files, large pieces one behind the other; the tree becomes the
//! other one at the end. What is kept of an entry meanwhile is little more than a hundred bytes.
//!
//! Not here: the format of images (`windlass_erofs`), and making them durable, which is the snapshotter's commit.

mod below;
mod create;
mod data;
mod resolve;
mod whiteout;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use windlass_core::diff::Whiteouts;
use windlass_core::error::IoResultExt as _;
use windlass_core::snapshot::{EROFS_LAYER, LAYER_DATA, LAYER_IMAGE, Mount};
use windlass_core::{DiffId, Error, Result, ResultExt as _};
use windlass_erofs::{Attributes, Data as Places, IMPLIED_ROOT, Limits, Node, Packer, Time, Tree, Volume, Xattrs};

use self::below::Images;
use self::data::Data;
use self::resolve::{Dir, Reached};
use crate::extract::Outcome;
use crate::options::Devices;
use crate::path::{LayerPath, Marker, shown};
use crate::sink::Sink;
use crate::tar::{Entry, Kind, Timestamp};
use crate::walk::{Missing, Walk as _};

/// The directory that an image is written into, and what is below the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The directory.
    pub directory: PathBuf,
    /// What is below.
    pub below: Below,
}

/// What is below a layer that becomes an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// Nothing, and nothing will be.
    Nothing,
    /// The images in these directories, the topmost first.
    Images(Vec<PathBuf>),
    /// Something that the image is put onto later.
    Unknown,
}

impl Target {
    /// Decides for the mounts of an active snapshot; nothing when they are no matter of images.
    pub(crate) fn of(mounts: &[Mount], whiteouts: Whiteouts) -> Option<Self> {
        let [mount] = mounts else { return None };
        if mount.kind != EROFS_LAYER {
            return None;
        }
        let lowers: Vec<PathBuf> =
            mount.options.iter().filter_map(|option| option.strip_prefix("lower=")).map(PathBuf::from).collect();
        let below = match (lowers.is_empty(), whiteouts) {
            (false, _) => Below::Images(lowers),
            (true, Whiteouts::Overlay) => Below::Unknown,
            (true, Whiteouts::AsMounted) => Below::Nothing,
        };
        Some(Self { directory: PathBuf::from(&mount.source), below })
    }
}

/// A layer on its way into an image.
pub(crate) struct Imager {
    directory: PathBuf,
    tree: Tree,
    packer: Packer,
    data: Data,
    beneath: Beneath,
    devices: Devices,
    /// What was taken over from below so that entries could refer to it, by directory and name; not the layer's.
    copied: HashSet<(Node, Vec<u8>)>,
    /// Directories that hide what is below them.
    opaque: HashSet<Node>,
    /// Whether there are marks of deleted names.
    marked: bool,
    root_listed: bool,
    /// The directory that the last entry was in, as it was written, and where that is.
    last: Option<(LayerPath, Dir)>,
    /// The file whose bytes come, and how long it will be.
    current: Option<(Node, u64)>,
}

/// What is below the layer.
enum Beneath {
    Nothing,
    Images(Images),
    Unknown,
}

impl Imager {
    /// Begins in a directory that has no image yet.
    pub(crate) fn new(target: &Target, devices: Devices) -> Result<Self> {
        let path = target.directory.join(LAYER_DATA);
        let file = File::options().write(true).create(true).truncate(true).open(&path);
        let file = file.attempt(|| format!("create {}", path.display()))?;
        let beneath = match &target.below {
            Below::Nothing => Beneath::Nothing,
            Below::Images(directories) => Beneath::Images(Images::open(directories)?),
            Below::Unknown => Beneath::Unknown,
        };
        Ok(Self {
            directory: target.directory.clone(),
            tree: Tree::new(Limits::default()),
            packer: Packer::new(),
            data: Data::new(file, path),
            beneath,
            devices,
            copied: HashSet::new(),
            opaque: HashSet::new(),
            marked: false,
            root_listed: false,
            last: None,
            current: None,
        })
    }

    fn begin(&mut self, mut entry: Entry) -> Result<Outcome> {
        let path = LayerPath::clean(&entry.path)?;
        if Marker::is_reserved(&path) {
            tracing::debug!(entry = %path, "left out: it is AUFS' own");
            return Ok(Outcome::Done);
        }
        let Some((parent, name)) = path.split() else {
            return self.root(entry);
        };
        create::drop_unwanted(&mut entry, &path);
        self.devices.admit(&entry.kind, &path)?;
        match Marker::of(name)? {
            Marker::None | Marker::Reserved => {}
            Marker::Whiteout(target) => return self.whiteout(&parent, target, &path),
            Marker::Opaque => return self.opaque(&parent, &path),
        }
        let dir = match self.parent(parent, Missing::Create(&path))? {
            Reached::Directory(dir) => dir,
            Reached::Below => return Ok(Outcome::needs_parent(&path)),
            Reached::Nowhere => return Err(Error::internal(format!("no directory for {path}"))),
        };
        if let Kind::Link { target } = &entry.kind {
            return self.link(&dir, name, target, &path);
        }
        self.create(&dir, name, &entry)?;
        Ok(Outcome::Done)
    }

    /// An entry for the root: it is there and gets the attributes.
    fn root(&mut self, entry: Entry) -> Result<Outcome> {
        if entry.kind != Kind::Directory {
            return Err(Error::failed_precondition("the entry stands for the root, but is not a directory"));
        }
        let mut entry = entry;
        create::drop_unwanted(&mut entry, &LayerPath::default());
        self.tree.set_attributes(self.tree.root(), &attributes(&entry)).map_err(failed)?;
        self.root_listed = true;
        Ok(Outcome::Done)
    }

    /// Tells whether what is below the layer cannot be known here.
    fn is_blind(&self) -> bool {
        matches!(self.beneath, Beneath::Unknown)
    }

    /// Tells whether deletions leave marks.
    fn marks(&self) -> bool {
        !matches!(self.beneath, Beneath::Nothing)
    }

    /// Writes the image, and what is missing of the data.
    fn complete(mut self, diff_id: &DiffId) -> Result<()> {
        let mut volume = Volume { uuid: uuid(diff_id), ..Volume::default() };
        if !self.root_listed {
            match &self.beneath {
                Beneath::Images(images) => {
                    let attributes = images.root_attributes()?;
                    self.tree.set_attributes(self.tree.root(), &attributes).map_err(failed)?;
                }
                Beneath::Unknown => volume.name = IMPLIED_ROOT,
                Beneath::Nothing => {}
            }
        }
        // The data is never empty, so that all images are mounted alike.
        volume.data_blocks = self.packer.blocks().max(1);
        self.data.finish(u64::from(volume.data_blocks) << windlass_erofs::BLOCK_BITS)?;
        let path = self.directory.join(LAYER_IMAGE);
        write_image(&self.tree, &volume, &path).context(|| format!("write {}", path.display()))
    }
}

fn write_image(tree: &Tree, volume: &Volume, path: &Path) -> Result<()> {
    let file = File::create(path).attempt(|| "create it".to_owned())?;
    let written = tree.write(volume, &file).map_err(failed)?;
    tracing::debug!(image = %path.display(), inodes = written.inodes, bytes = written.bytes, "wrote the image of a layer");
    Ok(())
}

/// The identity of an image: the beginning of the layer's, in the form of a UUID that has one of its own making (RFC 9562,
/// version 8).
fn uuid(diff_id: &DiffId) -> [u8; 16] {
    let mut uuid = [0; 16];
    let hex = diff_id.0.hex().as_bytes();
    for (byte, digits) in uuid.iter_mut().zip(hex.chunks(2)) {
        let text = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
    *version = *version & 0x0f | 0x80;
    *variant = *variant & 0x3f | 0x80;
    uuid
}

impl Sink for Imager {
    fn entry(&mut self, entry: Entry) -> Result<Outcome> {
        let name = entry.path.clone();
        self.begin(entry).context(|| format!("extract {}", shown(&name)))
    }

    fn data(&mut self, offset: u64, bytes: Bytes) -> Result<()> {
        if self.current.is_some() { self.store(offset, &bytes) } else { Ok(()) }
    }

    fn end_of_entry(&mut self) -> Result<()> {
        let Some((node, size)) = self.current.take() else { return Ok(()) };
        let places = self.packer.end();
        self.tree.set_data(node, size, places).map_err(failed)
    }

    fn finish(self: Box<Self>, diff_id: &DiffId) -> Result<()> {
        self.complete(diff_id)
    }
}

impl Imager {
    /// Puts bytes of the file that was begun into the data.
    fn store(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let place = self.packer.place(offset, bytes.len()).map_err(failed)?;
            let Some((now, rest)) = bytes.split_at_checked(place.length).filter(|(now, _)| !now.is_empty()) else {
                return Err(Error::data_loss("a file has more bytes than its entry says"));
            };
            self.data.write(place.at, now)?;
            offset += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }
}

/// What a tree is told of an entry.
fn attributes(entry: &Entry) -> Attributes {
    Attributes {
        permissions: u16::try_from(entry.mode & 0o7777).unwrap_or_default(),
        uid: entry.uid,
        gid: entry.gid,
        mtime: time(entry.mtime),
        xattrs: entry.xattrs.clone(),
    }
}

/// What a directory is that nobody said anything of.
fn implied() -> Attributes {
    Attributes { permissions: 0o755, xattrs: Xattrs::new(), ..Attributes::default() }
}

fn time(time: Timestamp) -> Time {
    Time { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

/// Makes an error of one of the format's.
fn failed(error: windlass_erofs::Error) -> Error {
    use windlass_erofs::Error as Format;
    match error {
        Format::Invalid(what) => Error::failed_precondition(what),
        Format::TooLarge(what) => Error::resource_exhausted(what)
            .hint("the layer is too large for an EROFS image; unpack it with the overlayfs snapshotter"),
        Format::Damaged(_) => Error::data_loss(error.to_string()).hint("`dist fsck --repair` unpacks a layer again"),
        Format::Io(error) => Error::io("write the image of the layer", error),
    }
}

/// That a file of the layer has no bytes.
const NO_PLACES: Places = Places::Nothing;
