//! One image: layers, config and manifest, and the ways they can be wrong.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use windlass_core::media_type::Compression;
use windlass_core::{Descriptor, DiffId, Digest, MediaType, Platform};

use super::bundle::{Bundle, Parts};
use super::layer::{Encoded, Layer};

/// Whose media types an image has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flavour {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's, schema 2.
    Docker,
}

impl Flavour {
    pub(super) fn index(self) -> &'static str {
        match self {
            Self::Oci => MediaType::OCI_INDEX,
            Self::Docker => MediaType::DOCKER_LIST,
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => MediaType::OCI_MANIFEST,
            Self::Docker => MediaType::DOCKER_MANIFEST,
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => MediaType::OCI_CONFIG,
            Self::Docker => MediaType::DOCKER_CONFIG,
        }
    }

    fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => MediaType::OCI_LAYER,
            (Self::Oci, Compression::Gzip) => MediaType::OCI_LAYER_GZIP,
            (Self::Oci, Compression::Zstd) => MediaType::OCI_LAYER_ZSTD,
            (Self::Docker, Compression::None) => MediaType::DOCKER_LAYER,
            (Self::Docker, Compression::Gzip) => MediaType::DOCKER_LAYER_GZIP,
            (Self::Docker, Compression::Zstd) => MediaType::DOCKER_LAYER_ZSTD,
        }
    }
}

/// A way in which an image is wrong. Layers are counted from 0, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tamper {
    /// The config gives another diff id for the layer.
    DiffId(usize),
    /// The manifest gives another size for the layer.
    LayerSize(usize, u64),
    /// The manifest gives another digest for the layer, and the layer's bytes are served under it.
    LayerDigest(usize),
    /// A byte in the middle of the compressed layer is wrong; the digest is that of the wrong bytes.
    LayerBytes(usize),
    /// The compressed layer ends early; digest and size are those of what is there.
    LayerCut(usize),
    /// The manifest gives another media type for the layer.
    LayerMediaType(usize, String),
    /// The manifest gives another digest for the config, and the config's bytes are served under it.
    ConfigDigest,
    /// The config leaves out the last diff id.
    MissingDiffId,
    /// The manifest also has a list of manifests.
    Ambiguous,
}

/// An image to be made.
#[derive(Debug, Clone)]
pub struct Image {
    platform: Platform,
    flavour: Flavour,
    layers: Vec<Encoded>,
    config: Map<String, Value>,
    annotations: BTreeMap<String, String>,
    tampers: Vec<Tamper>,
}

impl Image {
    /// Begins an image for a platform, such as `linux/amd64`.
    ///
    /// # Panics
    /// When the text is not a platform.
    pub fn new(platform: &str) -> Self {
        let platform = platform.parse().unwrap_or_else(|error| panic!("{error}"));
        Self {
            platform,
            flavour: Flavour::default(),
            layers: Vec::new(),
            config: Map::new(),
            annotations: BTreeMap::new(),
            tampers: Vec::new(),
        }
    }

    /// Says whose media types the image has.
    pub fn flavour(mut self, flavour: Flavour) -> Self {
        self.flavour = flavour;
        self
    }

    /// Puts a layer on top, compressed with gzip.
    pub fn layer(self, layer: impl Borrow<Layer>) -> Self {
        self.encoded_layer(layer.borrow().encode(Compression::Gzip))
    }

    /// Puts a layer on top that is compressed already.
    pub fn encoded_layer(mut self, layer: Encoded) -> Self {
        self.layers.push(layer);
        self
    }

    /// Sets a property of the config's `config`, such as `Env` or `Cmd`.
    pub fn config(mut self, property: &str, value: Value) -> Self {
        self.config.insert(property.to_owned(), value);
        self
    }

    /// Adds an annotation to the manifest.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Makes the image wrong in a way.
    pub fn tamper(mut self, tamper: Tamper) -> Self {
        self.tampers.push(tamper);
        self
    }

    fn tampered(&self, tamper: &Tamper) -> bool {
        self.tampers.contains(tamper)
    }

