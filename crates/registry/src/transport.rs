//! Connections: one request over one of them. Pooling, HTTP versions and TLS are here; meaning is not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::Scheme;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OnceCell;
use windlass_core::{Error, Result};

use crate::failure::Failure;
use crate::lookup::Lookup;
use crate::options::Options;
use crate::payload::Payload;
use crate::tls::{self, Certificate};

/// The most that is read from an HTTP/1 connection at once, in bytes. Reads adapt to what is there, up to this. A connection
/// that is not used keeps as much.
const READ_BUFFER: usize = 256 << 10;
/// How much a server may send ahead on one HTTP/2 stream and on a whole connection, in bytes: enough for 1 Gbit/s at a
/// round trip of 30 ms, and what a slow reader can make us hold.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The largest HTTP/2 frame, in bytes.
const FRAME: u32 = 256 << 10;
/// How many unused connections to a host are kept, and for how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_FOR: Duration = Duration::from_mins(1);

/// The body of an answer.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
/// Why a body does not go on.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// An answer whose body is still to come.
pub(crate) type Response = http::Response<ResponseBody>;

/// Sends one request and returns its answer.
#[async_trait]
pub(crate) trait Transport: Send + Sync {
    /// The outer error is about this side, such as certificates that are not readable; the inner one is why there is
    /// no answer.
    async fn send(&self, request: http::Request<Payload>) -> Result<Result<Response, Failure>>;
}

type Plain = HttpConnector<Lookup>;
type Secure = HttpsConnector<Plain>;

/// The transport over TCP: HTTP/1.1, and HTTP/2 where TLS negotiates it.
pub(crate) struct Network {
    connector: Plain,
    extra_roots: Arc<[Certificate]>,
    plain: Client<Plain, Payload>,
    /// Made at its first use: a pull from a registry without TLS need not read the system's certificates.
    secure: OnceCell<Client<Secure, Payload>>,
}

impl Network {
    pub(crate) fn new(options: &Options) -> Self {
        let mut connector = HttpConnector::new_with_resolver(Lookup { fixed: Arc::new(options.addresses.clone()) });
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(IDLE_FOR));
        connector.set_connect_timeout(Some(options.timeouts.connect));
        Self {
            plain: client(connector.clone()),
            connector,
            extra_roots: options.extra_roots.clone().into(),
            secure: OnceCell::new(),
        }
    }

    async fn secure(&self) -> Result<&Client<Secure, Payload>> {
        let make = async || {
            let roots = self.extra_roots.clone();
            let config = tokio::task::spawn_blocking(move || tls::client_config(&roots))
                .await
                .map_err(|e| Error::internal("reading the system's certificates panicked").source(e))??;
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(config)
                .https_only()
                .enable_http1()
                .enable_http2()
                .wrap_connector(self.connector.clone());
            Ok(client(connector))
        };
        self.secure.get_or_try_init(make).await
    }
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Payload> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http1_max_buf_size(READ_BUFFER)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_frame_size(FRAME)
        .build(connector)
}

#[async_trait]
impl Transport for Network {
    async fn send(&self, request: http::Request<Payload>) -> Result<Result<Response, Failure>> {
        let secure = request.uri().scheme() != Some(&Scheme::HTTP);
        let sent = if secure { self.secure().await?.request(request) } else { self.plain.request(request) };
        Ok(match sent.await {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) => Err(Failure::of(&error)),
        })
    }
}
