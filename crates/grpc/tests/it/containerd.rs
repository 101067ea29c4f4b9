//! containerd itself at the other end of the wire, Debian's 1.6: what our client makes of a daemon that nobody here wrote.
//!
//! Where it does otherwise than the contract asks of us:
//!
//! - Content: an ingest is cut back to nothing only; what is declared with it is not held against what was declared before, nor
//!   against its size; it is discarded although somebody writes it; the only algorithm is SHA-256; a label without a key is an
//!   unknown error; a writer of deleted bytes that are still on the disk stands at their end; who else writes a ref is told in
//!   other words.
//!   A filter by a size finds nothing, labels without a value are not recorded, and a status does not tell the digest that was
//!   declared.
//! - Namespaces: one that is not there has no labels, and one with too many is an unknown error.
//! - Images: labels without a value are not recorded; a target has no platform and no URLs.
//! - Leases: images cannot be held, labels have no limit and may say any time.
//! - Containers: the sandbox is not recorded.

use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use windlass_core::lease::Options;
use windlass_core::{Host, Leased, Namespace, Scope, Services};
use windlass_grpc::Client;

/// Starts a daemon that lives as long as this thread, and connects to it.
async fn connect(root: &Path) -> Channel {
    let socket = windlass_testkit::containerd::start(root).await;
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Client::tuned(Endpoint::from_static("http://containerd"));
    endpoint.connect_with_connector(connector).await.unwrap()
}

async fn client(root: &Path) -> Client {
    Client::new(connect(root).await)
}

async fn services(root: &Path) -> Services {
    client(root).await.services(&Scope::default()).await.unwrap()
}

/// Returns services whose content a lease holds: what nothing refers to is collected at any moment.
async fn leased(root: &Path) -> Services {
    let client = client(root).await;
    let leased = Leased::acquire(&client, &Namespace::default(), Options::default()).await.unwrap();
    (*leased).clone()
}

windlass_testkit::namespace_suite!(namespace, async |root: &Path| services(root).await.namespaces, except [
    a_deleted_namespace_is_gone
    a_label_of_a_namespace_that_is_not_there_is_not_found
    an_absent_namespace_is_not_found
    long_labels_of_a_namespace_are_refused
]);
windlass_testkit::content_suite!(content, async |root: &Path| leased(root).await.content, except [
    a_copy_continues_from_a_blob_that_is_deleted
    a_copy_continues_from_any_kind_of_source
    a_digest_before_the_commit_is_that_of_what_is_here
    a_reader_outlives_the_deletion_of_its_blob
    a_resumed_ingest_is_truncated_and_continued
    a_second_writer_on_a_ref_is_refused
    abort_is_refused_while_a_writer_holds_the_ingest
    an_algorithm_named_at_the_commit_hashes_a_resumed_ingest_too
    an_ingest_declared_otherwise_is_refused
    an_ingest_that_is_longer_than_what_is_declared_is_refused
    every_algorithm_addresses_a_blob
    expectations_can_be_declared_at_commit
    labels_given_at_commit_are_recorded
    labels_refused_at_the_commit_cost_no_bytes
    list_by_filter
    the_store_and_the_writer_agree_on_the_status
    truncate_then_write
    what_is_declared_later_counts
]);
windlass_testkit::image_suite!(image, async |root: &Path| services(root).await.images, except [
    a_created_image_is_found_by_its_name
    a_target_is_recorded_with_what_its_referrer_says_of_it
]);
windlass_testkit::lease_suite!(lease, async |root: &Path| services(root).await.leases, except [
    a_label_says_when_a_lease_ends
    a_resource_added_twice_is_held_once
    a_resource_can_be_taken_out
    every_kind_of_resource_is_held
    long_labels_of_a_lease_are_refused
]);
windlass_testkit::container_suite!(container, async |root: &Path| services(root).await.containers, except [
    a_created_container_is_found_by_its_identity
    update_of_a_container_by_mask
    update_of_a_container_with_an_empty_mask
]);
windlass_testkit::host_suite!(host, async |root: &Path| Arc::new(client(root).await), except [
    a_lease_holds_what_is_created_in_its_scope
    a_lease_holds_what_was_found_in_its_scope
    snapshots_of_two_namespaces_do_not_meet
    snapshots_stay_while_something_refers_to_them
    the_default_snapshotter_is_one_of_them
    what_tied_itself_to_something_stays_as_long
]);
