//! Credentials that a daemon asks its client for.

use async_trait::async_trait;
use windlass_core::{Error, Result};
use windlass_proto::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType};
use windlass_proto::windlass::services::transfer::v1::UnusableCredentials;

use crate::streaming::{Stream, unpack};

/// What a client answers.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// That it has none.
    Nothing,
    /// A user name and a password.
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token, to be exchanged at the registry's token server.
    IdentityToken(String),
    /// A bearer token, to be sent as it is.
    RegistryToken(String),
    /// That there are some which cannot be used, and what the user can do about it.
    Unusable(String),
}

/// Where a client has credentials from.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns what there is for a host.
    ///
    /// # Errors
    /// Whatever keeps the source from answering; it ends the transfer.
    async fn of(&self, host: &str) -> Result<Answer>;
}

/// Answers questions; comes back only when one cannot be answered.
pub(super) async fn answer(stream: &mut Stream, credentials: &dyn Credentials) -> Error {
    loop {
        match one(stream, credentials).await {
            Ok(true) => {}
            // No more questions: the transfer says how it ended.
            Ok(false) => std::future::pending().await,
            Err(error) => return error,
        }
    }
}

/// Answers a question; tells whether there was one.
async fn one(stream: &mut Stream, credentials: &dyn Credentials) -> Result<bool> {
    // How the stream ends is the transfer's to say.
    let Ok(Some(any)) = stream.receive().await else { return Ok(false) };
    let question: Option<AuthRequest> = unpack(&any)?;
    let question = question.ok_or_else(|| Error::internal(format!("a {:?} is no question", any.type_url)))?;
    let sent = match credentials.of(&question.host).await? {
        Answer::Unusable(hint) => stream.send(&UnusableCredentials { hint }).await,
        Answer::Nothing => stream.send(&response(AuthType::None, String::new(), String::new())).await,
        Answer::Password { username, password } => {
            stream.send(&response(AuthType::Credentials, username, password)).await
        }
        Answer::IdentityToken(token) => stream.send(&response(AuthType::Refresh, String::new(), token)).await,
        Answer::RegistryToken(token) => {
            stream.send(&response(AuthType::Header, String::new(), format!("Bearer {token}"))).await
        }
    };
    Ok(sent.is_ok())
}

fn response(kind: AuthType, username: String, secret: String) -> AuthResponse {
    AuthResponse { auth_type: kind.into(), secret, username, expire_at: None }
}
