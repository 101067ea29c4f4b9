//! What a registry says when it does not take something, turned into errors: OCI distribution-spec, "Error Codes".

use windlass_core::{Error, Kind};

use super::Shared;
use crate::auth::Standing;
use crate::client::{Answer, From};
use crate::error::{Refusal, status_text};
use crate::hosts::Repository;

/// What a registry says of an upload that it does not know any more.
const LOST: [&str; 2] = ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"];
/// What it says of a manifest that refers to something that is not there.
const INCOMPLETE: [&str; 2] = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"];

/// Why a body was not taken, for whoever may try again.
pub(super) struct NotTaken {
    pub(super) error: Error,
    /// Whether the upload is lost, and another one may succeed.
    pub(super) lost: bool,
    /// Whether it was too large.
    pub(super) too_large: bool,
}

impl Shared {
    /// Turns an answer that is not success into an error.
    pub(super) async fn refused(&self, object: &str, answer: Answer) -> Error {
        let refusal = Refusal::read(&self.repository, object, answer, self.client.exchange.timeouts.idle).await;
        self.error_of(refusal).await
    }

    /// Turns an answer to a body, which is not success, into what is to be done about it.
    pub(super) async fn not_taken(&self, object: &str, answer: Answer) -> NotTaken {
        let refusal = Refusal::read(&self.repository, object, answer, self.client.exchange.timeouts.idle).await;
        let status = refusal.status.as_u16();
        let lost = matches!(status, 404 | 410) || LOST.iter().any(|code| refusal.complaint.has(code));
        let passes = lost || matches!(status, 408 | 416 | 429);
        let too_large = status == 413;
        let error = if passes {
            let (host, answer) = (&refusal.host, status_text(refusal.status));
            let error =
                Error::unavailable(format!("{host} broke off the upload of {object}: {answer}{}", refusal.complaint));
            refusal
                .tried(error.coded("upload-broken-off"))
                .hint("run the command again; the operator of the registry has to look at it when that does not help")
        } else {
            self.error_of(refusal).await
        };
        NotTaken { error, lost, too_large }
    }

    async fn error_of(&self, refusal: Refusal<'_>) -> Error {
        let standing = self.client.authorizer.standing(&self.repository).await;
        let Repository { name, host: registry, .. } = &self.repository;
        let Refusal { object, host, complaint, status, from, .. } = &refusal;
        let answer = status_text(*status);
        let code = |codes: &[&str]| codes.iter().any(|code| complaint.has(code));
        let error = match status.as_u16() {
            401 | 403 if *from == From::Elsewhere => return refusal.into_error(standing),
            401 if !matches!(standing, Standing::Identified) => return refusal.into_error(standing),
            401 => Error::unauthenticated(format!(
                "{host} refuses the credentials for pushing {object} to {name}{complaint}"
            ))
            .coded("credentials-refused")
            .hint(format!("`dist login {}` replaces them; they may lack the right to push", registry.name)),
            403 => Error::permission_denied(format!("{host} forbids pushing {object} to {name}{complaint}"))
                .coded("access-denied")
                .hint(may_push(&registry.name, &standing)),
            _ if code(&["UNSUPPORTED"]) || matches!(status.as_u16(), 405 | 501) => {
                Error::unimplemented(format!("{host} does not take {object} for {name}: {answer}{complaint}"))
                    .coded("not-offered")
                    .hint("a mirror, a cache or a registry that is set to be read only takes no pushes")
            }
            400 | 404 if code(&INCOMPLETE) => {
                Error::failed_precondition(format!("{host} lacks what {object} of {name} refers to{complaint}"))
                    .coded("incomplete-there")
                    .hint("push it again; if that does not help, the registry loses what it is given")
            }
            400 if code(&["DIGEST_INVALID", "SIZE_INVALID"]) => {
                Error::data_loss(format!("what arrived of {object} at {host} is something else{complaint}"))
                    .coded("digest-mismatch")
                    .hint("something between this machine and the registry changes content; push it again")
            }
            400 | 422 if code(&["NAME_INVALID", "TAG_INVALID", "MANIFEST_INVALID"]) => {
                Error::invalid_argument(format!("{host} does not accept {object} for {name}{complaint}"))
                    .coded("not-accepted")
                    .hint("its rules for names and manifests are narrower than those of the specification")
            }
            404 => Error::not_found(format!("{host} takes no pushes to {name}: {answer}{complaint}"))
                .coded("repository-not-found")
                .hint("check the name; some registries want a repository, or the project it is in, to be made first"),
            413 => {
                Error::resource_exhausted(format!("{object} of {name} is larger than what {host} accepts{complaint}"))
                    .coded("too-large")
                    .hint(
                        "the registry, or a proxy before it, limits the size of requests; its operator can raise that",
                    )
            }
            507 => Error::new(Kind::ResourceExhausted, format!("{host} has no room for {object} of {name}{complaint}"))
                .coded("registry-full")
                .hint("its operator has to make room"),
            _ => return refusal.into_error(standing),
        };
        refusal.tried(error)
    }
}

fn may_push(host: &str, standing: &Standing) -> String {
    match standing {
        Standing::Unusable { hint } => hint.clone(),
        Standing::Identified => format!("the user whose credentials for {host} are used needs the right to push"),
        Standing::Anonymous => {
            format!("pushing takes credentials: `dist login {host}` keeps them")
        }
    }
}
