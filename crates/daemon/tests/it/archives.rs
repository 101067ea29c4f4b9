//! Transfers from archives and into them, over streams.

use std::collections::HashMap;

use bytes::Bytes;
use futures::TryStreamExt as _;
use windlass_core::{Kind, Platform, Scope};
use windlass_grpc::error;
use windlass_grpc::streaming::pack;
use windlass_grpc::streaming::window::{self, Sender};
use windlass_proto::containerd::types as platforms;
use windlass_proto::containerd::types::transfer::{
    ImageExportStream, ImageImportStream, ImageReference, ImageStore, OciRegistry,
};
use windlass_testkit::image::{Image, Index, Layer};

use crate::serving::Place;
use crate::transfer::{Caller, NAME, bundle, serve, store};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_gets_another_name_leaves_in_an_archive_and_comes_back() {
    let (place, bundle) = (Place::new(), bundle());
    let (_registry, reference) = serve(&bundle);
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let from = OciRegistry { reference, resolver: None };
    let labels = |key: &str| HashMap::from([(key.to_owned(), "x".to_owned())]);
    caller.transfer(&from, &ImageStore { labels: labels("first"), ..store(NAME) }, "").await.unwrap();
    let to = ImageStore { labels: labels("second"), ..store("registry.test/app:2") };
    caller.transfer(&store(NAME), &to, "").await.unwrap();
    let tagged = place.services().await.images.get(&"registry.test/app:2".parse().unwrap()).await.unwrap();
    assert_eq!((tagged.labels.get("first"), tagged.labels.get("second")), (None, Some("x")));

    let stream = caller.client.open_stream(&Scope::default(), "out").await.unwrap();
    let archive = tokio::spawn(window::receive(stream).try_collect::<Vec<Bytes>>());
    let prefix = ImageReference { name: "registry.test/".into(), is_prefix: true, ..ImageReference::default() };
    let from = ImageStore { extra_references: vec![prefix], ..store("") };
    let to = ImageExportStream { stream: "out".into(), all_platforms: true, ..ImageExportStream::default() };
    caller.transfer(&from, &to, "").await.unwrap();
    let archive = Bytes::from(archive.await.unwrap().unwrap().concat());

    let services = place.services().await;
    for name in [NAME, "registry.test/app:2"] {
        services.images.delete(&name.parse().unwrap(), windlass_core::image::Deletion::Synchronous).await.unwrap();
    }
    let mut sender = Sender::new(caller.client.open_stream(&Scope::default(), "in").await.unwrap());
    let sent = tokio::spawn(async move {
        sender.send(archive).await?;
        sender.finish().await
    });
    let from = ImageImportStream { stream: "in".into(), ..ImageImportStream::default() };
    caller.transfer(&from, &store(""), "").await.unwrap();
    sent.await.unwrap().unwrap();
    let names: Vec<String> =
        services.images.list(&[]).map_ok(|image| image.name.to_string()).try_collect().await.unwrap();
    assert_eq!(names, [NAME, "registry.test/app:2"]);
    daemon.stop().await;
}

/// As `ctr images export` asks of an image that was pulled for this machine.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_of_this_machines_platform_unless_others_are_asked_for() {
    let other = Image::new("linux/s390x").layer(Layer::new().file("other", "x")).build();
    let (place, own) = (Place::new(), bundle());
    let (_registry, reference) = serve(&Index::new().bundle(&own).bundle(&other).build());
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let host = Platform::host();
    let platform = platforms::Platform { os: host.os, architecture: host.architecture, ..Default::default() };
    let to = ImageStore { platforms: vec![platform], all_metadata: true, ..store(NAME) };
    caller.transfer(&OciRegistry { reference, resolver: None }, &to, "").await.unwrap();

    let export = async |to: ImageExportStream| {
        let stream = caller.client.open_stream(&Scope::default(), &to.stream).await.unwrap();
        let archive = tokio::spawn(window::receive(stream).try_collect::<Vec<Bytes>>());
        let answer = caller.answer(Some(pack(&store(NAME))), Some(pack(&to))).await;
        let archive = archive.await.unwrap().map(|parts| String::from_utf8_lossy(&parts.concat()).into_owned());
        (answer, archive)
    };
    let (answer, archive) = export(ImageExportStream { stream: "own".into(), ..Default::default() }).await;
    answer.unwrap();
    let archive = archive.unwrap();
    assert!(own.image().layers.iter().all(|layer| archive.contains(&layer.digest.hex().to_string())));

    let all = ImageExportStream { stream: "all".into(), all_platforms: true, ..Default::default() };
    let (answer, _) = export(all).await;
    let status = answer.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    // Whoever reads no more than the message reads what to do; and there is nothing that it could fail to read.
    let hint = error::from_status(&status).hint_text().unwrap().to_owned();
    assert!(status.message().contains("is missing") && status.message().ends_with(&format!("({hint})")), "{status:?}");
    assert!(status.details().is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_written_as_it_is_from_a_client_back_to_it() {
    let place = Place::new();
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let echo = async |bytes: Bytes, to: &str| {
        let (client, scope) = (&caller.client, Scope::default());
        let mut sender = Sender::new(client.open_stream(&scope, "in").await.unwrap());
        let back = client.open_stream(&scope, "out").await.unwrap();
        let sent = tokio::spawn(async move {
            sender.send(bytes).await?;
            sender.finish().await
        });
        let back = tokio::spawn(window::receive(back).try_collect::<Vec<Bytes>>());
        let media_type = "application/octet-stream".to_owned();
        let from = ImageImportStream { stream: "in".into(), media_type, ..Default::default() };
        let to = ImageExportStream { stream: "out".into(), media_type: to.to_owned(), ..Default::default() };
        caller.transfer(&from, &to, "").await?;
        sent.await.unwrap()?;
        Ok::<_, windlass_core::Error>(back.await.unwrap()?.concat())
    };
    for bytes in [Bytes::new(), Bytes::from_static(b"some"), Bytes::from("some".repeat(50_000))] {
        assert!(echo(bytes.clone(), "application/octet-stream").await.unwrap() == bytes);
    }
    let error = echo(Bytes::new(), "application/gzip").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
    daemon.stop().await;
}
