//! What Docker asks of its containerd beyond what every client does: at the start of dockerd and of the BuildKit in it, and for
//! a container that cannot run here yet. dockerd with the containerd image store is newer than the distribution that tests run on.

use tonic::{Code, Request};
use windlass_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use windlass_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container,
};
use windlass_proto::containerd::services::events::v1::events_client::EventsClient;
use windlass_proto::containerd::services::events::v1::{PublishRequest, SubscribeRequest};
use windlass_proto::containerd::services::introspection::v1::PluginsRequest;
use windlass_proto::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use windlass_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use windlass_proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest, ListRequest};
use windlass_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use windlass_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, StatSnapshotRequest,
};
use windlass_proto::containerd::services::tasks::v1::CreateTaskRequest;
use windlass_proto::containerd::services::tasks::v1::tasks_client::TasksClient;

use crate::serving::Place;

const CONTAINER: &str = "833d0138d01c4c7ddfca0f7acbd01ae0f7e1f5fdcfb0657fbdd6fd8aed71470d";
const SNAPSHOTTER: &str = "native";

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "moby".parse().unwrap());
    request
}

fn leased<T>(message: T) -> Request<T> {
    let mut request = within(message);
    request.metadata_mut().insert("containerd-lease", CONTAINER.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkit_learns_its_platforms_from_a_runtime_and_that_nothing_runs() {
    let place = Place::new();
    let daemon = place.start().await;
    let filters = ["type==io.containerd.runtime.v1", "type==io.containerd.runtime.v2"].map(ToOwned::to_owned).to_vec();
    let mut client = IntrospectionClient::new(place.channel().await);
    let plugins = client.plugins(PluginsRequest { filters }).await.unwrap().into_inner().plugins;
    let [runtime] = &plugins[..] else { panic!("{plugins:?}") };
    let [platform] = &runtime.platforms[..] else { panic!("{runtime:?}") };
    assert_eq!(platform.os, "linux");
    assert!(!platform.architecture.is_empty() && platform.architecture != "x86_64", "{platform:?}");
    assert!(runtime.init_err.as_ref().unwrap().message.contains("skip plugin"), "{runtime:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dockerd_hears_of_tasks_in_its_namespace_alone() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut client = EventsClient::new(place.channel().await);
    let filters = vec!["namespace==moby,topic~=|^/tasks/|".to_owned()];
    let mut heard = client.subscribe(within(SubscribeRequest { filters })).await.unwrap().into_inner();
    for (namespace, topic) in [("plugins.moby", "/tasks/exit"), ("moby", "/images/create"), ("moby", "/tasks/exit")] {
        let event = prost_types::Any { type_url: "some.Type".to_owned(), value: Vec::new() };
        let mut request = Request::new(PublishRequest { topic: topic.to_owned(), event: Some(event) });
        request.metadata_mut().insert("containerd-namespace", namespace.parse().unwrap());
        client.publish(request).await.unwrap();
    }
    let envelope = heard.message().await.unwrap().unwrap();
    assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), ("moby", "/tasks/exit"));
    daemon.stop().await;
}

/// `docker create` makes a lease of the container's name without an end, and two snapshots under it; `docker start` makes a
/// record and a task; `docker rm` deletes the lease and waits for its collection, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_run_keeps_its_files_until_its_lease_goes_and_leaves_nothing() {
    let place = Place::new();
    let daemon = place.start().await;
    let channel = place.channel().await;
    let mut leases = LeasesClient::new(channel.clone());
    let mut snapshots = SnapshotsClient::new(channel.clone());
    let mut containers = ContainersClient::new(channel.clone());
    leases.create(within(CreateRequest { id: CONTAINER.to_owned(), ..CreateRequest::default() })).await.unwrap();
    let (init, work) = (format!("{CONTAINER}-init"), format!("{CONTAINER}-init-key"));
    let prepare = |key: &str, parent: &str| PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    snapshots.prepare(leased(prepare(&work, ""))).await.unwrap();
    let commit = CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        name: init.clone(),
        key: work,
        ..CommitSnapshotRequest::default()
    };
    snapshots.commit(leased(commit)).await.unwrap();
    snapshots.prepare(leased(prepare(CONTAINER, &init))).await.unwrap();

    let runtime = container::Runtime { name: "io.containerd.runc.v2".to_owned(), options: None };
    let record = Container { id: CONTAINER.to_owned(), runtime: Some(runtime), ..Container::default() };
    containers.create(within(CreateContainerRequest { container: Some(record) })).await.unwrap();
    let task = CreateTaskRequest { container_id: CONTAINER.to_owned(), ..CreateTaskRequest::default() };
    let refused = TasksClient::new(channel.clone()).create(within(task)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("runs nothing yet"), "{refused:?}");
    containers.delete(within(DeleteContainerRequest { id: CONTAINER.to_owned() })).await.unwrap();

    // A collection for somebody else's sake leaves it alone.
    leases.create(within(CreateRequest { id: "other".to_owned(), ..CreateRequest::default() })).await.unwrap();
    leases.delete(within(DeleteRequest { id: "other".to_owned(), sync: true })).await.unwrap();
    let mounts = MountsRequest { snapshotter: SNAPSHOTTER.to_owned(), key: CONTAINER.to_owned() };
    assert_eq!(snapshots.mounts(within(mounts)).await.unwrap().into_inner().mounts.len(), 1);
    let found = leases.list(within(ListRequest { filters: vec![format!("id=={CONTAINER}")] })).await.unwrap();
    assert_eq!(found.into_inner().leases.len(), 1);

    leases.delete(within(DeleteRequest { id: CONTAINER.to_owned(), sync: true })).await.unwrap();
    for key in [CONTAINER, &init] {
        let stat = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        assert_eq!(snapshots.stat(within(stat)).await.unwrap_err().code(), Code::NotFound, "{key}");
    }
    daemon.stop().await;
}
