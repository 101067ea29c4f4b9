//! Connections below TLS: straight to a host, through a proxy, or to a unix socket.

mod socks;
mod stream;
mod tunnel;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tower_service::Service;

use crate::connection::Connection;
use crate::lookup::Lookup;
use crate::proxy::{Protocol, Proxies, Proxy};
use crate::transport::BoxError;

pub(crate) use stream::Stream;

/// That there is no way to a host although it may well be there: its own type, so that this failure can be told from others.
#[derive(Debug, Clone)]
pub(crate) struct NoWay {
    /// What is in the way.
    pub(crate) words: String,
    /// What to do about it.
    pub(crate) hint: String,
    /// Whether trying again may help.
    pub(crate) transient: bool,
}

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

// What is behind it is in its words: whoever looks for a cause is not to take the proxy's for the host's.
impl std::error::Error for NoWay {}

impl NoWay {
    fn through(proxy: &Proxy, transient: bool, words: impl fmt::Display) -> Self {
        Self {
            words: format!("the proxy {proxy} {words}"),
            hint: "look at the variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, or the key proxy of a hosts.toml".to_owned(),
            transient,
        }
    }

    /// The proxy breaks off, or cannot be reached.
    fn broken(proxy: &Proxy, error: impl fmt::Display) -> Self {
        Self::through(proxy, true, format_args!("does not answer: {error}"))
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dial {
    tcp: HttpConnector<Lookup>,
    lookup: Lookup,
    connection: Arc<Connection>,
    proxies: Arc<Proxies>,
}

impl Dial {
    pub(crate) fn new(
        mut tcp: HttpConnector<Lookup>,
        lookup: Lookup,
        connection: Arc<Connection>,
        proxies: Arc<Proxies>,
    ) -> Self {
        if connection.dial_timeout.is_some() {
            tcp.set_connect_timeout(connection.dial_timeout);
        }
        Self { tcp, lookup, connection, proxies }
    }

    /// Returns the proxy between us and a URL.
    pub(crate) fn proxy(&self, uri: &Uri) -> Option<&Proxy> {
        if self.connection.socket.is_some() {
            return None;
        }
        self.connection.proxy.as_ref().or_else(|| self.proxies.of(uri))
    }

    /// Returns the proxy to which a request is sent as a whole, instead of through it.
    pub(crate) fn forwarder(&self, uri: &Uri) -> Option<&Proxy> {
        self.proxy(uri).filter(|proxy| proxy.protocol == Protocol::Http && uri.scheme() == Some(&Scheme::HTTP))
    }

    async fn straight(&mut self, uri: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        self.tcp.call(uri).await.map_err(Into::into)
    }

    async fn connect(mut self, uri: Uri) -> Result<Stream, BoxError> {
        if let Some(path) = &self.connection.socket {
            let connected = UnixStream::connect(path).await.map_err(|error| NoWay {
                words: format!("the socket {} is not there for us: {error}", path.display()),
                hint: "see that the registry runs and that this user may connect to its socket".to_owned(),
                transient: error.kind() == std::io::ErrorKind::ConnectionRefused,
            })?;
            return Ok(Stream::Unix(TokioIo::new(connected)));
        }
        let forwarded = self.forwarder(&uri).is_some();
        let Some(proxy) = self.proxy(&uri).cloned() else { return self.straight(uri).await.map(Stream::Tcp) };
        let there: Uri = format!("http://{proxy}").parse()?;
        let stream = self.straight(there).await.map_err(|error| NoWay::broken(&proxy, deepest(&*error)))?;
        if forwarded {
            return Ok(Stream::Forwarded(stream));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 });
        let mut stream = stream.into_inner();
        match proxy.protocol {
            Protocol::Http => tunnel::through(&mut stream, &proxy, host, port).await?,
            Protocol::Socks5WithNames => socks::through(&mut stream, &proxy, &socks::Target::named(host), port).await?,
            Protocol::Socks5 => {
                let target = socks::Target::looked_up(host, &mut self.lookup).await?;
                socks::through(&mut stream, &proxy, &target, port).await?;
            }
        }
        Ok(Stream::Tcp(TokioIo::new(stream)))
    }
}

/// Returns what an error says at its bottom.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
