//! The version of this build: what `dist --version` prints, and what is told to registries.
//!
//! `build.rs` derives it from git. Libraries below do not know it; whatever needs it is handed it.

/// The version, such as `v1.2.0-3-g7953e96.m`.
pub(crate) const VERSION: &str = env!("DIST_VERSION");
