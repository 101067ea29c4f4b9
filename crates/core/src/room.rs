//! Room: how much is free where a host keeps content and snapshots, so that a lack of it is a state and not an accident.
//!
//! Not here: what an operation needs, which the workflows reckon.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Tells how much is free.
#[async_trait]
pub trait Room: Send + Sync {
    /// Returns what is free now where a host keeps things of that kind; `None` when the host does not know.
    ///
    /// # Errors
    /// Those of the filesystem that was asked.
    ///
    /// # Cancel safety
    /// A call that is dropped has no effect.
    async fn free(&self, of: Keeps<'_>) -> Result<Option<Free>>;
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps<'a> {
    /// Blobs and ingests.
    Content,
    /// The trees of a snapshotter.
    Snapshots(&'a str),
}

/// What is free on one filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// The filesystem, as its host tells it from others: two answers with the same one share what is free.
    pub filesystem: String,
    /// The directory on it that things are kept below.
    pub directory: String,
    /// How many bytes this process may still write.
    pub bytes: u64,
    /// How many files this process may still make; `None` when the filesystem has no such limit.
    pub inodes: Option<u64>,
}

/// A size in bytes as people read it, with a binary unit and three significant digits: `999 B`, `1.5 KiB`, `28.1 MiB`.
///
/// ```
/// use windlass_core::room::Size;
///
/// assert_eq!(Size(1536).to_string(), "1.5 KiB");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = "KiB";
        for larger in UNITS.iter().skip(1) {
            if value < 999.95 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        let decimals = usize::from(value < 99.95);
        write!(f, "{value:.decimals$} {unit}")
    }
}
