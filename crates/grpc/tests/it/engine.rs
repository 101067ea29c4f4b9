//! The engine at the other end of the wire: the same suites as in memory, with what a disk and a database make of them.

use std::path::Path;
use std::sync::Arc;

use windlass::Engine;
use windlass_core::{Host, Scope, Services};
use windlass_grpc::Client;

async fn client(root: &Path) -> Client {
    let engine: Arc<dyn Host> = Arc::new(Engine::open(root.join("root")).await.unwrap());
    Client::new(crate::connect(&engine).await)
}

async fn services(root: &Path) -> Services {
    client(root).await.services(&Scope::default()).await.unwrap()
}

windlass_testkit::namespace_suite!(namespace, async |root: &Path| services(root).await.namespaces);
windlass_testkit::content_suite!(content, async |root: &Path| services(root).await.content, except [
    a_copy_continues_from_a_blob_that_is_deleted
    a_reader_outlives_the_deletion_of_its_blob
]);
windlass_testkit::image_suite!(
    image,
    async |root: &Path| services(root).await.images,
    except[a_target_is_recorded_with_what_its_referrer_says_of_it]
);
windlass_testkit::lease_suite!(lease, async |root: &Path| services(root).await.leases);
windlass_testkit::container_suite!(container, async |root: &Path| services(root).await.containers);
windlass_testkit::host_suite!(host, async |root: &Path| Arc::new(client(root).await), except [
    a_lease_holds_what_is_created_in_its_scope
    a_lease_holds_what_was_found_in_its_scope
    snapshots_of_two_namespaces_do_not_meet
    snapshots_stay_while_something_refers_to_them
    the_default_snapshotter_is_one_of_them
    what_tied_itself_to_something_stays_as_long
]);
