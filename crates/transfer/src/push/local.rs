//! What is pushed from here, and what of it is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{self, DROPPED_LABEL, ProviderExt as _, ReaderAt, Source, Store};
use windlass_core::field::FieldMask;
use windlass_core::remote::{Body, ByteRange, Fetcher, Resolver, SOURCE_LABEL};
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, Reference, Result, image};

use super::{Missing, Object, Origin};
use crate::documents;
use crate::fetch::read_document;
use crate::repair::sources;

/// The content of a namespace, and where its content came from.
pub(super) struct Local {
    content: Arc<dyn Store>,
    resolver: Arc<dyn Resolver>,
    target: Digest,
    name: Option<image::Name>,
    missing: Missing,
    /// Host and repository that it goes to, if they are a registry's.
    to: Option<(String, String)>,
}

impl Local {
    pub(super) fn new(
        content: Arc<dyn Store>,
        resolver: Arc<dyn Resolver>,
        object: &Object,
        missing: Missing,
        to: &Reference,
    ) -> Self {
        let to = to.host().zip(to.repository()).map(|(host, repository)| (host.to_owned(), repository.to_owned()));
        Self { content, resolver, target: object.target.digest.clone(), name: object.name.clone(), missing, to }
    }

    async fn labels(&self, digest: &Digest) -> Result<Option<Labels>> {
        match self.content.info(digest).await {
            Ok(info) => Ok(Some(info.labels)),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns where something can be had that is not here, or says that it is not.
    async fn elsewhere(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Elsewhere> {
        let digest = &descriptor.digest;
        let mut labels = Vec::new();
        for referrer in parent.into_iter().chain([&self.target]) {
            labels.extend(self.labels(referrer).await?);
        }
        let dropped = labels.iter().flat_map(Labels::iter).any(|(key, value)| {
            key.starts_with(DROPPED_LABEL) && value.parse::<Digest>().is_ok_and(|dropped| dropped == *digest)
        });
        if self.missing == Missing::Dropped && !dropped {
            return Err(not_here(descriptor));
        }
        let names = sources(digest, &labels, &self.name);
        if names.is_empty() {
            return Err(not_here(descriptor));
        }
        tracing::info!(%digest, dropped, "streaming what is not here from where it came");
        Ok(Elsewhere { resolver: self.resolver.clone(), names, descriptor: descriptor.clone(), fetcher: None })
    }
}

/// Says what is not here, and what to do.
fn not_here(descriptor: &Descriptor) -> Error {
    let what = match &descriptor.platform {
        Some(platform) => format!("the image for {platform} ({})", descriptor.digest),
        None => descriptor.ingest_ref().to_string(),
    };
    Error::not_found(format!("{what} is not here")).hint(
        "--platform pushes the platforms that are here, --fetch-missing streams what is missing from where it came, and \
         `dist fetch --all-platforms NAME` brings it here",
    )
}

#[async_trait]
impl Origin for Local {
    async fn document(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Bytes> {
        match self.content.read_all(descriptor, documents::limit(descriptor)).await {
            Ok(bytes) => {
                content::changed_at_rest(&descriptor.digest, &descriptor.digest.algorithm().digest(&bytes))?;
                Ok(bytes)
            }
            Err(error) if error.is(Kind::NotFound) => {
                let fetcher = self.elsewhere(descriptor, parent).await?.fetcher().await?;
                read_document(&*fetcher, descriptor).await
            }
            Err(error) => Err(error),
        }
    }

    async fn source(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Box<dyn Source>> {
        match self.content.reader(descriptor).await {
            Ok(reader) => {
                let reader: Arc<dyn ReaderAt> = Arc::from(reader);
                Ok(Box::new(reader))
            }
            Err(error) if error.is(Kind::NotFound) => Ok(Box::new(self.elsewhere(descriptor, parent).await?)),
            Err(error) => Err(error),
        }
    }

    async fn came_from(&self, descriptor: &Descriptor) -> Result<BTreeMap<String, String>> {
        let labels = self.labels(&descriptor.digest).await?;
        // What was not kept came from where its manifest did.
        let labels = match labels {
            Some(labels) => labels,
            None => self.labels(&self.target).await?.unwrap_or_default(),
        };
        Ok(labels.into_iter().filter(|(key, _)| key.starts_with(SOURCE_LABEL)).collect())
    }

    async fn is_there(&self, descriptor: &Descriptor) -> Result<()> {
        let Some((host, repository)) = &self.to else { return Ok(()) };
        let mut info = match self.content.info(&descriptor.digest).await {
            Ok(info) => info,
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let label = format!("{SOURCE_LABEL}{host}");
        let known = info.labels.get(&label).unwrap_or_default();
        let Some(value) = with_repository(known, repository, label.len()) else { return Ok(()) };
        info.labels.set(label.as_str(), value);
        self.content.update(&info, &FieldMask::parse([format!("labels.{label}").as_str()])?).await?;
        Ok(())
    }
}

/// Adds a repository to a list of them, in order, as containerd writes it; none when it is there already, or when the list
/// is as long as a label may be.
fn with_repository(known: &str, repository: &str, label: usize) -> Option<String> {
    let mut all: Vec<&str> = known.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    if all.contains(&repository) {
        return None;
    }
    all.push(repository);
    all.sort_unstable();
    Some(all.join(",")).filter(|value| value.len() + label <= Labels::MAX_LEN)
}

/// Content that is not here, and is read where it can be had.
struct Elsewhere {
    resolver: Arc<dyn Resolver>,
    names: Vec<image::Name>,
    descriptor: Descriptor,
    fetcher: Option<Arc<dyn Fetcher>>,
}

impl Elsewhere {
    /// Returns the first place that opens it.
    async fn fetcher(&self) -> Result<Arc<dyn Fetcher>> {
        let mut failed = not_here(&self.descriptor);
        for name in &self.names {
            let opened = async {
                let fetcher = self.resolver.fetcher(name).await?;
                fetcher.fetch(&self.descriptor, ByteRange::default()).await?;
                Ok(fetcher)
            };
            match opened.await {
                Ok(fetcher) => return Ok(fetcher),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

#[async_trait]
impl Source for Elsewhere {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        let fetcher = match &self.fetcher {
            Some(fetcher) => fetcher.clone(),
            None => self.fetcher.insert(self.fetcher().await?).clone(),
        };
        fetcher.fetch(&self.descriptor, ByteRange::from(offset)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_added_once_and_in_order() {
        assert_eq!(with_repository("", "b", 0).as_deref(), Some("b"));
        assert_eq!(with_repository("b", "a", 0).as_deref(), Some("a,b"));
        assert_eq!(with_repository("a,b", "b", 0), None);
        assert_eq!(with_repository("a", "b", Labels::MAX_LEN), None);
    }
}
