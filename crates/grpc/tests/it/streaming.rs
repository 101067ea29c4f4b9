//! Streams by name, and bytes over them.

use bytes::Bytes;
use futures::TryStreamExt as _;
use windlass_core::{Kind, Scope};
use windlass_grpc::streaming::{Server, Stream, Streams, window};
use windlass_grpc::{Client, MAX_MESSAGE, Routes};
use windlass_proto::containerd::services::streaming::v1::streaming_server::StreamingServer;
use windlass_proto::containerd::types::transfer::{Data, WindowUpdate};

use crate::pipe;

async fn daemon() -> (Client, Streams) {
    let streams = Streams::default();
    let server = StreamingServer::new(Server::new(streams.clone())).max_decoding_message_size(MAX_MESSAGE);
    let channel = pipe::connect(Routes::default().add_service(server)).await;
    (Client::new(channel), streams)
}

async fn both_ends(name: &str) -> (Stream, Stream) {
    let (client, streams) = daemon().await;
    let scope = Scope::default();
    let ours = client.open_stream(&scope, name).await.unwrap();
    (ours, streams.take(&scope.namespace, name).unwrap())
}

#[tokio::test]
async fn bytes_arrive_in_order_and_end() {
    for from_client in [true, false] {
        let (client, daemon) = both_ends("s").await;
        let (sending, receiving) = if from_client { (client, daemon) } else { (daemon, client) };
        let sent: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
        let bytes = Bytes::from(sent.clone());
        let sender = tokio::spawn(async move {
            let mut sender = window::Sender::new(sending);
            sender.send(bytes).await?;
            sender.finish().await
        });
        let received: Vec<Bytes> = window::receive(receiving).try_collect().await.unwrap();
        sender.await.unwrap().unwrap();
        assert!(received.concat() == sent, "{} bytes arrived", received.concat().len());
    }
}

#[tokio::test]
async fn a_sender_waits_for_the_window() {
    let (client, mut daemon) = both_ends("s").await;
    let mut sender = window::Sender::new(client);
    let sending = tokio::spawn(async move {
        sender.send(Bytes::from_static(b"0123456789")).await?;
        sender.finish().await
    });
    for expected in [&b"0123"[..], b"4567", b"89"] {
        daemon.send(&WindowUpdate { update: 4 }).await.unwrap();
        let data: Data = windlass_grpc::streaming::unpack(&daemon.receive().await.unwrap().unwrap()).unwrap().unwrap();
        assert_eq!(data.data, expected);
    }
    assert_eq!(daemon.receive().await.unwrap(), None);
    drop(daemon);
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_bytes_and_what_exceeds_the_window_is_refused() {
    let (mut client, daemon) = both_ends("s").await;
    client.send(&WindowUpdate { update: 1 }).await.unwrap();
    let error = window::receive(daemon).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");

    let (mut client, daemon) = both_ends("s").await;
    client.send(&Data { data: vec![0; 3 << 20].into() }).await.unwrap();
    let error = window::receive(daemon).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn a_name_is_one_stream_of_one_namespace() {
    let (client, streams) = daemon().await;
    let scope = Scope::default();
    let other = Scope { namespace: "other".parse().unwrap(), ..Scope::default() };
    assert_eq!(streams.take(&scope.namespace, "s").err().unwrap().kind(), Kind::NotFound);
    let first = client.open_stream(&scope, "s").await.unwrap();
    assert_eq!(client.open_stream(&scope, "s").await.err().unwrap().kind(), Kind::AlreadyExists);
    let _second = client.open_stream(&other, "s").await.unwrap();
    // A client that goes before anybody took its stream up leaves nothing.
    drop(first);
    let free = async { while client.open_stream(&scope, "s").await.is_err() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), free).await.unwrap();
    assert!(streams.take(&other.namespace, "s").is_ok());
}

#[tokio::test]
async fn a_stream_without_a_name_is_refused() {
    let (client, _) = daemon().await;
    assert_eq!(client.open_stream(&Scope::default(), "").await.err().unwrap().kind(), Kind::InvalidArgument);
}
