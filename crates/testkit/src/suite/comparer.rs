//! The suite of [`Comparer`](windlass_core::diff::Comparer): what it says changed, put onto what was there, is what is there
//! now. It goes by a host, whose applier and snapshotter it needs.

use bytes::Bytes;
use windlass_core::content::{Expected, IngesterExt as _, ProviderExt as _};
use windlass_core::diff::{Applied, CompareOptions, UNCOMPRESSED_LABEL, Whiteouts};
use windlass_core::media_type::Compression;
use windlass_core::snapshot::{Commit, Mount, UNPACK_LABEL};
use windlass_core::{Descriptor, DiffId, Digest, Host, Kind, Labels, Leased, MediaType, lease};

use super::{assert_kind, parse, sample};
use crate::image::Layer;

/// Expands to the tests of a comparer, that of a host; see [`suite`](crate::suite).
#[macro_export]
macro_rules! comparer_suite {
    ($name:ident, $make:expr $(,)?) => {
        mod $name {
            use super::*;
            $crate::suite_cases!(comparer, dyn $crate::contract::Host, $make, [
                what_changed_put_onto_the_lower_tree_is_the_upper_one
                equal_trees_make_a_layer_without_entries
                without_a_lower_tree_everything_is_new
                a_deleted_file_is_a_whiteout
                the_same_trees_make_the_same_bytes
                the_media_type_says_the_compression
                a_media_type_that_is_none_of_a_layer_is_refused
                the_blob_has_its_diff_id_and_the_labels
                a_blob_that_was_here_gets_the_labels
                what_the_ingest_has_is_given_up
            ]);
        }
    };
}

/// A host with a namespace and a lease.
struct Place {
    services: Leased,
}

impl Place {
    async fn of(host: &dyn Host) -> Self {
        Self { services: Leased::acquire(host, &parse("default"), lease::Options::default()).await.unwrap() }
    }

    /// Commits a snapshot with a layer.
    async fn commit(&self, name: &str, parent: Option<&str>, layer: &Layer) {
        let (_, snapshotter) = self.services.snapshotter(None).unwrap();
        let (key, parent) = (parse(&format!("making {name}")), parent.map(parse));
        let labels = Labels::new().with(UNPACK_LABEL, "layer");
        let mounts = snapshotter.prepare(&key, parent.as_ref(), labels).await.unwrap();
        self.apply(&self.store(layer).await, &mounts).await;
        snapshotter.commit(&parse(name), &key, Commit::default()).await.unwrap();
    }

    async fn store(&self, layer: &Layer) -> Descriptor {
        let bytes = layer.encode(Compression::None).bytes;
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
        self.services.content.write_blob(&descriptor, bytes, Labels::new()).await.unwrap();
        descriptor
    }

    async fn apply(&self, layer: &Descriptor, mounts: &[Mount]) -> DiffId {
        let content = &*self.services.content;
        let applied = self.services.applier.apply(content, layer, mounts, Whiteouts::AsMounted, None).await.unwrap();
        let Applied::Complete { diff_id, .. } = applied else { panic!("{applied:?}") };
        diff_id
    }

    async fn view(&self, name: &str) -> Vec<Mount> {
        let (_, snapshotter) = self.services.snapshotter(None).unwrap();
        let key = parse(&format!("view of {name}"));
        match snapshotter.mounts(&key).await {
            Ok(mounts) => mounts,
            Err(_) => snapshotter.view(&key, Some(&parse(name)), Labels::new()).await.unwrap(),
        }
    }

    async fn compare(&self, lower: &str, upper: &str, options: CompareOptions) -> Descriptor {
        let (lower, upper) = (self.view(lower).await, self.view(upper).await);
        self.services.comparer.compare(&lower, &upper, options).await.unwrap()
    }

    /// Returns the names in a layer that is not compressed.
    async fn names(&self, layer: &Descriptor) -> Vec<String> {
        let bytes = self.services.content.read_all(layer, 1 << 20).await.unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| entry.unwrap().path().unwrap().display().to_string();
        archive.entries().unwrap().map(name).filter(|name| !matches!(name.as_str(), "" | "." | "./")).collect()
    }
}

fn plain() -> CompareOptions {
    CompareOptions::new(MediaType::OCI_LAYER)
}

async fn base_and_top(host: &dyn Host) -> Place {
    let place = Place::of(host).await;
    let base = Layer::new()
        .dir("d", 0o755)
        .file("d/gone", b"1")
        .file("d/kept", sample(1, 70_000))
        .dir("d/deep", 0o755)
        .file("d/deep/file", b"2")
        .file("other", b"becomes a link");
    place.commit("base", None, &base).await;
    let top = Layer::new().whiteout("d/gone").file("d/new", sample(2, 70_000)).whiteout("d/deep").whiteout("other");
    place.commit("middle", Some("base"), &top).await;
    place.commit("top", Some("middle"), &Layer::new().symlink("other", "d/new")).await;
    place
}

pub async fn what_changed_put_onto_the_lower_tree_is_the_upper_one(host: &dyn Host) {
    let place = base_and_top(host).await;
    let layer = place.compare("base", "top", plain()).await;
    let bytes = place.services.content.read_all(&layer, 1 << 20).await.unwrap();
    let (_, snapshotter) = place.services.snapshotter(None).unwrap();
    let key = parse("again in the making");
    let labels = Labels::new().with(UNPACK_LABEL, "layer");
    let mounts = snapshotter.prepare(&key, Some(&parse("base")), labels).await.unwrap();
    assert_eq!(place.apply(&layer, &mounts).await, DiffId(Digest::sha256(&bytes)));
    snapshotter.commit(&parse("again"), &key, Commit::default()).await.unwrap();
    for (lower, upper) in [("top", "again"), ("again", "top")] {
        let nothing = place.compare(lower, upper, plain()).await;
        assert_eq!(place.names(&nothing).await, Vec::<String>::new(), "from {lower} to {upper}");
    }
}

