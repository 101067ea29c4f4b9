//! A daemon from its start to its end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use windlass::Owner;
use windlass_core::content::{Expected, IngesterExt as _};
use windlass_core::{Descriptor, Digest, Kind, Labels, MediaType, Namespace};
use windlass_daemon::{Daemon, Process};
use windlass_grpc::streaming::pack;
use windlass_proto::containerd::services::content::v1 as content;
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;
use windlass_proto::containerd::services::namespaces::v1::ListNamespacesRequest;
use windlass_proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use windlass_proto::containerd::services::transfer::v1::TransferRequest;
use windlass_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use windlass_proto::containerd::types::transfer::{ImageImportStream, ImageStore};
use windlass_proto::grpc::health::v1::HealthCheckRequest;
use windlass_proto::grpc::health::v1::health_check_response::ServingStatus;
use windlass_proto::grpc::health::v1::health_client::HealthClient;

use crate::serving::{Place, start};

/// Opens a writer on a reference and returns its answers; the stream is open for as long as the sender lives.
async fn open_writer(
    client: &mut ContentClient<tonic::transport::Channel>,
    reference: &str,
) -> (futures::channel::mpsc::Sender<content::WriteContentRequest>, tonic::Streaming<content::WriteContentResponse>) {
    let (mut sender, requests) = futures::channel::mpsc::channel(4);
    let stat = content::WriteContentRequest {
        action: content::WriteAction::Stat.into(),
        r#ref: reference.to_owned(),
        ..content::WriteContentRequest::default()
    };
    sender.try_send(stat).unwrap();
    let mut request = tonic::Request::new(requests);
    request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
    let mut answers = client.write(request).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    (sender, answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_there_after_a_restart() {
    let place = Place::new();
    let daemon = place.start().await;
    let services = place.services().await;
    let team: Namespace = "team".parse().unwrap();
    services.namespaces.create(&team, Labels::new().with("a", "b")).await.unwrap();
    let blob = Bytes::from_static(b"kept");
    let digest = Digest::sha256(&blob);
    let descriptor = Descriptor::new(MediaType::from("text/plain"), digest.clone(), 4);
    services.content.write_blob(&descriptor, blob, Labels::new().with("containerd.io/gc.root", "test")).await.unwrap();
    daemon.stop().await;
    assert!(!place.socket().exists());
    let daemon = place.start().await;
    let services = place.services().await;
    assert_eq!(services.namespaces.labels(&team).await.unwrap(), Labels::new().with("a", "b"));
    assert_eq!(services.content.info(&digest).await.unwrap().size, 4);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_the_root_says_where_the_daemon_answers() {
    let place = Place::new();
    let daemon = place.start().await;
    assert_eq!(Owner::of(&place.path("root")).unwrap().address, Some(place.socket()));
    let mut second = place.config();
    second.grpc.address = place.path("run/second.sock");
    let error = Daemon::start(second, Process::default()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    let answers = format!("which answers at {}", place.socket().display());
    assert!(error.to_string().contains(&answers), "{error}");
    daemon.stop().await;
    assert_eq!(Owner::of(&place.path("root")).unwrap().address, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_somebody_answers_is_refused() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut second = place.config();
    second.root = place.path("other");
    let error = Daemon::start(second, Process::default()).await.err().unwrap();
    assert!(error.to_string().contains("is in use: process"), "{error}");
    assert!(place.socket().exists(), "and stays the first one's");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_streams_with_a_status_and_lets_nothing_begin() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut client = ContentClient::new(place.channel().await);
    let (_sender, mut answers) = open_writer(&mut client, "half").await;
    let began = Instant::now();
    let stopping = tokio::spawn(daemon.stop());
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "the daemon is stopping"));
    stopping.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(tokio::net::UnixStream::connect(place.socket()).await.is_err());
    // What had been begun can be gone on with.
    let daemon = place.start().await;
    let statuses = place.services().await.content.statuses(&[]).await.unwrap();
    assert_eq!(statuses.len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_drains_says_that_it_does_not_serve() {
    let place = Place::new();
    let daemon = place.start().await;
    let channel = place.channel().await;
    let whole = || HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(channel.clone()).watch(whole()).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // A call that goes on: an archive that does not come.
    let client = windlass_grpc::Client::new(channel.clone());
    let archive = client.open_stream(&windlass_core::Scope::default(), "in").await.unwrap();
    let request = TransferRequest {
        source: Some(pack(&ImageImportStream { stream: "in".into(), ..ImageImportStream::default() })),
        destination: Some(pack(&ImageStore::default())),
        options: None,
    };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
    let mut transfers = TransferClient::new(channel.clone());
    let running = tokio::spawn(async move { transfers.transfer(request).await });
    tokio::time::sleep(Duration::from_millis(300)).await;

    let began = Instant::now();
    let stopping = tokio::spawn(daemon.stop());
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
    let other = place.channel().await;
    let health = HealthClient::new(other.clone()).check(whole()).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::NotServing);
    let mut namespaces = NamespacesClient::new(other);
    let refused = namespaces.list(ListNamespacesRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::Unavailable, "the daemon is stopping"));
    assert!(!stopping.is_finished(), "what runs is waited for");
    drop(archive);
    assert!(running.await.unwrap().is_err(), "the archive was none");
    stopping.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "and no longer: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_while_the_daemon_stopped_is_kept() {
    let place = Place::new();
    let daemon = place.start().await;
    let services = place.services().await;
    let mut calls = Vec::new();
    for number in 0..50 {
        let namespaces = services.namespaces.clone();
        calls.push(tokio::spawn(async move {
            let name: Namespace = format!("n{number}").parse().unwrap();
            namespaces.create(&name, Labels::new()).await
        }));
    }
    tokio::task::yield_now().await;
    daemon.stop().await;
    let mut done = Vec::new();
    for (number, call) in calls.into_iter().enumerate() {
        // The others were refused, or came when the connection was closed already.
        if call.await.unwrap().is_ok() {
            done.push(number);
        }
    }
    let daemon = place.start().await;
    let there = place.services().await.namespaces.list().await.unwrap();
    for number in done {
        assert!(there.contains(&format!("n{number}").parse().unwrap()), "n{number} was acknowledged");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_left_out_says_so() {
    let place = Place::new();
    let mut config = place.config();
    config.disabled_plugins.insert("io.containerd.grpc.v1.images".to_owned());
    let daemon = start(config).await;
    let services = place.services().await;
    let error = services.images.get(&"x:1".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
    assert!(error.to_string().contains("skip plugin: it is disabled by the configuration"), "{error}");
    assert_eq!(services.namespaces.list().await.unwrap(), [], "the others answer");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_served_on_the_loopback() {
    let place = Place::new();
    let mut config = place.config();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.metrics.address = Some(free);
    let daemon = start(config).await;
    let services = place.services().await;
    services.namespaces.create(&"one".parse().unwrap(), Labels::new()).await.unwrap();
    let ask = async |line: &str| {
        let mut stream = tokio::net::TcpStream::connect(free).await.unwrap();
        stream.write_all(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let page = ask("GET /metrics HTTP/1.1").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    let service = "grpc_service=\"containerd.services.namespaces.v1.Namespaces\"";
    for line in [
        format!("grpc_server_handled_total{{{service},grpc_method=\"Create\",grpc_code=\"OK\"}} 1"),
        "windlass_namespaces 1".to_owned(),
        "windlass_grpc_open_calls 0".to_owned(),
    ] {
        assert!(page.lines().any(|it| it == line), "{line} is not in\n{page}");
    }
    assert!(ask("GET /v1/x HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405 "));
    daemon.stop().await;
    assert!(tokio::net::TcpStream::connect(free).await.is_err());
}

/// Nothing in the contract's own client says when a writer is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_the_contract_holds_its_reference() {
    let place = Place::new();
    let daemon = place.start().await;
    let (one, other) = (place.services().await, place.services().await);
    let writer = one.content.writer(&"r".parse().unwrap(), Expected::default()).await.unwrap();
    let refused = other.content.writer(&"r".parse().unwrap(), Expected::default()).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Unavailable);
    drop(writer);
    daemon.stop().await;
}
