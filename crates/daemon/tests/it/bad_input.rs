//! What a client may send that is no call: the daemon answers with an error, and goes on.

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Request, Status};
use windlass_core::Labels;

use crate::raw::Raw;
use crate::serving::Place;

/// Sends a message to a method, and returns how that ended.
async fn send(place: &Place, path: &'static str, message: Bytes) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(place.channel().await);
    client.ready().await.unwrap();
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
    client
        .unary(request, tonic::codegen::http::uri::PathAndQuery::from_static(path), Raw)
        .await
        .map(tonic::Response::into_inner)
}

const GET: &str = "/containerd.services.namespaces.v1.Namespaces/Get";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused_and_others_are_answered() {
    let place = Place::new();
    let daemon = place.start().await;
    let services = place.services().await;
    services.namespaces.create(&"n".parse().unwrap(), Labels::new()).await.unwrap();
    for (what, message) in [
        ("a length past the end", &[0x0a, 0xff, 0x01][..]),
        ("another type", &[0x08, 0x01]),
        ("text that is none", &[0x0a, 0x02, 0xff, 0xfe]),
        ("a number without end", &[0xff; 16]),
        ("an end of a group", &[0x0c]),
    ] {
        let status = send(&place, GET, Bytes::from_static(message)).await.unwrap_err();
        assert!(matches!(status.code(), Code::Internal | Code::InvalidArgument), "{what}: {status}");
    }
    let status = send(&place, GET, Bytes::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "a name that is empty: {status}");
    let status = send(&place, "/made.up.v1.Service/Method", Bytes::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("\"made.up.v1.Service\" is not served here"), "{status}");
    let status = send(&place, "/containerd.services.namespaces.v1.Namespaces/Rename", Bytes::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(services.namespaces.list().await.unwrap().len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_16_mib_is_refused_before_it_is_read() {
    let place = Place::new();
    let daemon = place.start().await;
    let largest = 16 << 20;
    let status = send(&place, GET, Bytes::from(vec![0; largest + 1])).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status}");
    // One of that size is read, and is no message.
    let status = send(&place, GET, Bytes::from(vec![0xff; largest])).await.unwrap_err();
    assert!(matches!(status.code(), Code::Internal | Code::InvalidArgument), "{status}");
    assert_eq!(place.services().await.namespaces.list().await.unwrap(), []);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_at_all_is_cut_off() {
    let place = Place::new();
    let daemon = place.start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\0\0\0\0\0\0",
    ] {
        let mut stream = tokio::net::UnixStream::connect(place.socket()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{bytes:?} is waited for");
    }
    assert_eq!(place.services().await.namespaces.list().await.unwrap(), []);
    daemon.stop().await;
}
