//! What can be chosen about applying layers: how much of what is hostile or broken is put up with.

use windlass_core::{Error, Result};

use crate::path::LayerPath;
use crate::tar::Kind;

/// What can be chosen about applying layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The most bytes that a layer may have uncompressed; any number when absent.
    pub max_size: Option<u64>,
    /// How many times as large as the compressed layer what comes out of it may be. Layers that come out smaller than
    /// [`Options::RATIO_FROM`] are not asked. 1000 by default, which is about what gzip can do at most.
    pub max_ratio: Option<u64>,
    /// The most entries that a layer may have. What has to be remembered of a layer grows with its directories, so that
    /// this bounds memory. 16 million by default.
    pub max_entries: Option<u64>,
    /// What becomes of device nodes.
    pub devices: Devices,
    /// Whether what is extracted is left to the kernel to be written to the disk when it likes, instead of at once; large
    /// files begin early all the same. For whoever does not wait for the disk before a snapshot is committed.
    pub lazy_writeback: bool,
}

/// What becomes of device nodes in a layer. Overlayfs' marks of deleted names are not affected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Devices {
    /// They are made, as containerd and podman do it as root.
    #[default]
    Create,
    /// The layer is refused.
    Refuse,
}

impl Devices {
    /// Refuses an entry that is not wanted.
    pub(crate) fn admit(self, kind: &Kind, path: &LayerPath) -> Result<()> {
        match (self, kind) {
            (Self::Refuse, Kind::Character(_) | Kind::Block(_)) => {
                Err(Error::failed_precondition(format!("{path} is a device node, which are refused here"))
                    .hint("allow device nodes if the image can be trusted"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_size: None,
            max_ratio: Some(1000),
            max_entries: Some(16 << 20),
            devices: Devices::default(),
            lazy_writeback: false,
        }
    }
}

impl Options {
    /// From how many uncompressed bytes on [`Options::max_ratio`] counts: 1 GiB. Small layers may well be empty databases.
    pub const RATIO_FROM: u64 = 1 << 30;

    /// Returns the most bytes that may come out of a layer with so many compressed bytes.
    ///
    /// ```
    /// let options = windlass_layer::Options { max_ratio: Some(100), ..Default::default() };
    /// assert_eq!(options.size_limit(50 << 20), Some(5000 << 20));
    /// assert_eq!(options.size_limit(1 << 20), Some(1 << 30));
    /// ```
    pub fn size_limit(&self, compressed: u64) -> Option<u64> {
        let by_ratio = self.max_ratio.map(|ratio| compressed.saturating_mul(ratio).max(Self::RATIO_FROM));
        by_ratio.into_iter().chain(self.max_size).min()
    }
}
