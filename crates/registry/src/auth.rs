//! Who we say we are: the answer to a host's challenge, remembered for the requests that follow.
//!
//! A host is asked anonymously first. When it answers 401, its challenge decides: `Basic` takes the password, `Bearer` a
//! token that its token server gives for the scope (see [`token`](crate::token)), with or without a credential. From then
//! on the host is sent what it wants at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::sync::OnceCell;
use windlass_core::{Error, Result};

use crate::ask::Access;
use crate::challenge::Challenge;
use crate::credentials::{Credential, Credentials, Known, Secret};
use crate::exchange::Exchange;
use crate::hosts::Repository;
use crate::scopes::Scopes;
use crate::token::{self, Asked, Offline, Token, TokenServer};

/// What is sent in `Authorization`. Not printable: the header is marked as sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorization {
    header: HeaderValue,
    /// What it was asked for, if it is a token.
    scopes: Option<Scopes>,
}

impl Authorization {
    /// RFC 7617.
    pub(crate) fn basic(username: &str, password: &str) -> Result<Self> {
        Self::new("Basic", &STANDARD.encode(format!("{username}:{password}")))
    }

    /// RFC 6750.
    pub(crate) fn bearer(token: &str) -> Result<Self> {
        Self::new("Bearer", token)
    }

    fn new(scheme: &str, value: &str) -> Result<Self> {
        let mut header = HeaderValue::from_str(&format!("{scheme} {value}"))
            .map_err(|_| Error::unauthenticated("a token contains characters that cannot be sent"))?;
        header.set_sensitive(true);
        Ok(Self { header, scopes: None })
    }

    /// Notes what a token is for.
    pub(crate) fn for_scopes(self, scopes: Scopes) -> Self {
        Self { scopes: Some(scopes), ..self }
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    pub(crate) fn scopes(&self) -> Option<&Scopes> {
        self.scopes.as_ref()
    }
}

/// What a host wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    Basic,
    Bearer(TokenServer),
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    host: String,
    scopes: Vec<String>,
}

/// Which password something gets tokens in place of.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RefreshKey {
    host: String,
    server: String,
    username: String,
}

impl RefreshKey {
    fn of(host: &str, server: &TokenServer, credential: &Credential) -> Option<Self> {
        let Credential::Password { username, .. } = credential else { return None };
        Some(Self { host: host.to_owned(), server: server.key(), username: username.expose().to_owned() })
    }
}

/// How a host sees us, for saying what is wrong when it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No credential is known.
    Anonymous,
    /// A credential was used.
    Identified,
    /// There is a credential that cannot be used.
    Unusable {
        /// What to do about it.
        hint: String,
    },
}

/// Answers challenges and remembers the answers.
pub(crate) struct Authorizer {
    credentials: Arc<dyn Credentials>,
    schemes: Mutex<HashMap<String, Scheme>>,
    /// One cell a token: whoever comes while it is being fetched waits for the same one.
    tokens: Mutex<HashMap<TokenKey, Arc<OnceCell<Token>>>>,
    /// What gets tokens in place of a password. It is written down nowhere.
    refresh: Mutex<HashMap<RefreshKey, Secret>>,
}

