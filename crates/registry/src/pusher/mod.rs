//! Content to a registry by descriptor: OCI distribution-spec, "Pushing".
//!
//! ```text
//! mod        what is there already, what can be mounted
//!   blob       a blob as it is written: in one request or in chunks, continued after a cut
//!     upload     the requests of an upload session
//!   manifest   a manifest, under its tag or its digest
//!     subject    the tag that lists what refers to a subject, where the registry keeps no such list
//!     delete     a manifest that is deleted, and what that list has of it
//! ```

mod blob;
mod delete;
mod manifest;
mod refusal;
mod subject;
mod upload;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use http::{HeaderMap, Method, StatusCode};
use windlass_core::media_type::Role;
use windlass_core::reference::Object;
use windlass_core::remote::{Push, Pusher, SOURCE_LABEL};
use windlass_core::{Descriptor, Digest, Error, Reference, Result};

use crate::ask::{Access, Ask};
use crate::body::content_length;
use crate::client::{Answer, Client};
use crate::hosts::Repository;
use crate::resolver::digest_header;
use blob::{BlobWriter, Kept};
use manifest::ManifestWriter;
use upload::Session;

/// Pushes to a name. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct RegistryPusher(Arc<Shared>);

/// What the writers of a pusher share.
struct Shared {
    client: Arc<Client>,
    repository: Repository,
    /// The host as the name has it, by which it is noted where content came from.
    named: String,
    /// What the name says beside the repository.
    object: Option<Object>,
    /// Uploads that were cut off and may be continued.
    kept: Mutex<HashMap<Digest, Kept>>,
    /// The most bytes that the registry, or a proxy before it, takes in one request; 0 while it takes everything.
    most: AtomicU64,
    /// One at a time writes a list of referrers.
    lists: tokio::sync::Mutex<()>,
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, HashMap<Digest, Kept>> {
        // Every change is one insertion or removal.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the most bytes that are sent in one request.
    fn most(&self) -> Option<u64> {
        Some(self.most.load(Ordering::Relaxed)).filter(|most| *most > 0)
    }

    fn ask<'a>(&'a self, method: Method, part: &'a str) -> Ask<'a> {
        Ask::new(method, &self.repository, part).access(Access::Push)
    }
}

impl RegistryPusher {
    pub(crate) fn new(client: Arc<Client>, repository: Repository, reference: &Reference) -> Self {
        Self(Arc::new(Shared {
            client,
            repository,
            named: reference.host().unwrap_or_default().to_owned(),
            object: reference.object().cloned(),
            kept: Mutex::default(),
            most: AtomicU64::new(0),
            lists: tokio::sync::Mutex::default(),
        }))
    }
}

#[async_trait]
impl Pusher for RegistryPusher {
    async fn push(&self, descriptor: &Descriptor) -> Result<Push> {
        let shared = &self.0;
        match descriptor.media_type.role() {
            Role::Schema1 => Err(Error::unimplemented(format!(
                "manifest {} is a Docker schema 1 manifest, which is not supported",
                descriptor.digest
            ))
            .hint("build the image again with a current tool")),
            Role::Index | Role::Manifest => {
                let writer = ManifestWriter::new(shared.clone(), descriptor)?;
                Ok(if writer.exists().await? { Push::Exists } else { Push::Upload(Box::new(writer)) })
            }
            Role::Config | Role::Layer(_) | Role::Opaque => shared.push_blob(descriptor).await,
        }
    }
}

impl Shared {
    async fn push_blob(self: &Arc<Self>, descriptor: &Descriptor) -> Result<Push> {
        let digest = &descriptor.digest;
        let kept = self.kept().remove(digest);
        if self.has_blob(descriptor).await? {
            return Ok(Push::Exists);
        }
        let kept = match kept {
            Some(kept) => kept,
            None => match self.mount(descriptor).await? {
                Mounted::Yes { from } => return Ok(Push::Mounted { from }),
                Mounted::Session(session) => Kept::new(session, digest),
                Mounted::No => Kept::new(self.start(digest).await?, digest),
            },
        };
        Ok(Push::Upload(Box::new(BlobWriter::new(self.clone(), descriptor, kept))))
    }

