//! What becomes of the entries of a layer: the one thing that the pipeline asks of whoever writes them down.
//!
//! [`crate::extract::Extractor`] makes files of them, [`crate::image`] an EROFS image.

use bytes::Bytes;
use windlass_core::diff::Whiteouts;
use windlass_core::snapshot::Mount;
use windlass_core::{DiffId, Result};

use crate::Options;
use crate::extract::{Extractor, Outcome};
use crate::image::Imager;
use crate::tar::Entry;
use crate::writeback::Writeback;
use crate::{image, target};

/// Where a layer goes: decided from a snapshot's mounts, without touching anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into a directory.
    Directory(target::Target),
    /// Into an EROFS image.
    Image(image::Target),
}

impl Destination {
    /// Decides for the mounts of an active snapshot.
    ///
    /// # Errors
    /// `FailedPrecondition` for mounts that no layer can be applied to.
    pub fn of(mounts: &[Mount], whiteouts: Whiteouts) -> Result<Self> {
        match image::Target::of(mounts, whiteouts) {
            Some(target) => Ok(Self::Image(target)),
            None => target::Target::of(mounts, whiteouts).map(Self::Directory),
        }
    }
}

impl From<target::Target> for Destination {
    fn from(target: target::Target) -> Self {
        Self::Directory(target)
    }
}

impl From<image::Target> for Destination {
    fn from(target: image::Target) -> Self {
        Self::Image(target)
    }
}

/// Takes the entries of a layer, one after the other, each with its bytes.
pub(crate) trait Sink {
    /// Begins an entry.
    fn entry(&mut self, entry: Entry) -> Result<Outcome>;

    /// Takes bytes of the current entry, which belong at `offset` of its file.
    fn data(&mut self, offset: u64, bytes: Bytes) -> Result<()>;

    /// Completes the current entry.
    fn end_of_entry(&mut self) -> Result<()>;

    /// Says that what comes next may take a while: nothing that was kept should wait for it.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Completes the layer, whose uncompressed archive turned out to have that digest.
    fn finish(self: Box<Self>, diff_id: &DiffId) -> Result<()>;
}

/// Opens what a destination asks for; a directory is written to by so many threads at once, and what is written goes to the
/// disk early.
pub(crate) fn open(
    destination: &Destination,
    writers: usize,
    writeback: Option<&Writeback>,
    options: &Options,
) -> Result<Box<dyn Sink>> {
    Ok(match destination {
        Destination::Directory(target) => {
            Box::new(Extractor::new(target, writers, writeback)?.devices(options.devices))
        }
        Destination::Image(target) => Box::new(Imager::new(target, options.devices)?),
    })
}

impl Sink for Extractor {
    fn entry(&mut self, entry: Entry) -> Result<Outcome> {
        Extractor::entry(self, entry)
    }

    fn data(&mut self, offset: u64, bytes: Bytes) -> Result<()> {
        Extractor::data(self, offset, bytes)
    }

    fn end_of_entry(&mut self) -> Result<()> {
        Extractor::end_of_entry(self)
    }

    fn flush(&mut self) -> Result<()> {
        Extractor::flush(self)
    }

    fn finish(self: Box<Self>, _diff_id: &DiffId) -> Result<()> {
        Extractor::finish(*self)
    }
}
