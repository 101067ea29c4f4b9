//! A manifest that is deleted, and the lists of referrers that are kept by whoever pushes and deletes: the list of what referred to
//! it goes with it, and of what it referred to it is listed no longer. OCI distribution-spec, "Deleting Manifests".

use bytes::Bytes;
use http::{Method, StatusCode};
use windlass_core::document::MAX_MANIFEST_SIZE;
use windlass_core::{Descriptor, Digest, Kind, MediaType, Result, ResultExt as _};

use super::subject::Subject;
use super::{RegistryPusher, Shared};
use crate::body;
use crate::delete::Deleted;
use crate::referrers::{fallback_tag, has_no_api};
use crate::resolver::accept;

impl RegistryPusher {
    /// Deletes a manifest, and with it every tag that points at it and, where the registry does not do that itself, what lists of
    /// referrers say of it.
    ///
    /// # Errors
    /// Those of deleting a manifest; those of changing the lists, which say that the manifest is gone.
    pub(crate) async fn delete(&self, digest: &Digest) -> Result<()> {
        let shared = &self.0;
        // Later nobody can say what it referred to.
        let subject = shared.subject(digest).await?;
        let deleted = shared.client.delete(&shared.repository, &Deleted::Manifest(digest)).await;
        // Of one that is gone, an earlier deletion may not have come to the list.
        if deleted.as_ref().is_err_and(|error| !error.is(Kind::NotFound)) {
            return deleted;
        }
        let forgotten = shared.forget(digest, subject.as_ref()).await;
        forgotten
            .context(|| format!("manifest {digest} is deleted, and a list of referrers is still to be changed"))?;
        deleted
    }
}

impl Shared {
    /// Returns what a manifest refers to; nothing when it cannot be read.
    async fn subject(&self, digest: &Digest) -> Result<Option<Subject>> {
        let Some(bytes) = self.read_manifest(&digest.to_string()).await? else { return Ok(None) };
        let descriptor = Descriptor::new(MediaType::OCI_MANIFEST, digest.clone(), bytes.len() as u64);
        Ok(Subject::of(&descriptor, &bytes).ok().flatten())
    }

    async fn read_manifest(&self, object: &str) -> Result<Option<Bytes>> {
        let part = format!("manifests/{object}");
        let answer = self.client.send(self.ask(Method::GET, &part).headers(accept(None)?)).await?;
        if answer.response.status() != StatusCode::OK {
            return Ok(None);
        }
        let idle = self.client.exchange.timeouts.idle;
        let what = format!("manifest {object:?}");
        body::read(answer.response, &answer.host, &what, MAX_MANIFEST_SIZE, idle).await.map(Some)
    }

    /// Changes the lists that say something of a manifest which is gone.
    async fn forget(&self, digest: &Digest, subject: Option<&Subject>) -> Result<()> {
        let tag = fallback_tag(digest);
        let own = self.read_list(&tag).await;
        // Who uses the tag for something else keeps it.
        let has_list = own.as_ref().is_ok_and(Option::is_some);
        if let Err(error) = own
            && !error.is(Kind::FailedPrecondition)
        {
            return Err(error);
        }
        if (!has_list && subject.is_none()) || self.lists_referrers(digest).await? {
            return Ok(());
        }
        if has_list {
            self.delete_list(&tag).await.context(|| format!("delete tag {tag:?}"))?;
        }
        match subject {
            Some(subject) => self.unlist(subject).await,
            None => Ok(()),
        }
    }

    /// Tells whether the registry keeps the lists of referrers itself.
    async fn lists_referrers(&self, digest: &Digest) -> Result<bool> {
        let part = format!("referrers/{digest}");
        let answer = self.client.send(self.ask(Method::GET, &part)).await?;
        match answer.response.status() {
            StatusCode::OK => Ok(true),
            status if has_no_api(status) => Ok(false),
            _ => Err(self.refused(&format!("the referrers of {digest}"), answer).await),
        }
    }

    /// Deletes the list under a tag: the tag alone, or, where that cannot be, the index with its tags.
    pub(super) async fn delete_list(&self, tag: &str) -> Result<()> {
        let gone = |deleted: Result<()>| match deleted {
            Err(error) if error.is(Kind::NotFound) => Ok(()),
            deleted => deleted,
        };
        match self.client.delete(&self.repository, &Deleted::Tag(tag)).await {
            Err(error) if error.is(Kind::Unimplemented) => {}
            deleted => return gone(deleted),
        }
        let Some(list) = self.read_list(tag).await? else { return Ok(()) };
        gone(self.client.delete(&self.repository, &Deleted::Manifest(&list.digest)).await)
    }
}
