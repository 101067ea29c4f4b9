//! The one resolver: looks at a reference and hands it to the interpreter of its locator.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::HeaderValue;
use windlass_core::image::Name;
use windlass_core::remote::{Fetcher, Pusher, Resolved, Resolver};
use windlass_core::{Descriptor, Digest, Error, Listing, Reference, Result, ResultExt as _};

use crate::auth::Authorizer;
use crate::balance::Balance;
use crate::client::Client;
use crate::credentials::{Credential, Credentials};
use crate::delete::Deleted;
use crate::doctor::Probe;
use crate::elsewhere::Elsewhere;
use crate::exchange::Exchange;
use crate::fetcher::RegistryFetcher;
use crate::hosts::{Capability, Directories, RegistryHost, Repositories, Repository, is_loopback};
use crate::layout::{self, LayoutFetcher, LayoutPusher};
use crate::login::{self, Login};
use crate::options::{ForeignUrls, Options, PlainHttp};
use crate::passed_over::{self, PassedOver};
use crate::pusher::RegistryPusher;
use crate::resolver::RegistryResolver;
use crate::senders::Senders;
use crate::tags;
use crate::transport::Network;
use crate::validators::Validators;

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
    pub(crate) client: Arc<Client>,
    pub(crate) directories: Arc<Directories>,
    /// Whether content is fetched from where its descriptor says.
    foreign_urls: ForeignUrls,
    /// What a check-up connects with.
    pub(crate) probe: Arc<Probe>,
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
        let (transport, probe) = (Box::new(Network::new(&options)), Arc::new(Probe::new(&options)));
        let client = Client {
            exchange: Arc::new(Exchange::new(transport, options.retry, options.timeouts, user_agent)),
            authorizer: Authorizer::new(options.credentials),
            hosts: Arc::default(),
            transfers_per_host: options.transfers_per_host,
            passed_over: passed_over::List::default(),
        };
        let directories = Directories::new(options.hosts_dirs, options.plain_http, options.fallback);
        let foreign_urls = options.foreign_urls;
        Ok(Self { client: Arc::new(client), directories: Arc::new(directories), foreign_urls, probe })
    }

    /// Checks a credential with a registry, and returns what is to be kept of it. Of whom else is asked in its place nobody is asked.
    ///
    /// # Errors
    /// `Unauthenticated` when the registry, or its token server, refuses the credential; `FailedPrecondition` when it is no registry, or when
    /// others are configured in its place; why there is no answer.
    pub async fn login(&self, host: &str, credential: &Credential) -> Result<Login> {
        login::login(&self.client, self.directories.clone(), host, credential).await
    }

    /// Returns where a reference is served.
    pub(crate) async fn repositories(&self, reference: &Reference) -> Result<Repositories> {
        let (directories, reference) = (self.directories.clone(), reference.clone());
        let read = tokio::task::spawn_blocking(move || directories.repositories(&reference));
        let read = read.await.map_err(|e| Error::internal("reading which hosts serve an image panicked").source(e))?;
        read.map(|repositories| repositories.noting(self.client.passed_over.clone()))
    }

    /// Returns which hosts failed so far while others were left, which were asked instead: a mirror that fails is something to look
    /// at, although everything came. Each is there once for each reason; those of a remote with other credentials are its own.
    pub fn passed_over(&self) -> Vec<PassedOver> {
        self.client.passed_over.all()
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
            passed_over: passed_over::List::default(),
        };
        Self { client: Arc::new(client), ..self.clone() }
    }

    /// Makes a remote that speaks plain HTTP to other hosts, and is this one otherwise.
    pub fn with_plain_http(&self, plain_http: PlainHttp) -> Self {
        let mut directories = (*self.directories).clone();
        directories.plain_http = plain_http;
        self.asking(directories)
    }

    /// Makes a remote that looks for directories of hosts elsewhere, and is this one otherwise.
    pub fn with_hosts_dirs(&self, search: Vec<PathBuf>) -> Self {
        let mut directories = (*self.directories).clone();
        directories.search = search;
        self.asking(directories)
    }

    fn asking(&self, directories: Directories) -> Self {
        Self { directories: Arc::new(directories), ..self.clone() }
    }

    /// Returns what a host, by its name in references, said last about a quota of requests; none when it has said nothing.
    pub fn balance(&self, host: &str) -> Option<Balance> {
        self.client.exchange.balance(&RegistryHost::itself(host, self.directories.plain_http).authority)
    }
}

impl Remote {
    /// Lists the tags of a repository, or of a layout; the object of the reference does not matter.
    ///
    /// # Errors
    /// `NotFound` when there is no such repository; `ResourceExhausted` for a list that does not end.
    pub fn tags(&self, reference: &Reference) -> Listing<String> {
        if let Some(path) = reference.layout_path() {
            let path = path.to_owned();
            return stream::once(layout::tags(path)).map_ok(|tags| stream::iter(tags).map(Ok)).try_flatten().boxed();
        }
        let (remote, reference) = (self.clone(), reference.clone());
        let tags = async move {
            let repository = remote.repository(&reference, Capability::Resolve).await?;
            Ok(tags::tags(remote.client.clone(), repository))
        };
        stream::once(tags).try_flatten().boxed()
    }

    /// Deletes at a registry: the manifest with all of its tags, of a reference with a digest; of one with a tag, the tag. Where lists
    /// of referrers are kept by whoever pushes, that of the manifest goes, too, and so does its entry in another one.
    ///
    /// # Errors
    /// `NotFound` when it is not there; `Unimplemented` when the registry does not delete such things;
    /// `InvalidArgument` for a reference with both or neither.
    pub async fn delete(&self, reference: &Reference) -> Result<()> {
        if reference.layout_path().is_some() {
            return Err(Error::unimplemented(format!("nothing is deleted in a layout, as {reference} is"))
                .hint("delete the entry in its index.json"));
        }
        let repository = async || self.repository(reference, Capability::Push).await;
        match (reference.tag(), reference.digest()) {
            (Some(tag), None) => self.client.delete(&repository().await?, &Deleted::Tag(tag)).await,
            (None, Some(digest)) => {
                RegistryPusher::new(self.client.clone(), repository().await?, reference).delete(digest).await
            }
            _ => Err(Error::invalid_argument(format!("{reference} does not say whether a tag or a manifest is meant"))
                .hint("NAME:TAG is a tag, NAME@DIGEST a manifest with all of its tags")),
        }
    }

    /// Returns the first host of a reference that may be asked for something.
    async fn repository(&self, reference: &Reference, capability: Capability) -> Result<Repository> {
        let repositories = self.repositories(reference).await?;
        let first = repositories.that_may(capability).first().map(|repository| (*repository).clone());
        first.ok_or_else(|| repositories.walk(capability, capability.word()).into_error())
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
        let (validators, senders) = (Validators::default(), Senders::default());
        let pulled_from = repositories.that_may(Capability::Pull);
        let local = pulled_from.iter().all(|repository| is_loopback(&repository.host.authority));
        let inner = Arc::new(RegistryFetcher { client, repositories, plain_http, validators, senders });
        Ok(Arc::new(Elsewhere { inner, wanted: self.foreign_urls, local }))
    }

    async fn pusher(&self, name: &Name) -> Result<Arc<dyn Pusher>> {
        let reference = reference_of(name)?;
        if let Some(path) = reference.layout_path() {
            return Ok(Arc::new(LayoutPusher::open(path, &reference).await?));
        }
        let repository = self.repository(&reference, Capability::Push).await?;
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
