//! Images in memory.

use std::time::SystemTime;

use async_trait::async_trait;
use futures::StreamExt as _;
use windlass_core::field::FieldMask;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::image::{Deletion, Image, Name, Store};
use windlass_core::{Error, Listing, Result};

use super::space::{Scoped, unknown_field};

/// An image store that keeps its records in memory.
#[derive(Clone, Default)]
pub struct Images(pub(super) Scoped);

fn absent(name: &Name) -> Error {
    Error::not_found(format!("image {name} is not here"))
}

#[async_trait]
impl Store for Images {
    async fn get(&self, name: &Name) -> Result<Image> {
        self.0.lock().images.get(name).cloned().ok_or_else(|| absent(name))
    }

    fn list(&self, filters: &[Filter]) -> Listing<Image> {
        let space = self.0.lock();
        let matching = space.images.values().filter(|image| any_matches(filters, *image));
        futures::stream::iter(matching.cloned().map(Ok).collect::<Vec<_>>()).boxed()
    }

    async fn create(&self, image: &Image) -> Result<Image> {
        image.labels.validate()?;
        let mut space = self.0.lock();
        if space.images.contains_key(&image.name) {
            return Err(Error::already_exists(format!("image {} is here", image.name)));
        }
        let now = SystemTime::now();
        let image = Image { created_at: now, updated_at: now, ..image.clone() };
        space.exists = true;
        space.images.insert(image.name.clone(), image.clone());
        Ok(image)
    }

    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        let mut space = self.0.lock();
        let there = space.images.get_mut(&image.name).ok_or_else(|| absent(&image.name))?;
        let changed = changed(there, image, mask)?;
        changed.labels.validate()?;
        there.clone_from(&changed);
        Ok(changed)
    }

    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()> {
        let mut space = self.0.lock();
        space.images.remove(name).ok_or_else(|| absent(name))?;
        if deletion == Deletion::Synchronous {
            space.collect();
        }
        Ok(())
    }
}

fn changed(image: &Image, change: &Image, mask: &FieldMask) -> Result<Image> {
    let mut changed = Image { updated_at: SystemTime::now(), ..image.clone() };
    if mask.is_all() {
        changed.target = change.target.clone();
    }
    for path in mask.apply_to_labels(&mut changed.labels, &change.labels) {
        match (path.field(), path.key()) {
            ("target", None) => changed.target = change.target.clone(),
            ("annotations", None) => changed.target.annotations = change.target.annotations.clone(),
            ("annotations", Some(key)) => {
                let value = change.target.annotations.get(key).filter(|value| !value.is_empty());
                match value {
                    Some(value) => changed.target.annotations.insert(key.to_owned(), value.clone()),
                    None => changed.target.annotations.remove(key),
                };
            }
            _ => return Err(unknown_field(path)),
        }
    }
    Ok(changed)
}
