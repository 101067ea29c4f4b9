//! Every in-memory implementation passes the suite of its trait, alone and behind a host.

use std::path::Path;
use std::sync::Arc;

use windlass_core::snapshot::Capabilities;
use windlass_core::{Host as _, Namespace, Services};
use windlass_testkit::memory;

async fn services(root: &Path) -> Services {
    let host = memory::Host::new(root, Arc::new(memory::Applier::new()));
    host.services(&Namespace::default().into()).await.unwrap()
}

windlass_testkit::content_suite!(content, async |_: &Path| Arc::new(memory::Content::default()));
windlass_testkit::content_suite!(content_of_a_host, async |root: &Path| services(root).await.content);
windlass_testkit::one_pass_suite!(one_pass, async |_: &Path| Arc::new(memory::Content::default()));
windlass_testkit::one_pass_suite!(one_pass_of_a_host, async |root: &Path| services(root).await.content);
windlass_testkit::image_suite!(images, async |_: &Path| Arc::new(memory::Images::default()));
windlass_testkit::image_suite!(images_of_a_host, async |root: &Path| services(root).await.images);
windlass_testkit::lease_suite!(leases, async |_: &Path| Arc::new(memory::Leases::default()));
windlass_testkit::lease_suite!(leases_of_a_host, async |root: &Path| services(root).await.leases);
windlass_testkit::namespace_suite!(namespaces, async |_: &Path| Arc::new(memory::Namespaces::default()));
windlass_testkit::container_suite!(containers, async |_: &Path| Arc::new(memory::Containers::default()));
windlass_testkit::event_suite!(events, async |_: &Path| Arc::new(memory::Events::default()));
windlass_testkit::event_suite!(events_of_a_host, async |root: &Path| services(root).await.events);
windlass_testkit::snapshotter_suite!(snapshotter, async |root: &Path| {
    Arc::new(memory::Snapshotter::new(root, Capabilities { rebase: true }))
});
windlass_testkit::snapshotter_suite!(snapshotter_that_cannot_rebase, async |root: &Path| {
    Arc::new(memory::Snapshotter::new(root, Capabilities { rebase: false }))
});
windlass_testkit::comparer_suite!(comparer, async |root: &Path| {
    Arc::new(memory::Host::new(root, Arc::new(memory::Applier::new())))
});
windlass_testkit::host_suite!(host, async |root: &Path| {
    Arc::new(memory::Host::new(root, Arc::new(memory::Applier::new())))
});
