//! Copies from remote to remote, without a store: bytes are verified as they pass, and none is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::Source;
use windlass_core::progress::Tracker;
use windlass_core::remote::{Body, ByteRange, Fetcher, Resolver, Trouble};
use windlass_core::{Descriptor, Digest, Error, Reference, Result, ResultExt as _};

use crate::fetch::read_document;
use crate::inlined::Inlined;
use crate::pull::{resolve, source_labels};
use crate::push::{self, Origin, Push, Pushed, Tree};
use crate::verify::{self, InRepository, Subject};

/// How many bytes of documents are remembered, so that they are fetched once.
const REMEMBERED: usize = 8 << 20;

/// Copies an image from one remote to another one, or to another name in the same. What the second has, or can take over
/// from another repository of its own, is not sent.
///
/// # Errors
/// Those of the resolver, the fetcher and the pusher, with what was attempted. `NotFound` when no image fits a platform;
/// `PermissionDenied` when a verifier refuses the image.
///
/// # Cancel safety
/// As [`fn@crate::push`].
pub async fn copy(
    resolver: &dyn Resolver,
    from: &Reference,
    to: &Reference,
    options: &Push,
    progress: &Tracker,
) -> Result<Pushed> {
    let copied = async {
        let resolved = resolve(resolver, from, progress).await?;
        let subject = Subject { name: &from.to_string(), descriptor: &resolved.descriptor };
        let documents = InRepository { resolver, reference: from };
        verify::check(options.verifier.as_ref(), &subject, &documents).await?;
        let fetcher: Arc<dyn Fetcher> = Arc::new(Inlined(resolver.fetcher(&resolved.name).await?));
        let came_from = source_labels(from).into_iter().collect();
        let origin = Remote { fetcher, came_from, documents: Mutex::default() };
        let tree = Tree::of(&origin, &resolved.descriptor, options).await?;
        push::carry_out(resolver, &origin, tree, to, options, progress).await
    };
    options.stop.or(copied).await.context(|| format!("copy {from} to {to}"))
}

/// A remote that is copied from.
struct Remote {
    fetcher: Arc<dyn Fetcher>,
    /// Where everything comes from, as annotations.
    came_from: BTreeMap<String, String>,
    documents: Mutex<BTreeMap<Digest, Bytes>>,
}

#[async_trait]
impl Origin for Remote {
    async fn document(&self, descriptor: &Descriptor, _: Option<&Digest>) -> Result<Bytes> {
        // Every change is one insertion.
        let known = || self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = known().get(&descriptor.digest) {
            return Ok(bytes.clone());
        }
        let bytes = read_document(&*self.fetcher, descriptor).await?;
        let mut known = known();
        if known.values().map(Bytes::len).sum::<usize>() + bytes.len() <= REMEMBERED {
            known.insert(descriptor.digest.clone(), bytes.clone());
        }
        Ok(bytes)
    }

    async fn source(&self, descriptor: &Descriptor, _: Option<&Digest>) -> Result<Box<dyn Source>> {
        let known = self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(&descriptor.digest).cloned();
        Ok(match known {
            Some(bytes) => Box::new(bytes),
            None => Box::new(Fetched { fetcher: self.fetcher.clone(), descriptor: descriptor.clone() }),
        })
    }

    async fn came_from(&self, _: &Descriptor) -> Result<BTreeMap<String, String>> {
        Ok(self.came_from.clone())
    }

    fn is_wrong(&self, descriptor: &Descriptor, error: Error) -> Result<()> {
        self.fetcher.pass_over(&descriptor.digest, Trouble::Wrong, error)
    }

    async fn is_there(&self, _: &Descriptor) -> Result<()> {
        Ok(())
    }
}

/// Content of a remote, opened wherever it goes on.
struct Fetched {
    fetcher: Arc<dyn Fetcher>,
    descriptor: Descriptor,
}

#[async_trait]
impl Source for Fetched {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        self.fetcher.fetch(&self.descriptor, ByteRange::from(offset)).await
    }
}
