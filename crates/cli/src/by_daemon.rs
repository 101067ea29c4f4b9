//! Pulls that a daemon carries out itself, by its transfer service, instead of a workflow here that works on it call by call.
//!
//! Only a daemon of ours is asked to: another one's service does other things under the same options. What the service cannot be
//! told, such as a directory that is a source here, is done from here, too.

use async_trait::async_trait;
use windlass::registry::{self, Credential, Known, PassedOver, Retry};
use windlass::transfer::{Pulled, Unpack};
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{Namespace, Platform, Result};
use windlass_grpc::Client;
use windlass_grpc::transfer::{Answer, Credentials, Pull, Remote};

use crate::commands::pull::Source;
use crate::context::Place;

/// Returns who carries the pull out instead of this process, if anybody does.
pub(crate) async fn transfers(place: &Place, source: &Source) -> Result<Option<Remote>> {
    let Place::Daemon(client) = place else { return Ok(None) };
    let found = match of_source(source) {
        Some(reason) => Err(reason),
        None => of_daemon(client).await?,
    };
    match found {
        Ok(transfers) => Ok(Some(transfers)),
        Err(reason) => {
            tracing::debug!("{} is brought by this process and not by the daemon: {reason}", source.reference);
            Ok(None)
        }
    }
}

/// Says why the daemon cannot be asked for something, if it cannot.
fn of_source(source: &Source) -> Option<&'static str> {
    if source.reference.host().is_none() {
        return Some("the reference is no registry's");
    }
    if source.verification.is_asked_for() || source.with_referrers.is_some() {
        return Some("it is verified, or brought with what is attached to it, as this command line says");
    }
    if source.registries.hosts.are_named() {
        return Some("which hosts are asked is said by this command line");
    }
    if source.transfers.rate_limit_wait() != Retry::default().patience {
        return Some("how long to wait for a registry is said by this command line");
    }
    (!source.transfers.default_per_host()).then_some("connections of hosts are for the daemon to count")
}

async fn of_daemon(client: &Client) -> Result<Result<Remote, &'static str>> {
    Ok(client.transfers().await?.ok_or("it is not one of this project, or has no transfers"))
}

/// What is asked of a daemon.
pub(crate) struct Ask<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) source: &'a Source,
    /// The workflow's options.
    pub(crate) options: &'a windlass::transfer::Pull,
    /// Whether somebody said what becomes of the layers' blobs; otherwise the daemon's configuration says it.
    pub(crate) keep_layers: Option<bool>,
    /// Whether it is called a fetch.
    pub(crate) fetch: bool,
}

/// Has a daemon pull.
///
/// # Errors
/// As [`Remote::pull`]; those of reading the user's credentials.
pub(crate) async fn pull(transfers: &Remote, ask: Ask<'_>, tracker: &Tracker) -> Result<(Pulled, Vec<PassedOver>)> {
    let Ask { namespace, source, options, keep_layers, fetch } = ask;
    let repository = source.reference.repository().unwrap_or_default().to_owned();
    let credentials = Users { credentials: source.registries.credentials(&source.reference)?, repository };
    let mut told = source.transfers.told();
    (told.ignore_space, told.metadata_only, told.fetch) = (options.ignore_space, options.metadata_only, fetch);
    told.keep_layers = keep_layers;
    let pull = Pull {
        reference: source.reference.to_string(),
        scheme: source.registries.hosts.plain_http.then_some("http"),
        platforms: platforms(&options.platforms),
        unpack: (options.unpack == Unpack::Yes && !fetch).then(|| options.snapshotter.clone()),
        options: told,
    };
    let pulled = transfers.pull(namespace, &pull, &credentials, tracker).await?;
    let windlass_grpc::transfer::Pulled { name, target, snapshots, artifacts, passed_over, totals } = pulled;
    let failed = passed_over.into_iter().map(|failed| PassedOver {
        attempt: failed.attempt,
        reason: failed.reason,
        times: failed.times,
    });
    Ok((Pulled { name, target, snapshots, artifacts, totals }, failed.collect()))
}

fn platforms(selection: &Selection) -> Vec<Platform> {
    match selection {
        Selection::All => Vec::new(),
        Selection::Best(platforms) => platforms.clone(),
    }
}

/// The credentials of the user who runs the command.
struct Users {
    credentials: std::sync::Arc<dyn registry::Credentials>,
    /// What they are for.
    repository: String,
}

#[async_trait]
impl Credentials for Users {
    async fn of(&self, host: &str) -> Result<Answer> {
        Ok(match self.credentials.of(host, &self.repository).await? {
            Known::Nothing => Answer::Nothing,
            Known::Unusable { hint } => Answer::Unusable(hint),
            Known::Credential(Credential::Password { username, password }) => {
                Answer::Password { username: username.expose().to_owned(), password: password.expose().to_owned() }
            }
            Known::Credential(Credential::IdentityToken(token)) => Answer::IdentityToken(token.expose().to_owned()),
            Known::Credential(Credential::RegistryToken(token)) => Answer::RegistryToken(token.expose().to_owned()),
        })
    }
}
