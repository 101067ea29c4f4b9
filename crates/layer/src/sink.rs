//! What becomes of the entries of a layer: the one thing that the pipeline asks of whoever writes them down.
//!
//! [`crate::extract::Extractor`] makes files of them.

use bytes::Bytes;
use windlass_core::{DiffId, Result};

use crate::extract::{Extractor, Outcome};
use crate::tar::Entry;
use crate::target::Target;

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

/// Opens what a target asks for.
pub(crate) fn open(target: &Target, writers: usize) -> Result<Box<dyn Sink>> {
    Ok(Box::new(Extractor::new(target, writers)?))
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
