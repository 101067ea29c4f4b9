//! Images for the tests of the command: one that is right, ones that are wrong, and one that comes slowly.

use std::path::PathBuf;
use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_core::Platform;
use windlass_testkit::image::{Bundle, Image, Index, Layer};
use windlass_testkit::registry::{Fake, Fault};

use crate::dist::Dist;
use crate::owner::until;

/// A platform that no machine of ours is.
pub(crate) const OTHER: &str = "linux/s390x";

/// Makes an index of a small image for this machine and one for another platform.
pub(crate) fn bundle() -> Bundle {
    Index::new().bundle(&greeting(&Platform::host().to_string())).bundle(&greeting(OTHER)).build()
}

fn greeting(platform: &str) -> Bundle {
    let base = Layer::new()
        .dir("etc", 0o755)
        .file("etc/greeting", "hello from below\n")
        .file("etc/removed", "x")
        .dir("bin", 0o755)
        .file("bin/greet", format!("#!/bin/sh\n# for {platform}\ncat /etc/greeting\n"))
        .mode(0o4755);
    let middle = Layer::new().whiteout("etc/removed").symlink("link", "etc/greeting").hardlink("second", "link");
    let top = Layer::new().dir("etc", 0o755).file("etc/greeting", "hello from above\n");
    Image::new(platform).layer(base).layer(middle).layer(top).config("Cmd", json!(["/bin/greet"])).build()
}

/// Writes the index as tag 1 of an OCI layout and returns the directory.
pub(crate) fn directory(dist: &Dist) -> PathBuf {
    let directory = dist.path("layout");
    bundle().write_layout(&directory, "1").unwrap();
    directory
}

/// Writes the index as an OCI layout and returns a reference to it.
pub(crate) fn layout(dist: &Dist) -> String {
    format!("oci:{}:1", directory(dist).display())
}

/// Puts an image into a fake registry.
pub(crate) fn serve(fake: &Fake, repository: &str, tag: &str, bundle: &Bundle) {
    let manifests = || bundle.images.iter().map(|image| &image.manifest);
    for (digest, bytes) in &bundle.blobs {
        if digest == &bundle.root.digest {
            fake.add_manifest(repository, Some(tag), bundle.root.media_type.as_str(), bytes.clone());
        } else if let Some(manifest) = manifests().find(|manifest| &manifest.digest == digest) {
            fake.add_manifest(repository, None, manifest.media_type.as_str(), bytes.clone());
        } else {
            fake.add_blob(repository, "application/octet-stream", bytes.clone());
        }
    }
}

/// Returns 12 MiB that do not compress.
pub(crate) fn large() -> Vec<u8> {
    noise(12)
}

/// Returns so many MiB that do not compress.
fn noise(mib: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = |_| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..(mib << 20) / 8).map(word).flat_map(u64::to_le_bytes).collect()
}

/// A registry that sends a large image slowly: about two seconds.
pub(crate) struct Slow {
    // Before the runtime, which it needs until it is gone.
    fake: Fake,
    bundle: Bundle,
    _runtime: tokio::runtime::Runtime,
}

impl Slow {
    pub(crate) fn start() -> Self {
        Self::with(large(), Fault::Trickle { piece: 128 << 10, pause: Duration::from_millis(20) })
    }

    /// The same, of a layer that is so large that it comes in parts, several at once.
    pub(crate) fn in_parts() -> Self {
        Self::with(noise(48), Fault::Trickle { piece: 128 << 10, pause: Duration::from_millis(5) })
    }

    fn with(large: Vec<u8>, trickle: Fault) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = runtime.block_on(Fake::start());
        let small = Layer::new().file("small", "small");
        let layer = Layer::new().file("large", large);
        let bundle = Image::new(&Platform::host().to_string()).layer(small).layer(layer).build();
        serve(&fake, "slow/image", "1", &bundle);
        let digest = &bundle.image().layers[1].digest;
        fake.fault(format!("/v2/slow/image/blobs/{digest}"), trickle);
        Self { fake, bundle, _runtime: runtime }
    }

    /// Returns a reference to the image.
    pub(crate) fn reference(&self) -> String {
        format!("{}/slow/image:1", self.fake.host())
    }

    /// Returns the size of all blobs in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.bundle.size()
    }

    /// Sends everything as fast as it can from now on.
    pub(crate) fn hurry(&self) {
        self.fake.clear_faults();
    }

    /// Starts a pull and waits until some of the large layer is here.
    pub(crate) fn begin(&self, dist: &Dist) -> Child {
        self.begin_and_listen(dist).0
    }

    /// Does the same, and also returns what brings the rest of the progress.
    pub(crate) fn begin_and_listen(&self, dist: &Dist) -> (Child, JoinHandle<Vec<String>>) {
        self.begin_until(dist, 4 << 20)
    }

    /// Starts a pull and waits until so much of the large layer is here.
    pub(crate) fn begin_until(&self, dist: &Dist, here: u64) -> (Child, JoinHandle<Vec<String>>) {
        let mut child = dist.start(&format!("--progress json pull {}", self.reference()));
        let layer = self.bundle.image().layers[1].ingest_ref().to_string();
        let enough = |line: &Value| line["id"] == layer.as_str() && line["offset"].as_u64() > Some(here);
        let rest = until(&mut child, enough);
        (child, rest)
    }
}
