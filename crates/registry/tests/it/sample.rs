//! An image for two platforms in OCI layout, right in every detail: what skopeo pushes into a real registry.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tempfile::TempDir;
use windlass_core::{Descriptor, Digest, MediaType, Platform};

use crate::support::noise;

/// A layout and what is in it.
pub(crate) struct Sample {
    pub(crate) directory: TempDir,
    /// The index, under the tag `multi`.
    pub(crate) index: Descriptor,
    /// The manifest for amd64, under the tag `single`.
    pub(crate) manifest: Descriptor,
    /// The config and the layer of that manifest.
    pub(crate) config: Descriptor,
    pub(crate) layer: Descriptor,
    pub(crate) layer_bytes: Vec<u8>,
}

impl Sample {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the reference to a tag in the layout.
    pub(crate) fn reference(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path().display())
    }

    /// Writes a blob by hand.
    pub(crate) fn write(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        write(self.path(), media_type, bytes)
    }

    /// Replaces the index of the layout.
    pub(crate) fn set_entries(&self, entries: &[(&Descriptor, Option<&str>)]) {
        set_entries(self.path(), entries);
    }
}

fn write(root: &Path, media_type: &str, bytes: &[u8]) -> Descriptor {
    let descriptor = Descriptor::of(media_type, bytes);
    fs::write(root.join("blobs/sha256").join(descriptor.digest.hex()), bytes).unwrap();
    descriptor
}

fn set_entries(root: &Path, entries: &[(&Descriptor, Option<&str>)]) {
    let entry = |(descriptor, tag): &(&Descriptor, Option<&str>)| {
        let mut descriptor = (*descriptor).clone();
        descriptor.annotations.extend(tag.map(|tag| ("org.opencontainers.image.ref.name".to_owned(), tag.to_owned())));
        descriptor
    };
    let manifests: Vec<Descriptor> = entries.iter().map(entry).collect();
    fs::write(root.join("index.json"), json!({ "schemaVersion": 2, "manifests": manifests }).to_string()).unwrap();
}

/// One file, `hello`, as a tar archive: two records of the file, two of zeros.
fn archive(content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, b"hello");
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Makes the layout in a temporary directory.
pub(crate) fn layout() -> Sample {
    let directory = TempDir::new().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut manifests = Vec::new();
    let mut first = None;
    for (architecture, length) in [("amd64", 300_000), ("arm64", 1000)] {
        let tar = archive(&noise(length));
        let layer_bytes = gzip(&tar);
        let layer = write(root, MediaType::OCI_LAYER_GZIP, &layer_bytes);
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&tar)] },
            "history": [{ "created_by": "a test" }],
        });
        let config = write(root, MediaType::OCI_CONFIG, config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": config,
            "layers": [layer],
        });
        let manifest = write(root, MediaType::OCI_MANIFEST, manifest.to_string().as_bytes());
        first.get_or_insert((manifest.clone(), config, layer, layer_bytes));
        manifests.push(Descriptor { platform: Some(Platform::new("linux", architecture, None)), ..manifest });
    }
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": manifests });
    let index = write(root, MediaType::OCI_INDEX, index.to_string().as_bytes());
    let (manifest, config, layer, layer_bytes) = first.unwrap();
    set_entries(root, &[(&index, Some("multi")), (&manifest, Some("single"))]);
    Sample { directory, index, manifest, config, layer, layer_bytes }
}
