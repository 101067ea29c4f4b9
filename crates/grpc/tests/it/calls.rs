//! What containerd's clients send, where it is not what our own client sends: records without what they need not have, and
//! headers.

use std::collections::HashMap;

use prost_types::FieldMask;
use tonic::{Code, Request, Status};
use windlass_core::{Descriptor, MediaType};
use windlass_grpc::scope::{LEASE_HEADER, NAMESPACE_HEADER};
use windlass_proto::containerd::services::containers::v1 as containers;
use windlass_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;
use windlass_proto::containerd::services::content::v1::{WriteAction, WriteContentRequest};
use windlass_proto::containerd::services::images::v1 as images;
use windlass_proto::containerd::services::images::v1::images_client::ImagesClient;
use windlass_proto::containerd::services::leases::v1 as leases;
use windlass_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use windlass_proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use windlass_proto::containerd::services::namespaces::v1::{
    GetNamespaceRequest, ListNamespacesRequest, Namespace, UpdateNamespaceRequest,
};
use windlass_proto::containerd::types;

use crate::{channel, in_namespace};

fn target(content: &str) -> types::Descriptor {
    let target = Descriptor::of(MediaType::OCI_MANIFEST, content.as_bytes());
    types::Descriptor {
        media_type: target.media_type.to_string(),
        digest: target.digest.to_string(),
        size: i64::try_from(target.size).unwrap(),
        annotations: HashMap::new(),
    }
}

fn image(name: &str, target: Option<types::Descriptor>) -> images::Image {
    images::Image { name: name.into(), target, ..images::Image::default() }
}

fn create(image: images::Image) -> Request<images::CreateImageRequest> {
    in_namespace(images::CreateImageRequest {
        image: Some(image),
        source_date_epoch: Some(prost_types::Timestamp::default()),
    })
}

