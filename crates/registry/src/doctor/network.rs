//! Names, connections and certificates, looked at one after the other.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service as _;
use windlass_core::checkup::Check;
use windlass_core::{Error, Result, timestamp};

use crate::connection::Connection;
use crate::dial::{Dial, Stream};
use crate::failure::{Failure, Peer};
use crate::hosts::{RegistryHost, is_loopback};
use crate::lookup::Lookup;
use crate::options::Options;
use crate::proxy::Proxies;
use crate::tls::{self, Certificate};
use crate::x509;

/// How long one step may take: nobody waits for a minute to learn that a packet was dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long before its end a certificate is worth a word.
const SOON: Duration = Duration::from_hours(14 * 24);

/// What connections are made with.
pub(crate) struct Probe {
    lookup: Lookup,
    proxies: Arc<Proxies>,
    extra_roots: Vec<Certificate>,
}

impl Probe {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            lookup: Lookup { fixed: Arc::new(options.addresses.clone()) },
            proxies: Arc::new(options.proxies.clone()),
            extra_roots: options.extra_roots.clone(),
        }
    }

    fn dial(&self, connection: &Arc<Connection>) -> Dial {
        let mut tcp = HttpConnector::new_with_resolver(self.lookup.clone());
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(PATIENCE));
        Dial::new(tcp, self.lookup.clone(), connection.clone(), self.proxies.clone())
    }

    /// Looks at the way to a host; tells whether it is reached.
    pub(crate) async fn reach(&self, host: &RegistryHost, url: &Uri, checks: &mut Vec<Check>) -> bool {
        let dial = self.dial(&host.connection);
        let direct = match (&host.connection.socket, dial.proxy(url)) {
            (Some(socket), _) => {
                checks.push(Check::ok("socket", format!("it is reached over {}", socket.display())));
                false
            }
            (None, Some(proxy)) => {
                checks.push(Check::ok("proxy", format!("it is reached through {proxy}")));
                false
            }
            (None, None) => true,
        };
        let reached = async {
            if direct {
                checks.push(self.name(host, url).await?);
            }
            let began = Instant::now();
            let stream = connect(host, dial.clone(), url).await?;
            let took = began.elapsed().as_millis();
            checks.push(Check::ok("tcp", format!("a connection is made within {took} ms")));
            checks.push(if url.scheme() == Some(&Scheme::HTTP) {
                plain(host)
            } else {
                self.handshake(host, dial, url, stream).await?
            });
            Ok::<_, Box<Check>>(())
        };
        match reached.await {
            Ok(()) => true,
            Err(check) => {
                checks.push(*check);
                false
            }
        }
    }

    async fn name(&self, host: &RegistryHost, url: &Uri) -> Result<Check, Box<Check>> {
        let name = url.host().unwrap_or_default();
        if name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
            return Ok(Check::ok("dns", format!("{name} is an address")));
        }
        let failed = |error: &Error| Box::new(Check::failed("dns", error));
        let asked: Name = name.parse().map_err(|_| failed(&Error::invalid_argument(format!("{name} is no name"))))?;
        let found = tokio::time::timeout(PATIENCE, self.lookup.clone().call(asked)).await;
        match found {
            Err(_) => Err(failed(
                &Error::deadline_exceeded(format!("no name server tells an address of {name} within 10 s"))
                    .hint("look at /etc/resolv.conf, and whether the name servers there are reached"),
            )),
            Ok(Err(error)) => Err(failed(&explained(host, url, &error))),
            Ok(Ok(addresses)) => {
                let addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
                Ok(Check::ok("dns", format!("{name} is {}", addresses.join(", "))))
            }
        }
    }

    /// Makes the handshake of TLS, and says of the certificate what people want to know.
    async fn handshake(&self, host: &RegistryHost, dial: Dial, url: &Uri, stream: Stream) -> Result<Check, Box<Check>> {
        let failed = |error: &Error| Box::new(Check::failed("tls", error));
        match self.secured(&host.connection, url, stream).await.map_err(|error| failed(&error))? {
            Ok(secured) => {
                let version = secured.get_ref().1.protocol_version().map_or_else(String::new, |it| format!("{it:?}"));
                Ok(told(&version.replace('_', "."), leaf(&secured), SystemTime::now()))
            }
            Err(error) => {
                let check = Check::failed("tls", &explained(host, url, &error));
                // Without looking at it, the certificate can be told.
                let blind = Arc::new(Connection { skip_verify: true, ..(*host.connection).clone() });
                let again = match connect(host, dial, url).await {
                    Ok(stream) => self.secured(&blind, url, stream).await.ok().and_then(std::result::Result::ok),
                    Err(_) => None,
                };
                let found = again.as_ref().and_then(leaf).map(|it| format!("; it shows {it}")).unwrap_or_default();
                Err(Box::new(Check { found: format!("{}{found}", check.found), ..check }))
            }
        }
    }

    /// The outer error is about this side, the inner one about the server.
    async fn secured(
        &self,
        connection: &Connection,
        url: &Uri,
        stream: Stream,
    ) -> Result<std::io::Result<TlsStream<TokioIo<Stream>>>> {
        let roots = self.extra_roots.clone();
        let trusted = tokio::task::spawn_blocking(move || tls::trusted(&roots)).await;
        let trusted =
            trusted.map_err(|error| Error::internal("reading the system's certificates panicked").source(error))??;
        let config = tls::client_config(trusted, connection)?;
        let name = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|error| {
            Error::invalid_argument(format!("{url} has a host of no kind that TLS knows")).source(error)
        })?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, TokioIo::new(stream));
        Ok(tokio::time::timeout(PATIENCE, handshake)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut))))
    }
}

