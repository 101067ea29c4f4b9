//! What a daemon says about itself, and whether it answers.

use futures::StreamExt as _;
use tempfile::TempDir;
use tonic::Code;
use windlass_core::plugin::{Introspection as _, Outcome};
use windlass_grpc::Client;
use windlass_proto::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use windlass_proto::containerd::services::introspection::v1::{PluginInfoRequest, PluginsRequest};
use windlass_proto::grpc::health::v1::HealthCheckRequest;
use windlass_proto::grpc::health::v1::health_check_response::ServingStatus;
use windlass_proto::grpc::health::v1::health_client::HealthClient;

use crate::daemon::{Daemon, plugins};
use crate::{in_memory, served};

#[tokio::test]
async fn plugins_arrive_as_they_are_and_by_filter() {
    let root = TempDir::new().unwrap();
    let client = Client::new(served(&in_memory(root.path()), root.path()).await).introspection();
    let mut expected = plugins();
    // The hint is in the text, and the class in the code.
    let failed = expected.pop().unwrap();
    let mut found = client.plugins(&[]).await.unwrap();
    assert_eq!(found.pop().unwrap().outcome, failed.outcome);
    assert_eq!(found, expected);
    let filter = "type==io.containerd.snapshotter.v1,id==zfs".parse().unwrap();
    let [skipped] = &client.plugins(&[filter]).await.unwrap()[..] else { panic!("one plugin") };
    assert_eq!(skipped.outcome, Outcome::Skipped { reason: "/var is not on zfs".to_owned() });
    let there = client.snapshotters().await.unwrap();
    assert_eq!(there.keys().collect::<Vec<_>>(), ["memory"], "those that work");
    assert!(there["memory"].rebase);
    assert_eq!(client.server().await.unwrap(), Daemon.server().await.unwrap());
}

#[tokio::test]
async fn a_foreign_client_reads_skip_plugin_exports_and_capabilities() {
    let root = TempDir::new().unwrap();
    let mut client = IntrospectionClient::new(served(&in_memory(root.path()), root.path()).await);
    let plugins = client.plugins(PluginsRequest::default()).await.unwrap().into_inner().plugins;
    let of = |id: &str| plugins.iter().find(|plugin| plugin.id == id).unwrap();
    assert!(of("zfs").init_err.as_ref().unwrap().message.contains("skip plugin"));
    assert_eq!(of("broken").init_err.as_ref().unwrap().code, Code::PermissionDenied as i32);
    let memory = of("memory");
    assert_eq!(
        (memory.exports["root"].as_str(), memory.capabilities.as_slice()),
        ("/state/snapshots", &["rebase".to_owned()][..])
    );
    assert_eq!((memory.platforms[0].architecture.as_str(), memory.platforms[0].variant.as_str()), ("arm", "v7"));

    let info = |id: &str| PluginInfoRequest { r#type: memory.r#type.clone(), id: id.to_owned(), options: None };
    let found = client.clone().plugin_info(info("memory")).await.unwrap().into_inner().plugin.unwrap();
    assert_eq!(&found, memory);
    assert_eq!(client.plugin_info(info("absent")).await.unwrap_err().code(), Code::NotFound);
    let filters = PluginsRequest { filters: vec!["==".to_owned()] };
    assert_eq!(client.plugins(filters).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_server_is_healthy_and_watches_stay_open() {
    let root = TempDir::new().unwrap();
    let mut client = HealthClient::new(served(&in_memory(root.path()), root.path()).await);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert_eq!(client.check(of("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
    assert_eq!(client.check(of("none such")).await.unwrap_err().code(), Code::NotFound);
    for (service, status) in [("", ServingStatus::Serving), ("none such", ServingStatus::ServiceUnknown)] {
        let mut watch = client.watch(of(service)).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap().status(), status);
        let more = tokio::time::timeout(std::time::Duration::from_millis(50), watch.next()).await;
        assert!(more.is_err(), "the watch has ended");
    }
}
