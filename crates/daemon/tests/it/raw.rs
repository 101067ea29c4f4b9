//! Calls whose messages are bytes, and the list of every method there is.

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::StreamExt as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Sends bytes as they are.
#[derive(Clone, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Calls a method with one message, as if what it sends were a stream, and returns its first answer; nothing when none comes
/// within a moment, as of a subscription.
pub(crate) async fn call(
    channel: &Channel,
    path: &str,
    message: Bytes,
    namespace: Option<&str>,
) -> Result<Option<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(futures::stream::iter([message]));
    if let Some(namespace) = namespace {
        request.metadata_mut().insert("containerd-namespace", namespace.parse().unwrap());
    }
    let path: PathAndQuery = path.parse().unwrap();
    let call = async {
        let mut answers = client.streaming(request, path, Raw).await?.into_inner();
        answers.next().await.transpose()
    };
    tokio::time::timeout(std::time::Duration::from_millis(500), call).await.unwrap_or(Ok(None))
}

/// Returns the paths of all methods, as the code that is made of the descriptions has them.
pub(crate) fn methods() -> Vec<String> {
    let generated = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/src/generated");
    let mut methods = Vec::new();
    for file in std::fs::read_dir(generated).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let quoted = text.split('"').skip(1).step_by(2);
        let paths = quoted.filter(|it| it.starts_with('/') && it.matches('/').count() == 2);
        methods.extend(paths.map(ToOwned::to_owned));
    }
    methods.sort();
    methods.dedup();
    assert!(methods.len() > 80, "{methods:?}");
    methods
}
