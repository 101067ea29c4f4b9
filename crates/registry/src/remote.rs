//! The one resolver: looks at a reference and hands it to the interpreter of its locator.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderValue;
use windlass_core::image::Name;
use windlass_core::remote::{Fetcher, Pusher, Resolved, Resolver};
use windlass_core::{Descriptor, Digest, Error, Reference, Result, ResultExt as _};

use crate::auth::Authorizer;
use crate::balance::Balance;
use crate::client::Client;
use crate::credentials::Credentials;
use crate::exchange::Exchange;
use crate::fetcher::RegistryFetcher;
use crate::hosts::{Capability, Directories, RegistryHost, Repositories};
use crate::layout::{self, LayoutFetcher, LayoutPusher};
use crate::options::{Options, PlainHttp};
use crate::pusher::RegistryPusher;
use crate::resolver::RegistryResolver;
use crate::transport::Network;
use crate::validators::{Origins, Validators};

/// Resolves references to registries and to OCI layout directories. Cheap to clone; connections and tokens are shared.
///
/// ```no_run
/// # async fn example() -> windlass_core::Result<()> {
/// use windlass_core::remote::{ByteRange, Resolver};
/// use windlass_registry::{Options, Remote};
///
/// let remote = Remote::new(Options::default())?;
/// let resolved = remote.resolve(&"docker.io/library/redis:7".parse()?).await?;
/// let manifest = remote.fetcher(&resolved.name).await?.fetch(&resolved.descriptor, ByteRange::default()).await?;
/// println!("{} has {:?} bytes", resolved.descriptor.digest, manifest.size);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Remote {
    client: Arc<Client>,
    directories: Arc<Directories>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl Remote {
    /// Makes a remote. Nothing is read and nobody is asked before the first use.
    ///
    /// # Errors
    /// `InvalidArgument` for a user agent that cannot be sent.
    pub fn new(options: Options) -> Result<Self> {
        let user_agent = HeaderValue::from_str(&options.user_agent)
            .map_err(|_| Error::invalid_argument(format!("{:?} cannot be sent as a user agent", options.user_agent)))?;
        let transport = Box::new(Network::new(&options));
        let client = Client {
            exchange: Arc::new(Exchange::new(transport, options.retry, options.timeouts, user_agent)),
            authorizer: Authorizer::new(options.credentials),
            hosts: Arc::default(),
            transfers_per_host: options.transfers_per_host,
        };
        let directories = Directories::new(options.hosts_dirs, options.plain_http, options.fallback);
        Ok(Self { client: Arc::new(client), directories: Arc::new(directories) })
    }

    /// Makes a remote that shares connections and the limits of hosts with this one, and has its own answer to which hosts are
    /// asked and who we are: of the options are read `plain_http`, `hosts_dirs`, `fallback` and `credentials`. No token is shared.
    pub fn sharing(&self, options: Options) -> Self {
        let client = Client {
            exchange: self.client.exchange.clone(),
            authorizer: Authorizer::new(options.credentials),
            hosts: self.client.hosts.clone(),
            transfers_per_host: self.client.transfers_per_host,
        };
        let directories = Directories::new(options.hosts_dirs, options.plain_http, options.fallback);
        Self { client: Arc::new(client), directories: Arc::new(directories) }
    }

    /// Returns where a reference is served.
    async fn repositories(&self, reference: &Reference) -> Result<Repositories> {
        let (directories, reference) = (self.directories.clone(), reference.clone());
        tokio::task::spawn_blocking(move || directories.repositories(&reference))
            .await
            .map_err(|e| Error::internal("reading which hosts serve an image panicked").source(e))?
    }

    /// Makes a remote for somebody else: with credentials of its own, of which this one sees nothing and whose tokens it
    /// does not get, and the same connections, limits of hosts and knowledge of them. A process has one remote, and one of
    /// these for each pull whose credentials are its own.
    pub fn with_credentials(&self, credentials: Arc<dyn Credentials>) -> Self {
        let Client { exchange, hosts, transfers_per_host, .. } = &*self.client;
        let client = Client {
            exchange: exchange.clone(),
            authorizer: Authorizer::new(credentials),
            hosts: hosts.clone(),
            transfers_per_host: *transfers_per_host,
        };
        Self { client: Arc::new(client), directories: self.directories.clone() }
    }

    /// Makes a remote that speaks plain HTTP to other hosts, and is this one otherwise.
    pub fn with_plain_http(&self, plain_http: PlainHttp) -> Self {
        let Directories { search, fallback, .. } = &*self.directories;
        let directories = Directories::new(search.clone(), plain_http, *fallback);
        Self { client: self.client.clone(), directories: Arc::new(directories) }
    }

    /// Returns what a host, by its name in references, said last about a quota of requests; none when it has said nothing.
    pub fn balance(&self, host: &str) -> Option<Balance> {
        self.client.exchange.balance(&RegistryHost::itself(host, self.directories.plain_http).authority)
    }
}

#[async_trait]
impl Resolver for Remote {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        if let Some(path) = reference.layout_path() {
            return layout::resolve(path, reference).await;
        }
        let repositories = self.repositories(reference).await?;
        RegistryResolver { client: self.client.clone() }.resolve(&repositories, reference).await
    }

    async fn fetcher(&self, name: &Name) -> Result<Arc<dyn Fetcher>> {
        let reference = reference_of(name)?;
        if let Some(path) = reference.layout_path() {
            return Ok(Arc::new(LayoutFetcher::open(path).await?));
        }
        let repositories = self.repositories(&reference).await?;
        let (client, plain_http) = (self.client.clone(), self.directories.plain_http);
        let (validators, origins) = (Validators::default(), Origins::default());
        Ok(Arc::new(RegistryFetcher { client, repositories, plain_http, validators, origins }))
    }

    async fn pusher(&self, name: &Name) -> Result<Arc<dyn Pusher>> {
        let reference = reference_of(name)?;
        if let Some(path) = reference.layout_path() {
            return Ok(Arc::new(LayoutPusher::open(path, &reference).await?));
        }
        let repositories = self.repositories(&reference).await?;
        let repository = repositories.that_may(Capability::Push).first().map(|repository| (*repository).clone());
        let repository =
            repository.ok_or_else(|| Error::failed_precondition(format!("no host takes pushes to {name}")))?;
        Ok(Arc::new(RegistryPusher::new(self.client.clone(), repository, &reference)))
    }

    async fn referrers(&self, name: &Name, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let reference = reference_of(name)?;
        if let Some(path) = reference.layout_path() {
            return layout::referrers(path, subject, artifact_type).await;
        }
        let repositories = self.repositories(&reference).await?;
        RegistryResolver { client: self.client.clone() }.referrers(&repositories, subject, artifact_type).await
    }
}

fn reference_of(name: &Name) -> Result<Reference> {
    name.as_str().parse::<Reference>().context(|| format!("image {name} has no remote"))
}