    /// Makes the image.
    pub fn build(&self) -> Bundle {
        let mut blobs = BTreeMap::new();
        let layers: Vec<Descriptor> = self
            .layers
            .iter()
            .enumerate()
            .map(|(at, layer)| {
                let (descriptor, bytes) = self.build_layer(at, layer);
                blobs.insert(descriptor.digest.clone(), bytes);
                descriptor
            })
            .collect();

        let mut diff_ids: Vec<DiffId> = self
            .layers
            .iter()
            .enumerate()
            .map(
                |(at, layer)| {
                    if self.tampered(&Tamper::DiffId(at)) { wrong_diff_id(at) } else { layer.diff_id.clone() }
                },
            )
            .collect();
        if self.tampered(&Tamper::MissingDiffId) {
            diff_ids.pop();
        }
        let config_bytes = self.build_config(&diff_ids);
        let mut config = Descriptor::of(self.flavour.config(), &config_bytes);
        if self.tampered(&Tamper::ConfigDigest) {
            config.digest = Digest::sha256(b"another config");
        }
        blobs.insert(config.digest.clone(), config_bytes);

        let manifest_bytes = self.build_manifest(&config, &layers);
        let mut manifest = Descriptor::of(self.flavour.manifest(), &manifest_bytes);
        manifest.platform = Some(self.platform.clone());
        blobs.insert(manifest.digest.clone(), manifest_bytes);
        let root = Descriptor { platform: None, ..manifest.clone() };
        Bundle { root, images: vec![Parts { manifest, config, layers, diff_ids }], blobs }
    }

    fn build_layer(&self, at: usize, layer: &Encoded) -> (Descriptor, Bytes) {
        let mut bytes = layer.bytes.to_vec();
        let middle = bytes.len() / 2;
        if self.tampered(&Tamper::LayerBytes(at))
            && let Some(byte) = bytes.get_mut(middle)
        {
            *byte ^= 0xff;
        }
        if self.tampered(&Tamper::LayerCut(at)) {
            bytes.truncate(middle);
        }
        let mut descriptor = Descriptor::of(self.flavour.layer(layer.compression), &bytes);
        for tamper in &self.tampers {
            match tamper {
                Tamper::LayerSize(layer, size) if *layer == at => descriptor.size = *size,
                Tamper::LayerMediaType(layer, media_type) if *layer == at => {
                    descriptor.media_type = MediaType::new(media_type);
                }
                Tamper::LayerDigest(layer) if *layer == at => {
                    descriptor.digest = Digest::sha256(format!("another layer {at}").as_bytes());
                }
                _ => {}
            }
        }
        (descriptor, bytes.into())
    }

    /// OCI image-spec, `config.md`.
    fn build_config(&self, diff_ids: &[DiffId]) -> Bytes {
        let Platform { os, architecture, variant, .. } = &self.platform;
        let mut config = json!({
            "architecture": architecture,
            "os": os,
            "created": "2023-11-14T22:13:20Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "windlass-testkit" })).collect::<Vec<_>>(),
        });
        if let (Some(variant), Some(config)) = (variant, config.as_object_mut()) {
            config.insert("variant".to_owned(), json!(variant));
        }
        config.to_string().into()
    }

    /// OCI image-spec, `manifest.md`.
    fn build_manifest(&self, config: &Descriptor, layers: &[Descriptor]) -> Bytes {
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.flavour.manifest(),
            "config": config,
            "layers": layers,
        });
        if let Some(manifest) = manifest.as_object_mut() {
            if !self.annotations.is_empty() {
                manifest.insert("annotations".to_owned(), json!(self.annotations));
            }
            if self.tampered(&Tamper::Ambiguous) {
                manifest.insert("manifests".to_owned(), json!([]));
            }
        }
        manifest.to_string().into()
    }
}

fn wrong_diff_id(at: usize) -> DiffId {
    DiffId(Digest::sha256(format!("another tar {at}").as_bytes()))
}
