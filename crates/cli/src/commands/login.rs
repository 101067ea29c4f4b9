//! `dist login` and `dist logout`: credentials that are kept.

use std::sync::Arc;

use serde::Serialize;
use windlass::registry::{Credentials as _, DockerConfig, InOrder, Kept, Known, Options, Remote};

use crate::context::Context;
use crate::credentials::{self, User};
use crate::failure::Outcome;
use crate::interrupt::interruptible;
use crate::remote::Hosts;

/// The registry that is meant when none is named, as with Docker.
const USUAL: &str = "docker.io";

/// Keep credentials for a registry, which is asked whether it takes them.
///
/// They are kept where Docker keeps them: with the credential helper that $DOCKER_CONFIG/config.json (~/.docker/config.json) names, or in that
/// file; or in the file that REGISTRY_AUTH_FILE names. Where the registry gives a token in place of the password, the token is kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist login registry.example.com                         asks for user name and password
  dist login -u me --password-stdin ghcr.io < token       for scripts
  dist login                                              Docker Hub")]
pub(crate) struct Args {
    /// Registry, as references name it: HOST or HOST:PORT.
    #[arg(value_name = "REGISTRY", default_value = USUAL)]
    registry: String,
    #[command(flatten)]
    user: User,
    #[command(flatten)]
    hosts: Hosts,
}

/// Forget the credentials that are kept for a registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist logout registry.example.com
  dist logout                           Docker Hub")]
pub(crate) struct LogoutArgs {
    /// Registry, as references name it: HOST or HOST:PORT.
    #[arg(value_name = "REGISTRY", default_value = USUAL)]
    registry: String,
}

/// What came of it.
#[derive(Serialize)]
struct Report<'a> {
    registry: &'a str,
    /// Where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    /// Whether the registry has looked at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<bool>,
    /// Whether there was something to forget.
    #[serde(skip_serializing_if = "Option::is_none")]
    forgotten: Option<bool>,
}

/// Logs in.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let registry = args.registry.as_str();
    let path = credentials::file()?;
    let credential = args.user.ask(registry)?;
    // What is kept already is not asked about: this is to take its place.
    let options = Options { credentials: Arc::new(InOrder::default()), ..args.hosts.options()? };
    let remote = Remote::new(options)?;
    let login = interruptible(Box::pin(async { Ok(remote.login(registry, &credential).await?) })).await?;
    let kept = match DockerConfig::keep(&path, registry, &login.credential).await? {
        Kept::Helper(name) => format!("with the credential helper {name:?}"),
        Kept::File(path) => {
            tracing::warn!(
                "the credentials for {registry} are in {}, readable for whoever may read that; a credential helper (\"credsStore\" in there) would \
                 keep them better",
                path.display()
            );
            format!("in {}", path.display())
        }
    };
    if !login.checked {
        tracing::warn!("{registry} asks nobody who he is: whether it takes these credentials is not known");
    }
    let report = Report { registry, kept: Some(kept.clone()), checked: Some(login.checked), forgotten: None };
    context.output().record(&report, |_| format!("logged in to {registry}, kept {kept}\n"))
}

/// Logs out.
pub(crate) async fn logout(context: &Context, args: LogoutArgs) -> Outcome {
    let registry = args.registry.as_str();
    let forgotten = DockerConfig::forget(&credentials::file()?, registry).await?;
    let others = InOrder::new(credentials::files()?);
    if let (Known::Credential(_), Some(source)) = (others.of(registry, "").await?, others.source(registry, "").await?) {
        tracing::warn!("there still are credentials for {registry}: {source}");
    }
    let report = Report { registry, kept: None, checked: None, forgotten: Some(forgotten) };
    context.output().record(&report, |_| {
        if forgotten { format!("logged out of {registry}\n") } else { format!("not logged in to {registry}\n") }
    })
}
