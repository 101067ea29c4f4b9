//! Who we are, to which registry.
//!
//! A secret is never printed: it has no `Display`, and its `Debug` is a placeholder.

mod program;
mod sources;

use std::fmt;

use async_trait::async_trait;
use windlass_core::Result;

pub(crate) use program::Helper;
pub use sources::{ForHost, InOrder};

/// A password or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Returns the secret, to send it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a registry knows a user by.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password.
    Password {
        /// The user name, which some registries use as a secret too.
        username: Secret,
        /// The password.
        password: Secret,
    },
    /// A refresh token, to be exchanged at the registry's token server.
    IdentityToken(Secret),
    /// A bearer token, to be sent as it is.
    RegistryToken(Secret),
}

impl Credential {
    /// Makes a credential of a user name and a password.
    pub fn password(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password { username: Secret::new(username), password: Secret::new(password) }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// What is known of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing: be anonymous.
    Nothing,
    /// A credential.
    Credential(Credential),
    /// That there is one which cannot be used: be anonymous, and when that is refused, say why.
    Unusable {
        /// What the user can do about it.
        hint: String,
    },
}

/// Where credentials come from. The host is the one of the reference, such as `docker.io`, with its port, or that of a mirror; a unix socket
/// is its URL. The repository, which may be empty, is for sources that keep several credentials for one host.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns what is known of a host, for a repository of it.
    ///
    /// # Errors
    /// Whatever keeps the source from answering; having nothing is not an error.
    async fn of(&self, host: &str, repository: &str) -> Result<Known>;

    /// Says where that is from, without the secret: `config.json, entry a.test`. Nothing when nothing is known of the host, or when
    /// the source does not say.
    ///
    /// # Errors
    /// As [`Credentials::of`].
    async fn source(&self, host: &str, repository: &str) -> Result<Option<String>> {
        let (_, _) = (host, repository);
        Ok(None)
    }
}

/// No credentials for anyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn of(&self, _host: &str, _repository: &str) -> Result<Known> {
        Ok(Known::Nothing)
    }
}
