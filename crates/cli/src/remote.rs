//! Where references lead from here: registries, with the user's credentials, and directories.

use std::path::PathBuf;
use std::sync::Arc;

use windlass::registry::{Anonymous, Credentials, DockerConfig, Options, PlainHttp, Remote};
use windlass_core::{Kind, Result};

use crate::version::VERSION;

/// Makes the resolver of every kind of reference. No host is asked before something is.
pub(crate) fn resolver(plain_http: bool) -> Result<Remote> {
    resolver_with(plain_http, Options::default().transfers_per_host)
}

/// Makes a resolver that gives a host so many connections for blobs.
pub(crate) fn resolver_with(plain_http: bool, transfers_per_host: usize) -> Result<Remote> {
    let user_agent = format!("windlass/{VERSION}");
    let credentials = credentials()?;
    let mut options = Options { user_agent, transfers_per_host, credentials, ..Options::default() };
    if plain_http {
        options.plain_http = PlainHttp::Always;
    }
    Remote::new(options)
}

/// Returns the user's credentials.
pub(crate) fn credentials() -> Result<Arc<dyn Credentials>> {
    let Some(path) = docker_config() else { return Ok(Arc::new(Anonymous)) };
    match DockerConfig::load(&path) {
        Ok(config) => Ok(Arc::new(config)),
        // Nobody has logged in anywhere.
        Err(error) if error.is(Kind::NotFound) => Ok(Arc::new(Anonymous)),
        Err(error) => Err(error),
    }
}

/// Returns Docker's configuration file, where `docker login` and its kin keep credentials.
fn docker_config() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))?;
    Some(directory.join("config.json"))
}
