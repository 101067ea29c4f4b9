//! Logging in: whether a registry takes a credential, before it is kept.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use windlass_core::{Error, Reference, Result};

use crate::auth::{Authorization, Scheme, scheme_of};
use crate::challenge;
use crate::client::Client;
use crate::credentials::Credential;
use crate::error::{Complaint, status_text};
use crate::hosts::{Directories, RegistryHost, Repository, canonical_host};
use crate::payload::Payload;
use crate::token::{self, Asked, Offline};
use crate::transport::Response;

/// What came of logging in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// What is to be kept: what gets tokens, where the registry gives that in place of the password.
    pub credential: Credential,
    /// Whether the registry has looked at it; one that asks nobody who he is may not have.
    pub checked: bool,
}

/// Checks a credential with a host.
pub(crate) async fn login(
    client: &Client,
    directories: Arc<Directories>,
    host: &str,
    credential: &Credential,
) -> Result<Login> {
    let host = of(directories, host).await?;
    let repository = Repository::at(host, "");
    let ask = Ask { client, repository: &repository };
    let first = ask.root(None).await?;
    let challenges = challenge::of_headers(first.headers());
    let scheme = match first.status() {
        StatusCode::UNAUTHORIZED => scheme_of(&repository, &challenges)?,
        // It may still look at what it is told.
        status if status.is_success() => Some(Scheme::Basic),
        _ => return Err(ask.refused(first).await),
    };
    let checked = first.status() == StatusCode::UNAUTHORIZED;
    let mut kept = credential.clone();
    let authorization = match (scheme, credential) {
        (Some(Scheme::Basic), Credential::Password { username, password }) => {
            Authorization::basic(username.expose(), password.expose())?
        }
        (Some(Scheme::Bearer(server)), credential) => {
            let asked = Asked { exchange: &client.exchange, repository: &repository, server: &server, scopes: &[] };
            let given = token::fetch(asked, Some(credential), None, Offline::Wanted).await?;
            if let Some(refresh) = given.refresh {
                kept = Credential::IdentityToken(refresh);
            }
            given.token.authorization
        }
        _ => {
            let name = &repository.host.name;
            return Err(Error::failed_precondition(format!("{name} offers no way to log in that is known here"))
                .hint("its answer asks for neither a password nor a token in WWW-Authenticate"));
        }
    };
    let second = ask.root(Some(&authorization)).await?;
    if second.status().is_success() {
        return Ok(Login { credential: kept, checked });
    }
    Err(ask.refused(second).await)
}

/// Returns the host that gets what is kept under a name.
async fn of(directories: Arc<Directories>, name: &str) -> Result<RegistryHost> {
    // A reference says what is a host.
    format!("{name}/x").parse::<Reference>().map_err(|_| {
        Error::invalid_argument(format!("{name:?} is not a registry")).hint("a registry looks like HOST or HOST:PORT")
    })?;
    let name = name.to_owned();
    let hosts = {
        let name = name.clone();
        tokio::task::spawn_blocking(move || directories.hosts(&name))
            .await
            .map_err(|e| Error::internal("reading which hosts serve a registry panicked").source(e))??
    };
    let same = |host: &RegistryHost| canonical_host(&host.name) == canonical_host(&name);
    let rules: Vec<String> = hosts.iter().map(|host| format!("{} ({})", host.name, host.rule)).collect();
    hosts.into_iter().rev().find(same).ok_or_else(|| {
        Error::failed_precondition(format!("nobody is asked under the name {name}"))
            .hint(format!("hosts are configured that serve in its place, log in to one of them: {}", rules.join(", ")))
    })
}

struct Ask<'a> {
    client: &'a Client,
    repository: &'a Repository,
}

impl Ask<'_> {
    /// Asks for the root of the API: OCI distribution-spec, "Determining Support". Redirects are not followed.
    async fn root(&self, authorization: Option<&Authorization>) -> Result<Response> {
        let host = &self.repository.host;
        let mut request = Request::new(Payload::Empty);
        *request.uri_mut() = host
            .root()
            .parse()
            .map_err(|e| Error::invalid_argument(format!("{:?} is not a URL", host.root())).source(e))?;
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.header());
        }
        host.prepare(&mut request);
        self.client.exchange.send(&host.name, request, None).await
    }

    async fn refused(&self, response: Response) -> Error {
        let (host, status) = (&self.repository.host.name, response.status());
        let complaint = Complaint::read(response, self.client.exchange.timeouts.idle).await;
        match status.as_u16() {
            401 | 403 => Error::unauthenticated(format!("{host} refuses the credentials{complaint}"))
                .hint("check the user name and the password; some registries want a token in place of the password"),
            404 => Error::failed_precondition(format!("{host} is no registry: {}", status_text(status)))
                .hint("check the name, and the port if there is one"),
            _ => Error::unavailable(format!("{host} answers {}{complaint}", status_text(status)))
                .hint("check that this is the address of a registry, and run the command again later"),
        }
    }
}
