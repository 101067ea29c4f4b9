//! Credentials that a client is asked for, over the stream that it opened for it.

use async_trait::async_trait;
use tokio::sync::Mutex;
use windlass::registry::{Credential, Credentials, Known, Secret};
use windlass_core::{Error, Result, ResultExt as _};
use windlass_grpc::streaming::{Stream, unpack};
use windlass_proto::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType};
use windlass_proto::windlass::services::transfer::v1::UnusableCredentials;

/// Asks the client of a transfer.
pub(super) struct Asked {
    // One question at a time: answers do not say what they answer.
    stream: Mutex<Stream>,
    reference: String,
}

impl Asked {
    /// Asks over that stream, on behalf of a reference.
    pub(super) fn new(stream: Stream, reference: String) -> Self {
        Self { stream: Mutex::new(stream), reference }
    }
}

#[async_trait]
impl Credentials for Asked {
    async fn of(&self, host: &str, _repository: &str) -> Result<Known> {
        let ask = async {
            let mut stream = self.stream.lock().await;
            let question =
                AuthRequest { host: host.to_owned(), reference: self.reference.clone(), wwwauthenticate: Vec::new() };
            stream.send(&question).await?;
            let answer = stream.receive().await?.ok_or_else(|| Error::aborted("the client closed the stream"))?;
            // A client of ours knows why it has none to give.
            if let Some(UnusableCredentials { hint }) = unpack(&answer)? {
                return Ok(Known::Unusable { hint });
            }
            let answer = unpack::<AuthResponse>(&answer)?
                .ok_or_else(|| Error::invalid_argument(format!("it answered with a {:?}", answer.type_url)))?;
            known(answer)
        };
        ask.await.context(|| format!("ask the client for credentials of {host}"))
    }
}

fn known(answer: AuthResponse) -> Result<Known> {
    let kind = answer.auth_type();
    let credential = match kind {
        AuthType::None => return Ok(Known::Nothing),
        // containerd's clients say so that they have none.
        AuthType::Credentials | AuthType::Refresh if answer.username.is_empty() && answer.secret.is_empty() => {
            return Ok(Known::Nothing);
        }
        AuthType::Credentials => Credential::password(answer.username, answer.secret),
        AuthType::Refresh => Credential::IdentityToken(Secret::new(answer.secret)),
        AuthType::Header => {
            // RFC 9110, 11.4: the scheme, and what belongs to it.
            let token = answer.secret.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let (_, token) = token.ok_or_else(|| {
                Error::unimplemented("a header of another scheme than Bearer is not sent")
                    .hint("answer with CREDENTIALS")
            })?;
            Credential::RegistryToken(Secret::new(token))
        }
    };
    Ok(Known::Credential(credential))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_is_understood_or_refused() {
        let answer = |kind: AuthType, secret: &str| {
            known(AuthResponse { auth_type: kind.into(), secret: secret.into(), username: "u".into(), expire_at: None })
        };
        assert_eq!(answer(AuthType::None, "").unwrap(), Known::Nothing);
        for kind in [AuthType::Refresh, AuthType::Credentials] {
            let empty = AuthResponse { auth_type: kind.into(), ..AuthResponse::default() };
            assert_eq!(known(empty).unwrap(), Known::Nothing);
        }
        assert_eq!(answer(AuthType::Credentials, "p").unwrap(), Known::Credential(Credential::password("u", "p")));
        let token = |token: &str| Known::Credential(Credential::RegistryToken(Secret::new(token)));
        assert_eq!(answer(AuthType::Header, "bearer t").unwrap(), token("t"));
        assert!(answer(AuthType::Header, "Basic eA==").is_err());
    }
}
