//! The client of somebody else: the crate `containerd-client`, with message definitions of its own.

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateNamespaceRequest, GetImageRequest, Image, InfoRequest, ListNamespacesRequest,
    ListRequest, Namespace, ReadContentRequest, WriteAction, WriteContentRequest,
};
use containerd_client::tonic::{Code, Request};
use containerd_client::types::Descriptor;
use windlass_core::Digest;

use crate::serving::Place;

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn it_writes_and_reads_content_and_records_an_image() {
    let place = Place::new();
    let daemon = place.start().await;
    let channel = place.channel().await;
    let blob = b"{\"schemaVersion\":2}".to_vec();
    let digest = Digest::sha256(&blob).to_string();
    let size = i64::try_from(blob.len()).unwrap();

    let mut content = ContentClient::new(channel.clone());
    let commit = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: "one".into(),
        total: size,
        expected: digest.clone(),
        data: blob.clone(),
        // Nothing else keeps it from being collected.
        labels: [("containerd.io/gc.root".to_owned(), "test".to_owned())].into(),
        ..WriteContentRequest::default()
    };
    let mut answers = content.write(within(futures::stream::iter([commit]))).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!((answer.digest.as_str(), answer.offset), (digest.as_str(), size));
    let info = content.info(within(InfoRequest { digest: digest.clone() })).await.unwrap().into_inner().info.unwrap();
    assert_eq!(info.size, size);
    let read = ReadContentRequest { digest: digest.clone(), offset: 1, size: 5 };
    let mut answers = content.read(within(read)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().data, blob[1..6]);

    let mut images = ImagesClient::new(channel.clone());
    let target = Descriptor {
        media_type: "application/vnd.oci.image.index.v1+json".into(),
        digest: digest.clone(),
        size,
        ..Descriptor::default()
    };
    let image = Image { name: "docker.io/library/x:1".into(), target: Some(target), ..Image::default() };
    let create = CreateImageRequest { image: Some(image), ..CreateImageRequest::default() };
    images.create(within(create.clone())).await.unwrap();
    assert_eq!(images.create(within(create)).await.unwrap_err().code(), Code::AlreadyExists);
    let missing = images.get(within(GetImageRequest { name: "docker.io/library/y:1".into() })).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_namespaces_and_is_told_when_it_names_none() {
    let place = Place::new();
    let daemon = place.start().await;
    let channel = place.channel().await;
    let mut namespaces = NamespacesClient::new(channel.clone());
    let labels = [("a".to_owned(), "b".to_owned())].into();
    let namespace = Namespace { name: "team".into(), labels };
    let request = CreateNamespaceRequest { namespace: Some(namespace.clone()) };
    namespaces.create(request.clone()).await.unwrap();
    assert_eq!(namespaces.create(request).await.unwrap_err().code(), Code::AlreadyExists);
    let listed = namespaces.list(ListNamespacesRequest::default()).await.unwrap().into_inner().namespaces;
    assert_eq!(listed, [namespace]);
    let refused = LeasesClient::new(channel).list(Request::new(ListRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    daemon.stop().await;
}
