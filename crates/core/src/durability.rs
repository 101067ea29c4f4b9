//! Whether what is recorded has to survive a power cut.

/// What a call that returned `Ok` promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// What it did survives a crash of the process and a power cut.
    #[default]
    Synced,
    /// What it did survives a crash of the process. A power cut, or a crash of the system, may lose any of it, and may leave
    /// records of content and snapshots that are damaged.
    Unsynced,
}