impl Authorizer {
    pub(crate) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, schemes: Mutex::default(), tokens: Mutex::default(), refresh: Mutex::default() }
    }

    /// Returns what the host of a repository has wanted to see before; nothing when it has not asked yet.
    pub(crate) async fn known(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        access: &Access,
    ) -> Result<Option<Authorization>> {
        match lookup(&self.schemes, &repository.host.key()) {
            Some(scheme) => self.authorization(exchange, repository, access, &scheme, None).await,
            None => Ok(None),
        }
    }

    /// Returns what to send after a host has answered 401 to `refused`; nothing when there is nothing else to say.
    pub(crate) async fn answer(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        access: &Access,
        challenges: &[Challenge],
        refused: Option<&Authorization>,
    ) -> Result<Option<Authorization>> {
        let Some(scheme) = scheme_of(repository, challenges)? else { return Ok(None) };
        let authorization = self.authorization(exchange, repository, access, &scheme, refused).await?;
        if authorization.is_some() {
            let mut schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
            schemes.insert(repository.host.key(), scheme);
        }
        Ok(authorization.filter(|authorization| Some(authorization) != refused))
    }

    /// Returns what is known of the host of a repository, and where that is from.
    pub(crate) async fn known_of(&self, repository: &Repository) -> Result<(Known, Option<String>)> {
        let (host, name) = (&repository.host.name, &repository.name);
        Ok((self.credentials.of(host, name).await?, self.credentials.source(host, name).await?))
    }

    /// Tells how a host sees us.
    pub(crate) async fn standing(&self, repository: &Repository) -> Standing {
        match self.credentials.of(&repository.host.name, &repository.name).await {
            Ok(Known::Credential(_)) => Standing::Identified,
            Ok(Known::Unusable { hint }) => Standing::Unusable { hint },
            Ok(Known::Nothing) | Err(_) => Standing::Anonymous,
        }
    }

    async fn credential(&self, repository: &Repository) -> Result<Option<Credential>> {
        match self.credentials.of(&repository.host.name, &repository.name).await? {
            Known::Credential(credential) => Ok(Some(credential)),
            Known::Nothing | Known::Unusable { .. } => Ok(None),
        }
    }

    async fn authorization(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        access: &Access,
        scheme: &Scheme,
        refused: Option<&Authorization>,
    ) -> Result<Option<Authorization>> {
        let credential = self.credential(repository).await?;
        match (scheme, credential) {
            (Scheme::Basic, Some(Credential::Password { username, password })) => {
                Authorization::basic(username.expose(), password.expose()).map(Some)
            }
            (Scheme::Basic, _) => Ok(None),
            (Scheme::Bearer(_), Some(Credential::RegistryToken(token))) => {
                Authorization::bearer(token.expose()).map(Some)
            }
            (Scheme::Bearer(server), credential) => {
                self.token(exchange, repository, access, server, credential.as_ref(), refused).await.map(Some)
            }
        }
    }

    /// Returns a token that is not `refused`, from the cache or from the token server.
    async fn token(
        &self,
        exchange: &Exchange,
        repository: &Repository,
        access: &Access,
        server: &TokenServer,
        credential: Option<&Credential>,
        refused: Option<&Authorization>,
    ) -> Result<Authorization> {
        let scopes = server.scopes(repository, access);
        let key = TokenKey { host: repository.host.key(), scopes };
        let cell = self.cell(&key, refused);
        let remembered_as = credential.and_then(|credential| RefreshKey::of(&key.host, server, credential));
        let fetch = async || {
            let remembered = remembered_as.as_ref().and_then(|key| lookup(&self.refresh, key));
            let asked = Asked { exchange, repository, server, scopes: &key.scopes };
            let given = token::fetch(asked, credential, remembered.as_ref(), Offline::NotAskedFor).await?;
            if let (Some(key), Some(refresh)) = (&remembered_as, given.refresh) {
                self.refresh.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), refresh);
            }
            Ok::<_, Error>(given.token)
        };
        let token = cell.get_or_try_init(fetch).await?;
        Ok(token.authorization.clone())
    }

    /// Returns the cell of a token, a new one when the token in it is stale or refused.
    fn cell(&self, key: &TokenKey, refused: Option<&Authorization>) -> Arc<OnceCell<Token>> {
        let now = Instant::now();
        let usable = |token: &Token| token.expires > now && Some(&token.authorization) != refused;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|other, cell| other == key || cell.get().is_none_or(|token| token.expires > now));
        let cell = tokens.entry(key.clone()).or_default();
        if cell.get().is_some_and(|token| !usable(token)) {
            *cell = Arc::default();
        }
        cell.clone()
    }
}

fn lookup<K: Eq + Hash, V: Clone>(map: &Mutex<HashMap<K, V>>, key: &K) -> Option<V> {
    map.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
}

/// Chooses the challenge to answer: a token is worth less to a thief than a password.
pub(crate) fn scheme_of(repository: &Repository, challenges: &[Challenge]) -> Result<Option<Scheme>> {
    let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    if let Some(bearer) = of("bearer") {
        return TokenServer::of_challenge(repository, bearer).map(|server| Some(Scheme::Bearer(server)));
    }
    Ok(of("basic").map(|_| Scheme::Basic))
}