    /// Tells whether the repository has a blob. A host that does not say so has not got it.
    async fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let part = format!("blobs/{}", descriptor.digest);
        let answer = self.client.send(self.ask(Method::HEAD, &part)).await?;
        let headers = answer.response.headers();
        // One of another size is not whole.
        let whole = content_length(headers).is_none_or(|size| size == descriptor.size)
            && digest_header(headers).is_none_or(|digest| digest == descriptor.digest);
        self.presence(answer, &format!("blob {}", descriptor.digest)).await.map(|present| present && whole)
    }

    /// Reads the answer to a `HEAD`.
    async fn presence(&self, answer: Answer, object: &str) -> Result<bool> {
        match answer.response.status() {
            StatusCode::OK => Ok(true),
            status if status == StatusCode::UNAUTHORIZED || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(self.refused(object, answer).await)
            }
            status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
                Err(self.refused(object, answer).await)
            }
            _ => Ok(false),
        }
    }

    /// Asks the registry to take a blob over from where it came.
    async fn mount(&self, descriptor: &Descriptor) -> Result<Mounted> {
        let Some(from) = self.origin(descriptor) else { return Ok(Mounted::No) };
        let digest = &descriptor.digest;
        let part = format!("blobs/uploads/?mount={digest}&from={from}");
        let ask = self.ask(Method::POST, &part).access(Access::MountFrom(from.clone()));
        let answer = match self.client.send(ask).await {
            Ok(answer) => answer,
            // A token server may not give what is needed to read there.
            Err(error) => {
                tracing::debug!(%error, %digest, from, "a blob cannot be mounted");
                return Ok(Mounted::No);
            }
        };
        match answer.response.status() {
            StatusCode::CREATED if digest_header(answer.response.headers()).is_none_or(|found| found == *digest) => {
                Ok(Mounted::Yes { from })
            }
            // It will not, and has begun an upload instead.
            StatusCode::ACCEPTED => Session::of(&answer).map(Mounted::Session),
            status => {
                tracing::debug!(%status, %digest, from, "a blob cannot be mounted");
                Ok(Mounted::No)
            }
        }
    }

    /// Returns the repository of this host that a blob came from: the one whose name is most like ours, as a registry may
    /// keep those together.
    fn origin(&self, descriptor: &Descriptor) -> Option<String> {
        let (host, own) = (&self.named, &self.repository.name);
        // containerd leaves the port out. If another registry of the machine is meant, ours has nothing to mount.
        let without_port = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let labels =
            [host.as_str(), without_port].map(|host| descriptor.annotations.get(&format!("{SOURCE_LABEL}{host}")));
        let is_name = |from: &&str| {
            let reference = format!("{host}/{from}").parse::<Reference>();
            *from != own && reference.is_ok_and(|reference| reference.object().is_none())
        };
        let alike = |from: &&str| own.split('/').zip(from.split('/')).take_while(|(a, b)| a == b).count();
        let named = labels.iter().flatten().flat_map(|named| named.split(',')).map(str::trim);
        named.filter(is_name).max_by_key(alike).map(str::to_owned)
    }

    /// Begins an upload.
    async fn start(&self, digest: &Digest) -> Result<Session> {
        let answer = self.client.send(self.ask(Method::POST, "blobs/uploads/")).await?;
        match answer.response.status() {
            StatusCode::ACCEPTED => Session::of(&answer),
            _ => Err(self.refused(&format!("blob {digest}"), answer).await),
        }
    }

    /// Finds out whether the registry has what it said it took.
    fn confirm(&self, present: bool, object: &str) -> Result<()> {
        if present {
            return Ok(());
        }
        let Repository { host, name, .. } = &self.repository;
        Err(Error::data_loss(format!("{} said that it took {object} into {name}, and has not got it", host.name))
            .hint("the registry, or its storage, loses content; its operator has to look at it"))
    }
}

/// What came of the wish to mount a blob.
enum Mounted {
    Yes {
        from: String,
    },
    /// No, but an upload has begun.
    Session(Session),
    No,
}

/// Checks the digest with which a registry answers.
fn check_digest(host: &str, headers: &HeaderMap, object: &str, digest: &Digest) -> Result<()> {
    match digest_header(headers) {
        Some(found) if found.algorithm() == digest.algorithm() && found != *digest => {
            Err(Error::data_loss(format!("{host} took {object} as {found}"))
                .hint("the registry, or something between it and this machine, changes content"))
        }
        _ => Ok(()),
    }
}
