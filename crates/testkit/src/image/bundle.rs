//! Finished images: blobs and the descriptor at their root, to be served or written as an OCI layout.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_core::error::IoResultExt as _;
use windlass_core::{ChainId, Descriptor, DiffId, Digest, Error, MediaType, Result};

use super::recipe::Flavour;

/// The annotation of a descriptor in a layout's index that has the tag. OCI image-spec, `annotations.md`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Everything that belongs to a name.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What the name points at.
    pub root: Descriptor,
    /// The images in it: one, or those of an index.
    pub images: Vec<Parts>,
    /// All bytes by the digest that they are referred to by.
    pub blobs: BTreeMap<Digest, Bytes>,
}

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The manifest, with its platform.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// The diff ids as the config has them.
    pub diff_ids: Vec<DiffId>,
}

impl Parts {
    /// Returns the chain ids of the layers, bottom first.
    pub fn chain_ids(&self) -> Vec<ChainId> {
        ChainId::chain(&self.diff_ids)
    }
}

impl Bundle {
    /// Returns the only image.
    ///
    /// # Panics
    /// When there are several, or none.
    pub fn image(&self) -> &Parts {
        match self.images.as_slice() {
            [image] => image,
            images => panic!("there are {} images, not one", images.len()),
        }
    }

    /// Returns how many bytes all blobs have together.
    pub fn size(&self) -> u64 {
        self.blobs.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Adds the blobs and a tag to an OCI layout, which is begun when there is none. OCI image-spec, `image-layout.md`.
    ///
    /// # Errors
    /// Those of the filesystem; `DataLoss` when what is there is not an OCI layout.
    pub fn write_layout(&self, directory: &Path, tag: &str) -> Result<()> {
        for (digest, bytes) in &self.blobs {
            let folder = directory.join("blobs").join(digest.algorithm().as_str());
            std::fs::create_dir_all(&folder).attempt(|| format!("create {}", folder.display()))?;
            write(&folder.join(digest.hex()), bytes)?;
        }
        add_to_layout(directory, tag, &self.root)
    }
}

/// Gives a tag of an OCI layout a descriptor whose blobs are there.
///
/// # Errors
/// Those of the filesystem; `DataLoss` when what is there is not an OCI layout.
pub(crate) fn add_to_layout(directory: &Path, tag: &str, root: &Descriptor) -> Result<()> {
    let path = directory.join("index.json");
    let mut index: Value = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::data_loss(format!("read {}", path.display())).source(error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [] })
        }
        Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
    };
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
    let manifests = manifests.ok_or_else(|| Error::data_loss(format!("{} has no manifests", path.display())))?;
    let tagged = |manifest: &Value| {
        manifest.pointer("/annotations").and_then(|annotations| annotations.get(REF_NAME)) == Some(&json!(tag))
    };
    manifests.retain(|manifest| !tagged(manifest));
    let mut root = root.clone();
    root.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    manifests.push(json!(root));
    write(&path, index.to_string().as_bytes())?;
    write(&directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).attempt(|| format!("write {}", path.display()))
}

/// An index to be made of several images.
#[derive(Debug, Clone, Default)]
pub struct Index {
    flavour: Flavour,
    bundles: Vec<Bundle>,
}

impl Index {
    /// Begins an index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whose media type the index has.
    pub fn flavour(mut self, flavour: Flavour) -> Self {
        self.flavour = flavour;
        self
    }

    /// Adds an image, an artifact or another index.
    pub fn bundle(mut self, bundle: &Bundle) -> Self {
        self.bundles.push(bundle.clone());
        self
    }

    /// Makes the index. OCI image-spec, `image-index.md`.
    pub fn build(&self) -> Bundle {
        let manifests: Vec<Descriptor> = self
            .bundles
            .iter()
            .map(|bundle| {
                let platform = match bundle.images.as_slice() {
                    [image] => image.manifest.platform.clone(),
                    _ => None,
                };
                Descriptor { platform, ..bundle.root.clone() }
            })
            .collect();
        let bytes: Bytes =
            json!({ "schemaVersion": 2, "mediaType": self.flavour.index(), "manifests": manifests }).to_string().into();
        let root = Descriptor::of(self.flavour.index(), &bytes);
        let mut index = Bundle { root, images: Vec::new(), blobs: BTreeMap::new() };
        index.blobs.insert(index.root.digest.clone(), bytes);
        for bundle in &self.bundles {
            index.images.extend(bundle.images.clone());
            index.blobs.extend(bundle.blobs.clone());
        }
        index
    }
}
