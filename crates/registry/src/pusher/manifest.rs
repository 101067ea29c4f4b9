//! A manifest as it is pushed: read whole, verified, and put under its tag or its digest. OCI distribution-spec, "Pushing
//! Manifests".

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use windlass_core::content::{Commit, Info, Status, Writer};
use windlass_core::document::MAX_MANIFEST_SIZE;
use windlass_core::{Descriptor, Digest, Error, Labels, Result};

use super::subject::Subject;
use super::{Shared, check_digest};
use crate::client::Answer;
use crate::resolver::{accept, digest_header};

/// With which a registry says that it has listed the manifest among the referrers of its subject: OCI distribution-spec,
/// "Pushing Manifests with Subject".
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Writes a manifest or an index.
pub(super) struct ManifestWriter {
    shared: Arc<Shared>,
    descriptor: Descriptor,
    /// What it is put under: a tag or its digest.
    object: String,
    bytes: BytesMut,
    started_at: SystemTime,
}

impl ManifestWriter {
    /// # Errors
    /// `ResourceExhausted` for one that is larger than what registries have to take.
    pub(super) fn new(shared: Arc<Shared>, descriptor: &Descriptor) -> Result<Self> {
        if descriptor.size > MAX_MANIFEST_SIZE {
            return Err(Error::resource_exhausted(format!(
                "manifest {} has {} bytes, more than the {MAX_MANIFEST_SIZE} that registries have to accept",
                descriptor.digest, descriptor.size
            )));
        }
        // A name without a digest is given to whatever is pushed last.
        let tag = shared.object.as_ref().and_then(|object| {
            object.tag().filter(|_| object.digest().is_none_or(|digest| *digest == descriptor.digest))
        });
        let object = tag.map_or_else(|| descriptor.digest.to_string(), str::to_owned);
        let (descriptor, bytes) = (descriptor.clone(), BytesMut::new());
        Ok(Self { shared, descriptor, object, bytes, started_at: SystemTime::now() })
    }

    /// Tells whether the registry has the manifest under that tag, or that digest.
    pub(super) async fn exists(&self) -> Result<bool> {
        let part = format!("manifests/{}", self.object);
        let headers = accept(Some(&self.descriptor.media_type))?;
        let answer = self.shared.client.send(self.shared.ask(Method::HEAD, &part).headers(headers)).await?;
        let found = digest_header(answer.response.headers());
        let is_this = match found {
            Some(found) => found == self.descriptor.digest,
            // Under its digest there is nothing else.
            None => self.object == self.descriptor.digest.to_string(),
        };
        self.shared.presence(answer, &self.what()).await.map(|present| present && is_this)
    }

    fn what(&self) -> String {
        what(&self.object, &self.descriptor.digest)
    }

    fn check(&self) -> Result<()> {
        let (found, size) = (self.descriptor.digest.algorithm().digest(&self.bytes), self.bytes.len() as u64);
        if size != self.descriptor.size {
            let declared = self.descriptor.size;
            return Err(Error::failed_precondition(format!("{} has {size} of {declared} bytes", self.what())));
        }
        if found != self.descriptor.digest {
            return Err(Error::data_loss(format!("what was read of {} has the digest {found}", self.what()))
                .coded("source-mismatch")
                .hint("it is damaged where it was read from"));
        }
        Ok(())
    }
}

fn what(object: &str, digest: &Digest) -> String {
    if object == digest.to_string() { format!("manifest {digest}") } else { format!("tag {object:?} ({digest})") }
}

impl Shared {
    /// Puts a manifest under a tag or a digest.
    pub(super) async fn put_manifest(&self, object: &str, descriptor: &Descriptor, bytes: Bytes) -> Result<Answer> {
        let what = what(object, &descriptor.digest);
        let media_type = HeaderValue::from_str(descriptor.media_type.as_str())
            .map_err(|_| Error::invalid_argument(format!("the media type of {what} cannot be sent")))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type)]);
        let part = format!("manifests/{object}");
        let ask = self.ask(Method::PUT, &part).headers(headers).body(bytes.into());
        let answer = self.client.send(ask).await?;
        if !answer.response.status().is_success() {
            return Err(self.refused(&what, answer).await);
        }
        check_digest(&answer.host, answer.response.headers(), &what, &descriptor.digest)?;
        Ok(answer)
    }
}

#[async_trait]
impl Writer for ManifestWriter {
    async fn status(&mut self) -> Result<Status> {
        Ok(Status {
            ingest: self.descriptor.ingest_ref(),
            offset: self.bytes.len() as u64,
            total: Some(self.descriptor.size),
            expected: Some(self.descriptor.digest.clone()),
            started_at: self.started_at,
            updated_at: SystemTime::now(),
        })
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        Ok(Some(self.descriptor.digest.algorithm().digest(&self.bytes)))
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.bytes.len() as u64 + bytes.len() as u64 > self.descriptor.size {
            let declared = self.descriptor.size;
            return Err(Error::out_of_range(format!("{} has more than the {declared} bytes declared", self.what())));
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        match usize::try_from(size).ok().filter(|size| *size <= self.bytes.len()) {
            Some(size) => self.bytes.truncate(size),
            None => return Err(Error::out_of_range(format!("{} has {} bytes", self.what(), self.bytes.len()))),
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, _: Commit) -> Result<Info> {
        self.check()?;
        let bytes = self.bytes.split().freeze();
        let subject = Subject::of(&self.descriptor, &bytes)?;
        let answer = self.shared.put_manifest(&self.object, &self.descriptor, bytes).await?;
        let listed = answer.response.headers().contains_key(OCI_SUBJECT);
        self.shared.confirm(self.exists().await?, &self.what())?;
        if let Some(subject) = subject.filter(|_| !listed) {
            self.shared.list(&subject).await?;
        }
        let now = SystemTime::now();
        let Descriptor { digest, size, .. } = self.descriptor;
        Ok(Info { digest, size, created_at: now, updated_at: now, labels: Labels::new() })
    }
}