/// Says what it means that TLS is not spoken.
fn plain(host: &RegistryHost) -> Check {
    let found = "plain HTTP is spoken, without TLS";
    if host.connection.socket.is_some() || is_loopback(&host.authority) {
        return Check::ok("tls", found);
    }
    Check::warn("tls", found)
        .hint("whoever is on the way can read what is sent, credentials too: have the registry speak TLS")
}

async fn connect(host: &RegistryHost, mut dial: Dial, url: &Uri) -> Result<Stream, Box<Check>> {
    let failed = |error: &Error| Box::new(Check::failed("tcp", error));
    match tokio::time::timeout(PATIENCE, dial.call(url.clone())).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(&explained(host, url, &*error))),
        Err(_) => Err(failed(
            &Error::deadline_exceeded(format!("{} does not answer within 10 s", host.name))
                .hint("something between it and this machine drops packets: look at firewalls and routes"),
        )),
    }
}

/// Says of a failure what a pull would say.
fn explained(host: &RegistryHost, url: &Uri, error: &(dyn std::error::Error + 'static)) -> Error {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    Failure::of(error).into_error(Peer { name: &host.name, authority, answered: false })
}

fn leaf(stream: &TlsStream<TokioIo<Stream>>) -> Option<x509::Certificate> {
    x509::Certificate::parse(stream.get_ref().1.peer_certificates()?.first()?)
}

/// Prints as `the certificate of a.test by Some Authority, good from … until …`.
impl fmt::Display for x509::Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &str| if name.is_empty() { "nobody".to_owned() } else { format!("{name:?}") };
        let day =
            |time| timestamp::format(time).map_or("?".to_owned(), |text| text.chars().take(10).collect::<String>());
        let (subject, issuer) = (name(&self.subject), name(&self.issuer));
        write!(f, "a certificate of {subject} by {issuer}, good from {} to ", day(self.not_before))?;
        f.write_str(&day(self.not_after))
    }
}

fn told(version: &str, certificate: Option<x509::Certificate>, now: SystemTime) -> Check {
    let Some(certificate) = certificate else {
        return Check::ok("tls", format!("{version}, with a certificate that is trusted"));
    };
    let found = format!("{version}, with {certificate}");
    match certificate.not_after.duration_since(now) {
        Ok(left) if left < SOON => Check::warn("tls", format!("{found}: that is in {} days", left.as_secs() / 86400))
            .hint("who runs the registry has to renew it"),
        _ => Check::ok("tls", found),
    }
}
