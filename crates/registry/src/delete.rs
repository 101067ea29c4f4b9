//! Deleting from a registry: OCI distribution-spec, "Content Management".

use http::{Method, StatusCode};
use windlass_core::{Digest, Error, Result};

use crate::ask::{Access, Ask};
use crate::client::Client;
use crate::error::{Refusal, status_text};
use crate::hosts::Repository;

/// What is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deleted<'a> {
    /// A tag alone; what it points at stays.
    Tag(&'a str),
    /// A manifest, and with it every tag that points at it.
    Manifest(&'a Digest),
}

impl Client {
    /// Deletes a tag or a manifest of a repository.
    ///
    /// # Errors
    /// `NotFound` when it is not there; `Unimplemented` when the registry does not delete such things.
    pub(crate) async fn delete(&self, repository: &Repository, what: &Deleted<'_>) -> Result<()> {
        let (part, object) = match what {
            Deleted::Tag(tag) => (format!("manifests/{tag}"), format!("tag {tag:?}")),
            Deleted::Manifest(digest) => (format!("manifests/{digest}"), format!("manifest {digest}")),
        };
        let answer = self.send(Ask::new(Method::DELETE, repository, &part).access(Access::Delete)).await?;
        if answer.response.status().is_success() {
            return Ok(());
        }
        let refusal = Refusal::read(repository, &object, answer, self.exchange.timeouts.idle).await;
        let Refusal { host, complaint, status, .. } = &refusal;
        let (name, answer) = (&repository.name, status_text(*status));
        let unsupported = complaint.has("UNSUPPORTED")
            || matches!(*status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        // Where tags cannot be deleted alone, some take the tag for a digest that is none.
        let no_tags =
            matches!(what, Deleted::Tag(_)) && (*status == StatusCode::BAD_REQUEST || complaint.has("DIGEST_INVALID"));
        let error = match status.as_u16() {
            _ if unsupported || no_tags => {
                let error =
                    Error::unimplemented(format!("{host} does not delete {object} of {name}: {answer}{complaint}"))
                        .coded("not-offered");
                match what {
                    Deleted::Tag(_) => error.hint(
                        "it may not delete tags alone: NAME@DIGEST deletes the manifest with all of its tags, and `dist inspect` \
                         shows the digest",
                    ),
                    Deleted::Manifest(_) => error.hint(
                        "deleting is switched off there; its operator can allow it (docker-registry: storage.delete.enabled)",
                    ),
                }
            }
            403 => Error::permission_denied(format!("{host} forbids deleting {object} of {name}{complaint}"))
                .coded("access-denied")
                .hint("whoever deletes needs the right to, which is often not that to push"),
            404 => Error::not_found(format!("{object} is not in repository {name} of {host}{complaint}"))
                .coded("object-not-found")
                .hint("there is nothing to delete; `dist tags` lists what there is"),
            _ => return Err(refusal.into_error(self.authorizer.standing(repository).await)),
        };
        Err(refusal.tried(error))
    }
}
