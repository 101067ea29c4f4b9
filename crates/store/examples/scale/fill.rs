//! Many images: an index of names, manifests, configs and layers as records, without any bytes.

use std::path::Path;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use windlass_core::content::Info;
use windlass_core::gc::{ChildKind, content_label};
use windlass_core::image::{Image, Name};
use windlass_core::{Descriptor, Digest, Labels, Result, Scope};
use windlass_store::Group;

/// How many images are recorded in one transaction.
const TOGETHER: u64 = 1000;
/// How many layers an image has for itself.
const OWN_LAYERS: u64 = 8;
/// How many images stand on the same lowest layer, which is one of the first one's.
const FAMILY: u64 = 100;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Records the images.
pub(crate) async fn run(root: &Path, images: u64) -> Result<Value> {
    let store = super::open(root).await?;
    let began = Instant::now();
    let mut first = 0;
    while first < images {
        let end = images.min(first + TOGETHER);
        store.transact(&Scope::default(), move |group| (first..end).try_for_each(|image| record(group, image))).await?;
        first = end;
    }
    let contents = images * (2 + OWN_LAYERS);
    // Image to manifest; manifest to config, own layers and the shared one.
    let edges = images * (2 + OWN_LAYERS + 1);
    Ok(json!({ "images": images, "contents": contents, "edges": edges, "seconds": began.elapsed().as_secs_f64() }))
}

/// Returns the name of an image.
pub(crate) fn name(image: u64) -> Result<Name> {
    format!("docker.io/library/image-{image:06}:latest").parse()
}

/// Returns the digest of a layer of an image.
pub(crate) fn layer(image: u64, layer: u64) -> Digest {
    Digest::sha256(format!("layer {layer} of image {image}").as_bytes())
}

fn record(group: &Group<'_>, image: u64) -> Result<()> {
    let config = Digest::sha256(format!("config of image {image}").as_bytes());
    let shared = layer(image - image % FAMILY, 0);
    let layers: Vec<Digest> = (0..OWN_LAYERS).map(|number| layer(image, number)).collect();
    let mut labels = source(image).with(content_label(ChildKind::Config, 0), config.to_string());
    for (number, digest) in std::iter::once(&shared).chain(&layers).enumerate() {
        labels.set(content_label(ChildKind::Layer, number), digest.to_string());
    }
    let manifest = Digest::sha256(format!("manifest of image {image}").as_bytes());
    for digest in layers.iter().chain([&config]) {
        group.record_content(&info(digest, source(image)))?;
    }
    group.record_content(&info(&manifest, labels))?;
    group.create_image(&Image::new(name(image)?, Descriptor::new(MANIFEST, manifest, 1234)))?;
    Ok(())
}

fn info(digest: &Digest, labels: Labels) -> Info {
    let now = SystemTime::now();
    Info { digest: digest.clone(), size: 1234, created_at: now, updated_at: now, labels }
}

/// What a pull writes on every blob.
fn source(image: u64) -> Labels {
    Labels::new().with("containerd.io/distribution.source.docker.io", format!("library/image-{image:06}"))
}
