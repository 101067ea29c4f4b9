//! The version of this build: what `dist --version` prints, and what is told to registries.
//!
//! `build.rs` derives it from git. Libraries below do not know it; whatever needs it is handed it.

/// The version, such as `v1.2.0-3-g7953e96.m`.
pub(crate) const VERSION: &str = env!("DIST_VERSION");

/// The commit that was built, such as `7953e961…`, with `.m` behind it when there were local changes; empty for a build that is not
/// of the project's own git checkout, of which nobody knows it.
pub(crate) const REVISION: &str = env!("DIST_REVISION");
