//! Records of images that clients make themselves: they are verified before they are made, as what the daemon brings itself is
//! before it is fetched.
//!
//! What is asked about is the name that would be recorded and what it would point at, so a name that is given to something which
//! is here already is asked about, too. Signatures are looked for among what is here, and then, as nobody, at the registry. A record
//! whose target stays as it is has been asked about when it was made, or was there before anybody was to be asked.

use std::sync::Arc;

use async_trait::async_trait;
use windlass::registry::Remote;
use windlass::transfer::Verifier;
use windlass::transfer::verify::{self, HereOrInRepository, Subject};
use windlass_core::content;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::image::{Deletion, Image, Name, Store};
use windlass_core::{Descriptor, Error, Host, Kind, Listing, Namespace, Result, Scope, Services};

/// A host on which no image is recorded that a verifier refuses.
pub(crate) struct Verified {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) verifier: Arc<dyn Verifier>,
    /// Where signatures are looked for that are not here.
    pub(crate) remote: Remote,
}

#[async_trait]
impl Host for Verified {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        let services = self.host.services(scope).await?;
        let images = Images {
            inner: services.images,
            content: services.content.clone(),
            namespace: scope.namespace.clone(),
            verifier: self.verifier.clone(),
            remote: self.remote.clone(),
        };
        Ok(Services { images: Arc::new(images), ..services })
    }
}

struct Images {
    inner: Arc<dyn Store>,
    content: Arc<dyn content::Store>,
    namespace: Namespace,
    verifier: Arc<dyn Verifier>,
    remote: Remote,
}

impl Images {
    async fn check(&self, image: &Image) -> Result<()> {
        let name = image.name.as_str();
        let subject = Subject { name, descriptor: &image.target };
        let (images, content, resolver) = (&*self.inner, &*self.content, &self.remote);
        let documents = HereOrInRepository { name, images, content, resolver };
        verify::check(Some(&self.verifier), &subject, &documents).await
    }
}

#[async_trait]
impl Store for Images {
    async fn get(&self, name: &Name) -> Result<Image> {
        self.inner.get(name).await
    }

    fn list(&self, filters: &[Filter]) -> Listing<Image> {
        self.inner.list(filters)
    }

    async fn create(&self, image: &Image) -> Result<Image> {
        let Image { name, .. } = image;
        match self.inner.get(name).await {
            // Said here and not by the store, where the name may be free by then.
            Ok(_) => Err(Error::already_exists(format!("image {name} is in namespace {} already", self.namespace))),
            Err(error) if error.is(Kind::NotFound) => {
                self.check(image).await?;
                self.inner.create(image).await
            }
            Err(error) => Err(error),
        }
    }

    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        let changes_target = mask.is_all() || mask.paths().iter().any(|path| path.field() == "target");
        if changes_target && !is_same(&self.inner.get(&image.name).await?.target, &image.target) {
            self.check(image).await?;
        }
        self.inner.update(image, mask).await
    }

    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()> {
        self.inner.delete(name, deletion).await
    }
}

/// Tells whether two descriptors are of the same content, whatever else they say.
fn is_same(one: &Descriptor, other: &Descriptor) -> bool {
    (&one.digest, &one.media_type, one.size) == (&other.digest, &other.media_type, other.size)
}