pub async fn equal_trees_make_a_layer_without_entries(host: &dyn Host) {
    let place = base_and_top(host).await;
    let layer = place.compare("top", "top", plain()).await;
    // Two blocks of zeros end an archive.
    assert_eq!(layer.digest, Digest::sha256(&[0; 1024]));
}

pub async fn without_a_lower_tree_everything_is_new(host: &dyn Host) {
    let place = base_and_top(host).await;
    let top = place.view("top").await;
    let layer = place.services.comparer.compare(&[], &top, plain()).await.unwrap();
    let mut names: Vec<String> = place.names(&layer).await;
    names.sort();
    assert_eq!(names, ["d/", "d/kept", "d/new", "other"]);
}

pub async fn a_deleted_file_is_a_whiteout(host: &dyn Host) {
    let place = base_and_top(host).await;
    let layer = place.compare("base", "middle", plain()).await;
    let mut names = place.names(&layer).await;
    names.retain(|name| name != "d/");
    names.sort();
    assert_eq!(names, [".wh.other", "d/.wh.deep", "d/.wh.gone", "d/new"]);
}

pub async fn the_same_trees_make_the_same_bytes(host: &dyn Host) {
    let place = base_and_top(host).await;
    let gzip = || CompareOptions::new(MediaType::OCI_LAYER_GZIP);
    let layer = place.compare("base", "top", gzip()).await;
    assert_eq!(place.compare("base", "top", gzip()).await, layer);
}

pub async fn the_media_type_says_the_compression(host: &dyn Host) {
    let place = base_and_top(host).await;
    let mut diff_ids = Vec::new();
    for (media_type, start) in [
        (MediaType::OCI_LAYER_GZIP, &[0x1f, 0x8b][..]),
        (MediaType::DOCKER_LAYER_GZIP, &[0x1f, 0x8b]),
        (MediaType::OCI_LAYER_ZSTD, &[0x28, 0xb5, 0x2f, 0xfd]),
        (MediaType::OCI_LAYER, b""),
        (MediaType::DOCKER_LAYER, b""),
    ] {
        let layer = place.compare("base", "top", CompareOptions::new(media_type)).await;
        assert_eq!(layer.media_type.as_str(), media_type);
        let bytes = place.services.content.read_all(&layer, 1 << 20).await.unwrap();
        assert!(bytes.starts_with(start), "{media_type}");
        assert_eq!(bytes.len() as u64, layer.size);
        let labels = place.services.content.info(&layer.digest).await.unwrap().labels;
        diff_ids.push(labels.get(UNCOMPRESSED_LABEL).unwrap().to_owned());
    }
    assert!(diff_ids.windows(2).all(|two| two[0] == two[1]), "{diff_ids:?}");
}

pub async fn a_media_type_that_is_none_of_a_layer_is_refused(host: &dyn Host) {
    let place = base_and_top(host).await;
    let base = place.view("base").await;
    for media_type in [MediaType::OCI_CONFIG, MediaType::OCTET_STREAM, "application/vnd.oci.image.layer.v1.tar+brotli"]
    {
        let compared = place.services.comparer.compare(&[], &base, CompareOptions::new(media_type)).await;
        assert_kind(compared, Kind::Unimplemented, media_type);
    }
    assert!(place.services.content.statuses(&[]).await.unwrap().is_empty());
}

pub async fn the_blob_has_its_diff_id_and_the_labels(host: &dyn Host) {
    let place = base_and_top(host).await;
    let labels = Labels::new().with("of", "mine");
    let layer = place.compare("base", "top", CompareOptions { labels, ..plain() }).await;
    let labels = place.services.content.info(&layer.digest).await.unwrap().labels;
    assert_eq!(labels.get("of"), Some("mine"));
    assert_eq!(labels.get(UNCOMPRESSED_LABEL), Some(layer.digest.to_string().as_str()), "it is not compressed");
}

pub async fn a_blob_that_was_here_gets_the_labels(host: &dyn Host) {
    let place = base_and_top(host).await;
    place.compare("base", "top", CompareOptions { labels: Labels::new().with("first", "1"), ..plain() }).await;
    let again = CompareOptions { labels: Labels::new().with("second", "2"), ..plain() };
    let layer = place.compare("base", "top", again).await;
    let labels = place.services.content.info(&layer.digest).await.unwrap().labels;
    assert_eq!((labels.get("first"), labels.get("second")), (Some("1"), Some("2")));
}

pub async fn what_the_ingest_has_is_given_up(host: &dyn Host) {
    let place = base_and_top(host).await;
    let expected = place.compare("base", "top", plain()).await;
    place.services.content.delete(&expected.digest).await.unwrap();
    let ingest: windlass_core::content::IngestRef = parse("of mine");
    let mut writer = place.services.content.writer(&ingest, Expected::default()).await.unwrap();
    writer.write(Bytes::from_static(b"half of something")).await.unwrap();
    drop(writer);
    let options = CompareOptions { ingest: Some(ingest), ..plain() };
    assert_eq!(place.compare("base", "top", options).await, expected);
    assert!(place.services.content.statuses(&[]).await.unwrap().is_empty());
}
