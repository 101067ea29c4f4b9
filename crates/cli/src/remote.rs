//! Where references lead from here: registries, with the user's credentials, and directories.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use windlass::registry::{
    Credential, Credentials, Fallback, ForHost, ForeignUrls, HOSTS_DIRS, InOrder, Options, PlainHttp, Proxies, Remote,
    Retry,
};
use windlass_core::{Error, Reference, Result};

use crate::credentials;
use crate::version::VERSION;

/// Which hosts are asked: the options of every command that asks a registry.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Hosts {
    /// Talk HTTP without TLS to any host, not only to loopback ones.
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Directory with a directory for each registry: containerd's hosts.toml in it, or Docker's certificates; may be given again [default:
    /// /etc/containerd/certs.d, /etc/docker/certs.d, /etc/containers/certs.d].
    #[arg(
        long = "hosts-dir",
        value_name = "DIR",
        env = "DIST_HOSTS_DIR",
        hide_env_values = true,
        value_delimiter = ':'
    )]
    search: Vec<PathBuf>,
    /// Ask only the first host that may do something, and fail when it does not.
    #[arg(long)]
    no_fallback: bool,
    /// Fetch no layer from the URLs that the image names for it when the registry has not got it.
    #[arg(long)]
    no_foreign_urls: bool,
}

impl Hosts {
    /// Returns the options of a remote. The environment is read, nobody is asked.
    pub(crate) fn options(&self) -> Result<Options> {
        for directory in &self.search {
            // A name that is wrong would mean that other hosts are asked than was wanted.
            if !directory.is_dir() {
                return Err(Error::invalid_argument(format!("{} is not a directory of hosts", directory.display()))
                    .hint("--hosts-dir (DIST_HOSTS_DIR) names a directory that has one for each registry, such as HOST_PORT_/hosts.toml"));
            }
        }
        let usual = || HOSTS_DIRS.iter().map(PathBuf::from).collect();
        Ok(Options {
            user_agent: format!("windlass/{VERSION}"),
            plain_http: if self.plain_http { PlainHttp::Always } else { PlainHttp::default() },
            hosts_dirs: if self.search.is_empty() { usual() } else { self.search.clone() },
            fallback: if self.no_fallback { Fallback::Never } else { Fallback::Allowed },
            foreign_urls: if self.no_foreign_urls { ForeignUrls::Refused } else { ForeignUrls::Asked },
            proxies: proxies()?,
            credentials: Arc::new(InOrder::new(credentials::files()?)),
            ..Options::default()
        })
    }

    /// Tells whether somebody says where hosts are named, or that some are not asked.
    pub(crate) fn are_named(&self) -> bool {
        !self.search.is_empty() || self.no_fallback || self.no_foreign_urls
    }

    /// Makes a resolver of any reference. Nobody is asked before something is.
    pub(crate) fn resolver(&self) -> Result<Remote> {
        Remote::new(self.options()?)
    }

    /// Makes a resolver that is somebody at the registry of a reference.
    pub(crate) fn resolver_for(&self, reference: &Reference, user: &credentials::User) -> Result<Remote> {
        let mut options = self.options()?;
        if let Some(credential) = user.credential()? {
            options.credentials = first(reference, credential, options.credentials)?;
        }
        Remote::new(options)
    }
}

/// Which hosts are asked, and as whom: the options of a command that is about one reference.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Registries {
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) user: credentials::User,
}

impl Registries {
    /// Makes the resolver of a reference. Nobody is asked before something is.
    pub(crate) fn resolver(&self, reference: &Reference) -> Result<Remote> {
        self.hosts.resolver_for(reference, &self.user)
    }

    /// Returns who the user is, to the registry of a reference and to others.
    pub(crate) fn credentials(&self, reference: &Reference) -> Result<Arc<dyn Credentials>> {
        let kept: Arc<dyn Credentials> = Arc::new(InOrder::new(credentials::files()?));
        match self.user.credential()? {
            Some(credential) => first(reference, credential, kept),
            None => Ok(kept),
        }
    }

    /// Makes a resolver that gives a host so many connections for blobs, and whose requests stand in line that long.
    pub(crate) fn resolver_with(
        &self,
        reference: &Reference,
        transfers_per_host: usize,
        patience: Duration,
    ) -> Result<Remote> {
        let retry = Retry { patience, ..Retry::default() };
        let credentials = self.credentials(reference)?;
        Remote::new(Options { transfers_per_host, retry, credentials, ..self.hosts.options()? })
    }
}

/// Puts the credential of a command line before all others, for the registry of the reference and nobody else.
fn first(reference: &Reference, credential: Credential, others: Arc<dyn Credentials>) -> Result<Arc<dyn Credentials>> {
    let host = reference.host().ok_or_else(|| {
        Error::invalid_argument(format!("{reference} does not name a registry")).hint("leave --user out")
    })?;
    Ok(Arc::new(InOrder::new(vec![Arc::new(ForHost::new(host, credential, "--user")), others])))
}

/// Returns the proxies that the environment names.
pub(crate) fn proxies() -> Result<Proxies> {
    Proxies::of_variables(|name| std::env::var(name).ok())
}
