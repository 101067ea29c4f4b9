//! Connections: one request over one of them. Pooling, HTTP versions and TLS are here; meaning is not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::uri::Scheme;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use tokio::sync::OnceCell;
use windlass_core::{Error, Result};

use crate::connection::Connection;
use crate::dial::Dial;
use crate::failure::Failure;
use crate::lookup::Lookup;
use crate::options::Options;
use crate::payload::Payload;
use crate::proxy::Proxies;
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
/// For how many ways of connecting connections are kept: each registry of which something is configured may have its own.
const MAX_POOLS: usize = 64;

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

/// Over the network.
pub(crate) struct Network {
    tcp: HttpConnector<Lookup>,
    lookup: Lookup,
    proxies: Arc<Proxies>,
    extra_roots: Arc<[Certificate]>,
    /// Read at the first use: a pull from a registry without TLS need not read the system's certificates.
    trusted: Arc<OnceCell<RootCertStore>>,
    /// The connections to hosts that are spoken to in the same way, those that were used last in front.
    pools: Mutex<Vec<Arc<Pool>>>,
}

/// Connections to hosts that are spoken to in the same way.
struct Pool {
    connection: Arc<Connection>,
    dial: Dial,
    plain: Client<Dial, Payload>,
    /// Made at its first use.
    secure: OnceCell<Client<HttpsConnector<Dial>, Payload>>,
}

impl Network {
    pub(crate) fn new(options: &Options) -> Self {
        let lookup = Lookup { fixed: Arc::new(options.addresses.clone()) };
        let mut tcp = HttpConnector::new_with_resolver(lookup.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(IDLE_FOR));
        tcp.set_connect_timeout(Some(options.timeouts.connect));
        Self {
            tcp,
            lookup,
            proxies: Arc::new(options.proxies.clone()),
            extra_roots: options.extra_roots.clone().into(),
            trusted: Arc::default(),
            pools: Mutex::default(),
        }
    }

    /// Returns the connections that are made in some way.
    fn pool(&self, connection: &Arc<Connection>) -> Arc<Pool> {
        // Whatever a panic has left is a list of pools.
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |pool: &Arc<Pool>| Arc::ptr_eq(&pool.connection, connection) || pool.connection == *connection;
        let pool = if let Some(at) = pools.iter().position(same) {
            pools.remove(at)
        } else {
            let dial = Dial::new(self.tcp.clone(), self.lookup.clone(), connection.clone(), self.proxies.clone());
            let plain = client(dial.clone());
            Arc::new(Pool { connection: connection.clone(), dial, plain, secure: OnceCell::new() })
        };
        pools.insert(0, pool.clone());
        pools.truncate(MAX_POOLS);
        pool
    }

    async fn secure<'a>(&self, pool: &'a Pool) -> Result<&'a Client<HttpsConnector<Dial>, Payload>> {
        let make = async || {
            let read = async || {
                let roots = self.extra_roots.clone();
                tokio::task::spawn_blocking(move || tls::trusted(&roots))
                    .await
                    .map_err(|e| Error::internal("reading the system's certificates panicked").source(e))?
            };
            let trusted = self.trusted.get_or_try_init(read).await?.clone();
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls::client_config(trusted, &pool.connection)?)
                .https_only()
                .enable_http1()
                .enable_http2()
                .wrap_connector(pool.dial.clone());
            Ok(client(connector))
        };
        pool.secure.get_or_try_init(make).await
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
    async fn send(&self, mut request: http::Request<Payload>) -> Result<Result<Response, Failure>> {
        let connection = request.extensions_mut().remove::<Arc<Connection>>().unwrap_or_default();
        let pool = self.pool(&connection);
        let sent = if request.uri().scheme() == Some(&Scheme::HTTP) {
            if let Some(proxy) = pool.dial.forwarder(request.uri())
                && let Some(authorization) = proxy.authorization()?
            {
                request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
            }
            pool.plain.request(request)
        } else {
            self.secure(&pool).await?.request(request)
        };
        Ok(match sent.await {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) => Err(Failure::of(&error)),
        })
    }
}
