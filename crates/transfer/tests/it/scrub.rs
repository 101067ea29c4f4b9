//! Checks of what a host keeps while others work on it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::fsck::{Depth, Finding, Problem};
use windlass_core::image::{Deletion, Image, Name, Store};
use windlass_core::progress::Tracker;
use windlass_core::{Host, Listing, Result, Scope, Services};
use windlass_transfer::scrub;

use crate::site::{Site, three_layers};

async fn found(host: &dyn Host) -> Vec<Finding> {
    let mut found = Vec::new();
    for depth in [Depth::Bytes, Depth::Sizes] {
        found = scrub(host, depth, &Tracker::new()).await.unwrap();
    }
    found
}

/// A host that makes its images anew between a list of them and a look at one.
struct Busy(Arc<dyn Host>);

#[async_trait]
impl Host for Busy {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        let services = self.0.services(scope).await?;
        Ok(Services { images: Arc::new(MadeAnew(services.images)), ..services })
    }
}

struct MadeAnew(Arc<dyn Store>);

#[async_trait]
impl Store for MadeAnew {
    async fn get(&self, name: &Name) -> Result<Image> {
        self.0.get(name).await
    }

    fn list(&self, filters: &[Filter]) -> Listing<Image> {
        let before = |image: Image| Image { created_at: image.created_at - Duration::from_secs(1), ..image };
        self.0.list(filters).map_ok(before).boxed()
    }

    async fn create(&self, image: &Image) -> Result<Image> {
        self.0.create(image).await
    }

    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        self.0.update(image, mask).await
    }

    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()> {
        self.0.delete(name, deletion).await
    }
}

#[tokio::test]
async fn what_an_image_points_at_is_missing_unless_the_image_is_another_one_by_now() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.pull().await.unwrap();
    assert_eq!(found(&site.host).await, []);
    site.services().await.content.delete(&bundle.root.digest).await.unwrap();
    let findings = found(&site.host).await;
    let [Finding { problem: Problem::TargetMissing { target, .. }, images, .. }] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!((target, images.len()), (&bundle.root.digest, 1));
    assert_eq!(found(&Busy(Arc::new(site.host.clone()))).await, []);
}
