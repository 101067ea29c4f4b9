//! The conformance suite of the trait, on all snapshotters.

use std::path::Path;
use std::sync::Arc;

use windlass_snapshot::erofs::Erofs;
use windlass_snapshot::native::Native;
use windlass_snapshot::overlay::Overlay;

windlass_testkit::snapshotter_suite!(
    overlayfs,
    async |root: &Path| Arc::new(Overlay::open(root).await.unwrap()),
    persistent
);
windlass_testkit::snapshotter_suite!(
    native,
    async |root: &Path| Arc::new(Native::open(root).await.unwrap()),
    persistent
);
windlass_testkit::snapshotter_suite!(erofs, async |root: &Path| Arc::new(Erofs::open(root).await.unwrap()), persistent);
