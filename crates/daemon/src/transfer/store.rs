//! From the image store to itself: another name for an image.

use futures::TryStreamExt as _;
use windlass_core::image::{Image, Name, StoreExt as _};
use windlass_core::{Error, Result, Services};
use windlass_proto::containerd::types::transfer::ImageStore;

use super::Work;

/// Gives an image another name; one that is taken points at the image from then on. Its labels are those that are given: of the
/// image none go along, as containerd has it.
pub(super) async fn tag(work: &Work<'_>, from: &ImageStore, to: &ImageStore) -> Result<()> {
    let services = work.naming.services(&work.namespace.clone().into()).await?;
    let source = services.images.get(&from.name.parse()?).await?;
    let name: Name = to.name.parse()?;
    let labels = to.labels.clone().into_iter().collect();
    services.images.put(&Image { labels, ..Image::new(name, source.target) }).await?;
    Ok(())
}

/// Returns the images that a source names: its own name, its further references, and everything below those that are the
/// beginning of names.
pub(super) async fn images(services: &Services, from: &ImageStore) -> Result<Vec<Image>> {
    let mut found: Vec<Image> = Vec::new();
    let mut add = |image: Image| {
        if found.iter().all(|other| other.name != image.name) {
            found.push(image);
        }
    };
    if !from.name.is_empty() {
        add(services.images.get(&from.name.parse()?).await?);
    }
    for reference in &from.extra_references {
        if !reference.is_prefix {
            add(services.images.get(&reference.name.parse()?).await?);
            continue;
        }
        let mut all = services.images.list(&[]);
        while let Some(image) = all.try_next().await? {
            if image.name.as_str().starts_with(&reference.name) {
                add(image);
            }
        }
    }
    if found.is_empty() {
        return Err(Error::not_found("no image is named, or none is here that begins so"));
    }
    Ok(found)
}
