//! A client that speaks the protocol, and some that do not.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use windlass_core::Error;

use super::*;

/// Keeps the topics of what is forwarded, and refuses what has none.
#[derive(Default)]
struct Topics(Mutex<Vec<String>>);

#[async_trait]
impl Sink for Topics {
    async fn forward(&self, envelope: Option<Envelope>) -> Result<()> {
        let envelope = envelope.ok_or_else(|| Error::invalid_argument("no envelope is given"))?;
        self.0.lock().unwrap().push(envelope.topic);
        Ok(())
    }
}

/// A client, at the other end of a pipe from a server.
struct Client {
    pipe: DuplexStream,
    topics: Arc<Topics>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Client {
    fn connect() -> Self {
        let (pipe, server) = tokio::io::duplex(1 << 16);
        let topics = Arc::new(Topics::default());
        let sink = topics.clone();
        let served = tokio::spawn(async move { converse(server, &*sink).await });
        Self { pipe, topics, served }
    }

    async fn send(&mut self, stream: u32, kind: u8, data: &[u8]) {
        let mut bytes = u32::try_from(data.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(stream.to_be_bytes());
        bytes.extend([kind, 0]);
        bytes.extend(data);
        self.pipe.write_all(&bytes).await.unwrap();
    }

    async fn forward(&mut self, stream: u32, topic: &str) -> Response {
        let envelope = Envelope { topic: topic.to_owned(), ..Envelope::default() };
        self.call(stream, METHOD, ForwardRequest { envelope: Some(envelope) }.encode_to_vec()).await
    }

    async fn call(&mut self, stream: u32, method: &str, payload: Vec<u8>) -> Response {
        let request = Request { service: SERVICE.to_owned(), method: method.to_owned(), payload, ..Request::default() };
        self.send(stream, REQUEST, &request.encode_to_vec()).await;
        self.answer(stream).await
    }

    async fn answer(&mut self, expected: u32) -> Response {
        let Frame { stream, kind, data } = frame::read(&mut self.pipe).await.unwrap().unwrap();
        assert_eq!((stream, kind), (expected, frame::RESPONSE));
        Response::decode(&*data.unwrap()).unwrap()
    }

    /// Waits for the server to cut the connection off, and returns why.
    async fn cut_off(mut self) -> String {
        assert_eq!(self.pipe.read(&mut [0; 1]).await.unwrap(), 0);
        self.served.await.unwrap().unwrap_err().to_string()
    }
}

#[tokio::test]
async fn events_arrive_in_their_order_and_are_acknowledged() {
    let mut client = Client::connect();
    for (stream, topic) in [(1, "/tasks/create"), (3, "/tasks/start"), (9, "/tasks/exit")] {
        assert_eq!(client.forward(stream, topic).await.status, None);
    }
    assert_eq!(*client.topics.0.lock().unwrap(), ["/tasks/create", "/tasks/start", "/tasks/exit"]);
    drop(client.pipe);
    client.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_told_and_the_connection_goes_on() {
    let mut client = Client::connect();
    let code = |response: Response| Code::from_i32(response.status.unwrap().code);
    assert_eq!(code(client.call(1, "Backward", Vec::new()).await), Code::Unimplemented);
    assert_eq!(code(client.call(3, METHOD, Vec::new()).await), Code::InvalidArgument, "there is no envelope");
    assert_eq!(code(client.call(5, METHOD, vec![0xff; 9]).await), Code::InvalidArgument, "no message");
    client.send(7, REQUEST, &[0x0a, 0xff]).await;
    assert_eq!(code(client.answer(7).await), Code::InvalidArgument, "no request");
    assert_eq!(client.forward(9, "/t").await.status, None);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let mut client = Client::connect();
    client.send(1, REQUEST, &vec![0; MAX_DATA + 1]).await;
    assert_eq!(client.answer(1).await.status.unwrap().code, Code::ResourceExhausted as i32);
    let topic = "/".repeat(MAX_DATA - 200);
    assert_eq!(client.forward(3, &topic).await.status, None, "just below the limit");
}

#[tokio::test]
async fn who_breaks_the_protocol_is_cut_off() {
    for (stream, kind) in [(2, REQUEST), (1, frame::RESPONSE), (1, 0), (0, REQUEST)] {
        let mut client = Client::connect();
        client.send(stream, kind, &[]).await;
        assert!(client.cut_off().await.contains("a frame of kind"), "{stream} {kind}");
    }
    let mut client = Client::connect();
    client.forward(5, "/t").await;
    client.send(3, REQUEST, &[]).await;
    assert!(client.cut_off().await.contains("after 5"), "streams grow");
}

#[tokio::test]
async fn half_a_frame_is_no_frame() {
    for half in [&[0_u8, 0, 0][..], &[0, 0, 0, 9, 0, 0, 0, 1, 1, 0, 42]] {
        let mut client = Client::connect();
        client.pipe.write_all(half).await.unwrap();
        drop(client.pipe);
        assert_eq!(client.served.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
