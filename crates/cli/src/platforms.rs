//! Which platforms of an image are wanted: the options of commands that work on what is here.

use windlass_core::Platform;
use windlass_core::platform::Selection;

/// Which platforms are wanted.
#[derive(Debug, clap::Args)]
pub(crate) struct Platforms {
    /// Platform, such as linux/arm64; may be given again [default: this machine's].
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Every platform that there is.
    #[arg(long, conflicts_with = "platforms")]
    all_platforms: bool,
}

impl Platforms {
    /// Returns what is wanted.
    pub(crate) fn selection(&self) -> Selection {
        match self.platforms.as_slice() {
            _ if self.all_platforms => Selection::All,
            [] => Selection::default(),
            platforms => Selection::Best(platforms.to_vec()),
        }
    }
}
