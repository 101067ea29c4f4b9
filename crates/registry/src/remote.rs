//! The one resolver: looks at a reference and hands it to the interpreter of its locator.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::HeaderValue;
use windlass_core::image::Name;
use windlass_core::remote::{Fetcher, Pusher, Resolved, Resolver};
use windlass_core::{Error, Reference, Result, ResultExt as _};

use crate::auth::Authorizer;
use crate::client::Client;
use crate::exchange::Exchange;
use crate::fetcher::RegistryFetcher;
use crate::hosts;
use crate::layout::{self, LayoutFetcher};
use crate::options::{Options, PlainHttp};
use crate::resolver::RegistryResolver;
use crate::traffic::Hosts;
use crate::transport::Network;

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
    plain_http: PlainHttp,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("plain_http", &self.plain_http).finish_non_exhaustive()
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
        let client = Client {
            exchange: Exchange {
                transport: Box::new(Network::new(&options)),
                retry: options.retry,
                timeouts: options.timeouts,
                user_agent,
                answered: Mutex::new(HashSet::new()),
            },
            authorizer: Authorizer::new(options.credentials),
            hosts: Hosts::default(),
            transfers_per_host: options.transfers_per_host,
        };
        Ok(Self { client: Arc::new(client), plain_http: options.plain_http })
    }
}

#[async_trait]
impl Resolver for Remote {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        if let Some(path) = reference.layout_path() {
            return layout::resolve(path, reference).await;
        }
        let repositories = hosts::repositories(reference, self.plain_http)?;
        RegistryResolver { client: self.client.clone() }.resolve(&repositories, reference).await
    }

    async fn fetcher(&self, name: &Name) -> Result<Arc<dyn Fetcher>> {
        let reference = reference_of(name)?;
        if let Some(path) = reference.layout_path() {
            return Ok(Arc::new(LayoutFetcher::open(path).await?));
        }
        let repositories = hosts::repositories(&reference, self.plain_http)?;
        Ok(Arc::new(RegistryFetcher { client: self.client.clone(), repositories }))
    }

    async fn pusher(&self, name: &Name) -> Result<Arc<dyn Pusher>> {
        Err(Error::unimplemented(format!("nothing can be pushed to {name}: push is not built yet")))
    }
}

fn reference_of(name: &Name) -> Result<Reference> {
    name.as_str().parse::<Reference>().context(|| format!("image {name} has no remote"))
}
