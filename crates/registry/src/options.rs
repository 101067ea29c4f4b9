//! What a remote is told when it is made: all of its state comes from here.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::{Anonymous, Credentials};
use crate::proxy::Proxies;
use crate::retry::Retry;
use crate::tls::Certificate;

/// How a remote behaves.
#[derive(Clone)]
pub struct Options {
    /// Which hosts are spoken to without TLS.
    pub plain_http: PlainHttp,
    /// Directories with a directory for each registry of which something is configured, first choice first: containerd's `hosts.toml` in it,
    /// or certificates as Docker has them. They are read anew each time a reference is resolved or fetched.
    pub hosts_dirs: Vec<PathBuf>,
    /// What to do when a host does not do what it is asked for.
    pub fallback: Fallback,
    /// Whether content is fetched from where its descriptor says.
    pub foreign_urls: ForeignUrls,
    /// The proxies between us and hosts of which nothing else is configured.
    pub proxies: Proxies,
    /// Who we are, to whom.
    pub credentials: Arc<dyn Credentials>,
    /// What the client calls itself.
    pub user_agent: String,
    /// Certificates to trust beside those that the system trusts.
    pub extra_roots: Vec<Certificate>,
    /// Addresses of host names, asked before the system is; a name with an empty list does not exist.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retry: Retry,
    /// How many transfers of blobs from one host may run at once, those beside the first of each blob included.
    pub transfers_per_host: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: PlainHttp::default(),
            hosts_dirs: Vec::new(),
            fallback: Fallback::default(),
            foreign_urls: ForeignUrls::default(),
            proxies: Proxies::default(),
            credentials: Arc::new(Anonymous),
            user_agent: concat!("windlass/", env!("CARGO_PKG_VERSION")).to_owned(),
            extra_roots: Vec::new(),
            addresses: BTreeMap::new(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            transfers_per_host: 8,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("plain_http", &self.plain_http)
            .field("hosts_dirs", &self.hosts_dirs)
            .field("fallback", &self.fallback)
            .field("foreign_urls", &self.foreign_urls)
            .field("proxies", &self.proxies)
            .field("user_agent", &self.user_agent)
            .field("extra_roots", &self.extra_roots.len())
            .field("addresses", &self.addresses)
            .field("timeouts", &self.timeouts)
            .field("retry", &self.retry)
            .field("transfers_per_host", &self.transfers_per_host)
            .finish_non_exhaustive()
    }
}

/// Which hosts are spoken to without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Those that are this machine: `localhost`, `127.0.0.0/8` and `::1`.
    #[default]
    Loopback,
    /// All of them.
    Always,
    /// None.
    Never,
}

/// What to do when a host does not do what it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Ask the next one.
    #[default]
    Allowed,
    /// Fail: of each operation's hosts only the first is asked.
    Never,
}

/// Whether content that a registry has not got is fetched from the URLs of its descriptor, which whoever made the image has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForeignUrls {
    /// It is, but from addresses that nobody has reason to name.
    #[default]
    Asked,
    /// It is not.
    Refused,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to any of a host's addresses.
    pub connect: Duration,
    /// For the headers of an answer, the connection included.
    pub response: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// For a body that trickles.
    pub floor: Floor,
}

/// How slowly a body may come before its connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// How many bytes have to come in a second, on average.
    pub rate: u64,
    /// Over how long the average is taken; time in which nobody takes what has come does not count.
    pub over: Duration,
}

impl Default for Floor {
    fn default() -> Self {
        Self { rate: 1024, over: Duration::from_secs(20) }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            response: Duration::from_mins(1),
            idle: Duration::from_mins(1),
            floor: Floor::default(),
        }
    }
}
