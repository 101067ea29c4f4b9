//! Mounts as messages.

use windlass_core::snapshot::Mount;
use windlass_proto::containerd::types;

/// Writes mounts.
pub(crate) fn messages(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let message = |mount: Mount| types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(message).collect()
}

/// Reads mounts.
pub(crate) fn mounts(messages: Vec<types::Mount>) -> Vec<Mount> {
    let mount = |wire: types::Mount| Mount {
        kind: wire.r#type,
        source: wire.source,
        target: wire.target,
        options: wire.options,
    };
    messages.into_iter().map(mount).collect()
}
