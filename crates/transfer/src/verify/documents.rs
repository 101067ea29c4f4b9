//! Where documents that belong with an image are: in its repository, beside it in an archive, or here already.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use windlass_core::content::{Provider, ProviderExt as _};
use windlass_core::document::Index;
use windlass_core::remote::{ByteRange, Resolver};
use windlass_core::{Descriptor, Error, Kind, Leased, Reference, Result, image};

use super::Documents;
use crate::fetch::verify;
use crate::import::{NAME_ANNOTATION, REF_NAME_ANNOTATION};

/// Documents in the repository that an image comes from.
pub struct InRepository<'a> {
    /// Where references lead.
    pub resolver: &'a dyn Resolver,
    /// The image.
    pub reference: &'a Reference,
}

#[async_trait]
impl Documents for InRepository<'_> {
    async fn tagged(&self, tag: &str) -> Result<Option<Descriptor>> {
        match self.resolver.resolve(&self.reference.with_tag(tag)?).await {
            Ok(resolved) => Ok(Some(resolved.descriptor)),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        has_room(descriptor, limit)?;
        let name: image::Name = self.reference.to_string().parse()?;
        let fetcher = self.resolver.fetcher(&name).await?;
        let mut body = fetcher.fetch(descriptor, ByteRange::default()).await?;
        let mut all = BytesMut::new();
        while let Some(part) = body.stream.next().await {
            all.extend_from_slice(&part?);
            if all.len() as u64 > descriptor.size {
                break;
            }
        }
        let bytes = all.freeze();
        verify(descriptor, &bytes)?;
        Ok(bytes)
    }
}

/// Documents that an archive has, which are in the content store by then, or that an image beside it has.
pub(crate) struct InArchive<'a> {
    pub(crate) leased: &'a Leased,
    /// The name of the image that is imported.
    pub(crate) name: &'a str,
    /// What the archive lists.
    pub(crate) index: Option<&'a Index>,
}

#[async_trait]
impl Documents for InArchive<'_> {
    async fn tagged(&self, tag: &str) -> Result<Option<Descriptor>> {
        let name = self.name.parse::<Reference>()?.with_tag(tag)?.to_string();
        let is_called = |descriptor: &&Descriptor| {
            let given = |key: &str| descriptor.annotations.get(key).map(String::as_str);
            given(NAME_ANNOTATION) == Some(name.as_str())
                || [Some(tag), Some(name.as_str())].contains(&given(REF_NAME_ANNOTATION))
        };
        let listed = self.index.into_iter().flat_map(|index| &index.manifests).find(is_called);
        if let Some(descriptor) = listed {
            return Ok(Some(descriptor.clone()));
        }
        recorded(&*self.leased.images, &name).await
    }

    async fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        read_here(&*self.leased.content, descriptor, limit).await
    }
}

/// Documents that are here, and otherwise in the repository that a name is of.
pub struct HereOrInRepository<'a> {
    /// The name of the image.
    pub name: &'a str,
    /// The images that are here.
    pub images: &'a dyn image::Store,
    /// The content that is here.
    pub content: &'a dyn Provider,
    /// Where references lead.
    pub resolver: &'a dyn Resolver,
}

impl HereOrInRepository<'_> {
    /// Returns the reference that the name is; none when it is no registry's.
    fn reference(&self) -> Option<Reference> {
        self.name.parse::<Reference>().ok().filter(|reference| reference.host().is_some())
    }
}

#[async_trait]
impl Documents for HereOrInRepository<'_> {
    async fn tagged(&self, tag: &str) -> Result<Option<Descriptor>> {
        let Some(reference) = self.reference() else { return Ok(None) };
        if let Some(target) = recorded(self.images, &reference.with_tag(tag)?.to_string()).await? {
            return Ok(Some(target));
        }
        InRepository { resolver: self.resolver, reference: &reference }.tagged(tag).await
    }

    async fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        match (read_here(self.content, descriptor, limit).await, self.reference()) {
            (Err(error), Some(reference)) if error.is(Kind::NotFound) => {
                InRepository { resolver: self.resolver, reference: &reference }.read(descriptor, limit).await
            }
            (read, _) => read,
        }
    }
}

/// Returns what a name that is recorded here points at.
async fn recorded(images: &dyn image::Store, name: &str) -> Result<Option<Descriptor>> {
    match images.get(&name.parse()?).await {
        Ok(image) => Ok(Some(image.target)),
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_here(content: &dyn Provider, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
    has_room(descriptor, limit)?;
    let bytes = content.read_all(descriptor, limit).await?;
    verify(descriptor, &bytes)?;
    Ok(bytes)
}

fn has_room(descriptor: &Descriptor, limit: u64) -> Result<()> {
    if descriptor.size <= limit {
        return Ok(());
    }
    Err(Error::resource_exhausted(format!(
        "{} {} has {} bytes, more than the {limit} that are accepted",
        descriptor.media_type, descriptor.digest, descriptor.size
    )))
}
