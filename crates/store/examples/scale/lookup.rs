//! One record at a time, at random.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use windlass_core::{Result, Scope};

use super::statistics::{self, Numbers};
use super::{fill, open};

/// How many lookups are measured.
const LOOKUPS: u64 = 20_000;

/// Looks up images and blobs of a root that was filled with so many images.
pub(crate) async fn run(root: &Path, images: u64) -> Result<Value> {
    let store = open(root).await?;
    let (names, content) = (store.images(&Scope::default()), store.content(&Scope::default()));
    let mut numbers = Numbers::new();
    let (mut of_images, mut of_blobs) = (Vec::new(), Vec::new());
    for _ in 0..LOOKUPS {
        let (name, digest) = (fill::name(numbers.below(images))?, fill::layer(numbers.below(images), numbers.below(8)));
        let began = Instant::now();
        names.get(&name).await?;
        of_images.push(began.elapsed());
        let began = Instant::now();
        content.info(&digest).await?;
        of_blobs.push(began.elapsed());
    }
    Ok(json!({ "image": statistics::of(&mut of_images), "content": statistics::of(&mut of_blobs) }))
}