#[tokio::test]
async fn an_image_needs_a_name_and_a_whole_target() {
    let mut client = ImagesClient::new(channel().await);
    for wrong in [
        image("", Some(target("x"))),
        image("name", None),
        image("name", Some(types::Descriptor { size: 0, ..target("x") })),
        image("name", Some(types::Descriptor { digest: String::new(), ..target("x") })),
        image("name", Some(types::Descriptor { media_type: String::new(), ..target("x") })),
    ] {
        let refused = client.create(create(wrong.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
    }
    let nothing = in_namespace(images::CreateImageRequest::default());
    assert_eq!(client.create(nothing).await.unwrap_err().code(), Code::InvalidArgument);
    let created = client.create(create(image("name", Some(target("x"))))).await.unwrap().into_inner().image.unwrap();
    assert!(created.created_at.unwrap().seconds > 0, "the store's own clock counts");
}

#[tokio::test]
async fn labels_and_annotations_of_an_image_change_without_its_target() {
    let mut client = ImagesClient::new(channel().await);
    client.create(create(image("name", Some(target("x"))))).await.unwrap();
    let mut update = async |image: images::Image, paths: &[&str]| {
        let paths = paths.iter().map(ToString::to_string).collect();
        let update_mask = Some(FieldMask { paths });
        let request = images::UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
        let answer = client.update(in_namespace(request)).await;
        answer.map(|answer| answer.into_inner().image.unwrap()).map_err(|status| status.code())
    };
    // As `ctr images label` sends it, and as nobody has to.
    for given in [Some(types::Descriptor::default()), None] {
        let labelled = images::Image { labels: [("a".into(), "1".into())].into(), ..image("name", given) };
        let updated = update(labelled, &["labels.a"]).await.unwrap();
        assert_eq!((updated.target.unwrap(), updated.labels["a"].as_str()), (target("x"), "1"));
    }
    let noted = types::Descriptor { annotations: [("k".into(), "v".into())].into(), ..types::Descriptor::default() };
    let updated = update(image("name", Some(noted.clone())), &["annotations.k"]).await.unwrap();
    assert_eq!(updated.target.unwrap(), types::Descriptor { annotations: noted.annotations, ..target("x") });
    assert_eq!(update(image("name", None), &[]).await, Err(Code::InvalidArgument));
    assert_eq!(update(image("name", None), &["target"]).await, Err(Code::InvalidArgument));
    assert_eq!(update(image("name", None), &["name"]).await, Err(Code::InvalidArgument));
    assert_eq!(update(image("absent", None), &["labels"]).await, Err(Code::NotFound));
    let moved = update(image("name", Some(target("y"))), &[]).await.unwrap();
    assert_eq!((moved.target.unwrap(), moved.labels.len()), (target("y"), 0), "all that can be changed");
}

#[tokio::test]
async fn an_image_is_deleted_only_while_it_points_where_it_is_said_to() {
    let mut client = ImagesClient::new(channel().await);
    client.create(create(image("name", Some(target("x"))))).await.unwrap();
    let mut delete = async |content: &str| {
        let request = images::DeleteImageRequest { name: "name".into(), sync: true, target: Some(target(content)) };
        client.delete(in_namespace(request)).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(delete("y").await, Err(Code::NotFound));
    assert_eq!(delete("x").await, Ok(()));
    assert_eq!(delete("x").await, Err(Code::NotFound));
}

#[tokio::test]
async fn a_list_that_does_not_fit_a_message_says_so() {
    let mut client = ImagesClient::new(channel().await);
    for n in 0..180 {
        let labels = (0..25).map(|label| (label.to_string(), "v".repeat(4_000))).collect();
        client.create(create(images::Image { labels, ..image(&format!("{n}"), Some(target("x"))) })).await.unwrap();
    }
    let mut list = async |filters: &[&str]| {
        let filters = filters.iter().map(ToString::to_string).collect();
        let answer = client.list(in_namespace(images::ListImagesRequest { filters })).await;
        answer.map(|answer| answer.into_inner().images.len()).map_err(|status| status.code())
    };
    assert_eq!(list(&[]).await, Err(Code::ResourceExhausted));
    assert_eq!(list(&["name==7", "name==8"]).await, Ok(2));
    assert_eq!(list(&["name="]).await, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn what_is_created_with_the_header_of_a_lease_belongs_to_it() {
    let channel = channel().await;
    let mut client = LeasesClient::new(channel.clone());
    let request = leases::CreateRequest { id: "mine".into(), labels: HashMap::new() };
    client.create(in_namespace(request)).await.unwrap();
    let write = |lease: &'static str| {
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: "ref".into(),
            data: "content".into(),
            ..WriteContentRequest::default()
        };
        let mut request = in_namespace(futures::stream::iter([message]));
        request.metadata_mut().insert(LEASE_HEADER, lease.parse().unwrap());
        let mut content = ContentClient::new(channel.clone());
        async move { content.write(request).await?.into_inner().message().await }
    };
    assert_eq!(write("absent").await.unwrap_err().code(), Code::NotFound);
    let digest = write("mine").await.unwrap().unwrap().digest;
    let held = client.list_resources(in_namespace(leases::ListResourcesRequest { id: "mine".into() })).await.unwrap();
    assert_eq!(held.into_inner().resources, [leases::Resource { id: digest, r#type: "content".into() }]);
}

#[tokio::test]
async fn values_of_any_type_pass_untouched() {
    let mut client = ContainersClient::new(channel().await);
    let any = |type_url: &str, value: &[u8]| prost_types::Any { type_url: type_url.into(), value: value.to_vec() };
    let container = containers::Container {
        id: "c1".into(),
        runtime: Some(containers::container::Runtime {
            name: "io.containerd.runc.v2".into(),
            options: Some(any("containerd.runc.v1.Options", &[0xff, 0, 1])),
        }),
        spec: Some(any("types.containerd.io/opencontainers/runtime-spec/1/Spec", br#"{"ociVersion": "1.1.0" }"#)),
        extensions: [("x".into(), any("", &[]))].into(),
        ..containers::Container::default()
    };
    let request = containers::CreateContainerRequest { container: Some(container.clone()) };
    client.create(in_namespace(request)).await.unwrap();
    let request = in_namespace(containers::ListContainersRequest::default());
    let mut listed = client.list_stream(request).await.unwrap().into_inner();
    let there = listed.message().await.unwrap().unwrap().container.unwrap();
    assert_eq!(
        (there.runtime, there.spec, there.extensions),
        (container.runtime, container.spec, container.extensions)
    );
    assert!(listed.message().await.unwrap().is_none());
}

/// containerd's clients ask for the defaults of a namespace before anything is in it.
#[tokio::test]
async fn a_namespace_that_is_not_there_has_no_labels_and_comes_with_the_first() {
    let mut namespaces = NamespacesClient::new(channel().await);
    let mut get = async |name: &str| {
        let got = namespaces.get(GetNamespaceRequest { name: name.to_owned() }).await?;
        Ok::<_, Status>(got.into_inner().namespace.unwrap())
    };
    assert_eq!(get("new").await.unwrap(), Namespace { name: "new".into(), labels: HashMap::new() });
    assert_eq!(get("no name").await.unwrap_err().code(), Code::InvalidArgument);
    let label = "containerd.io/defaults/snapshotter";
    let namespace = Namespace { name: "new".into(), labels: [(label.to_owned(), "native".to_owned())].into() };
    let update_mask = Some(FieldMask { paths: vec![format!("labels.{label}")] });
    let update = UpdateNamespaceRequest { namespace: Some(namespace.clone()), update_mask };
    let updated = namespaces.update(update).await.unwrap().into_inner();
    assert_eq!(updated.namespace, Some(namespace.clone()));
    let listed = namespaces.list(ListNamespacesRequest::default()).await.unwrap().into_inner().namespaces;
    assert_eq!(listed, [namespace]);
}

#[tokio::test]
async fn a_call_without_a_namespace_or_with_a_wrong_one_is_refused() {
    let mut client = ImagesClient::new(channel().await);
    let unnamed = client.list(Request::new(images::ListImagesRequest::default())).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::FailedPrecondition);
    let mut request = Request::new(images::ListImagesRequest::default());
    request.metadata_mut().insert(NAMESPACE_HEADER, "a/b".parse().unwrap());
    assert_eq!(client.list(request).await.unwrap_err().code(), Code::InvalidArgument);
}
