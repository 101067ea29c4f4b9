//! Compressed streams, damaged ones among them, and what of them counts.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{Provider, ReaderAt};
use windlass_core::diff::{Applied, Applier as _, Whiteouts};
use windlass_core::progress::{State, Tracker};
use windlass_core::{Descriptor, Digest, Kind, MediaType, Result};
use windlass_layer::{Differ, Options};

use crate::apply::{Memory, apply, apply_with, bind, run};
use crate::archive::Archive;
use crate::tree::shape;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// About 3 MiB that do not compress to nothing.
fn archive() -> Vec<u8> {
    let mut text = String::new();
    let mut seed = 1u64;
    while text.len() < 3 << 20 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        writeln!(text, "{:x}", seed >> 20).unwrap();
    }
    Archive::new().dir("d").file("d/f", &text).file("empty", "").end()
}

#[test]
fn every_compression_gives_the_same_tree_and_diff_id() {
    let tar = archive();
    let mut members = gzip(&tar[..1000]);
    members.extend(gzip(&[]));
    members.extend(gzip(&tar[1000..]));
    members.extend([0; 100]);
    let mut frames = zstd(&tar[..1000]);
    frames.extend([0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1]);
    frames.extend(zstd(&tar[1000..]));
    for layer in [tar.clone(), gzip(&tar), members, zstd(&tar), frames] {
        // However the store cuts it, and whatever the media type says.
        for part in [1 << 20, 4096, 1001] {
            for media_type in [MediaType::OCI_LAYER, MediaType::OCI_LAYER_ZSTD, MediaType::DOCKER_LAYER_GZIP] {
                let root = tempfile::tempdir().unwrap();
                let content = Memory(Bytes::copy_from_slice(&layer), part);
                let descriptor = Descriptor::of(media_type, &layer);
                let differ = Differ::new(Options::default());
                let applied =
                    run(differ.apply(&content, &descriptor, &bind(root.path()), Whiteouts::AsMounted, None)).unwrap();
                let Applied::Complete { diff_id, size } = applied else { panic!() };
                assert_eq!((diff_id.0, size), (Digest::sha256(&tar), tar.len() as u64));
                assert_eq!(shape(root.path()).len(), 3);
            }
        }
    }
}

/// A member of gzip without content that tells where the table of contents is: stargz-snapshotter, `docs/estargz.md`,
/// "Footer".
fn estargz_footer(offset: usize) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
    footer.extend(format!("{offset:016x}STARGZ").bytes());
    footer.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    footer
}

#[test]
fn layers_that_could_be_pulled_lazily_are_plain_ones() {
    let parts = [
        Archive::new().file(".prefetch.landmark", "\u{f}").0,
        Archive::new().dir("d").file("d/f", "content").0,
        Archive::new().file("empty", "").0,
    ];
    let toc = Archive::new().file("stargz.index.json", r#"{"version":1,"entries":[]}"#).end();
    let tar: Vec<u8> = parts.iter().flatten().chain(&toc).copied().collect();
    // eStargz: a member for each entry, one for the table of contents, and one that tells where that begins.
    let mut estargz: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
    let offset = estargz.len();
    estargz.extend(gzip(&toc));
    estargz.extend(estargz_footer(offset));
    // zstd:chunked: a frame for each, and what nobody else is to read in frames that are skipped.
    let mut chunked: Vec<u8> = parts.iter().chain([&toc]).flat_map(|part| zstd(part)).collect();
    for skipped in [&b"a table of contents"[..], b"a footer"] {
        chunked.extend([0x50, 0x2a, 0x4d, 0x18]);
        chunked.extend(u32::try_from(skipped.len()).unwrap().to_le_bytes());
        chunked.extend(skipped);
    }
    for layer in [estargz, chunked] {
        let root = tempfile::tempdir().unwrap();
        let Applied::Complete { diff_id, size } = apply(&layer, root.path()).unwrap() else { panic!() };
        assert_eq!((diff_id.0, size), (Digest::sha256(&tar), tar.len() as u64));
        // What is for lazy pulls is in the tree, as containerd has it.
        let shape = shape(root.path());
        let names: Vec<&str> = shape.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, [".prefetch.landmark", "d", "d/f", "empty", "stargz.index.json"]);
    }
}

#[test]
fn padding_after_the_archive_counts_for_the_diff_id() {
    let root = tempfile::tempdir().unwrap();
    let mut tar = Archive::new().file("f", "x").end();
    tar.extend([0; 9000]);
    tar.extend(b"not even zeros");
    for layer in [tar.clone(), gzip(&tar)] {
        let Applied::Complete { diff_id, size } = apply(&layer, root.path()).unwrap() else { panic!() };
        assert_eq!((diff_id.0, size), (Digest::sha256(&tar), tar.len() as u64));
    }
}

#[test]
fn an_empty_layer_is_a_layer() {
    let root = tempfile::tempdir().unwrap();
    for layer in [vec![], gzip(b""), zstd(b""), vec![0; 1024], gzip(&[0; 1024])] {
        assert!(matches!(apply(&layer, root.path()), Ok(Applied::Complete { .. })));
    }
    assert!(shape(root.path()).is_empty());
}

#[test]
fn damaged_streams_are_data_loss_and_name_the_layer() {
    let tar = archive();
    let check = |layer: &[u8], what: &str| {
        let root = tempfile::tempdir().unwrap();
        let error = apply(layer, root.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::DataLoss, "{what}: {error}");
        assert!(error.to_string().contains(&Digest::sha256(layer).to_string()), "{what}: {error}");
    };
    for (name, good) in [("gzip", gzip(&tar)), ("zstd", zstd(&tar)), ("tar", tar.clone())] {
        for cut in [good.len() / 2, 600] {
            check(&good[..cut], &format!("{name} cut at {cut}"));
        }
        if name != "tar" {
            check(&good[..good.len() - 1], &format!("{name} without its last byte"));
            check(&good[..3], &format!("{name} of three bytes"));
            check(&[&good[..], b"garbage"].concat(), &format!("{name} with garbage"));
            let mut flipped = good.clone();
            flipped[good.len() / 2] ^= 1;
            check(&flipped, &format!("{name} with a flipped bit"));
        }
    }
    let mut checksum = gzip(&tar);
    let last = checksum.len() - 6;
    checksum[last] ^= 1;
    check(&checksum, "gzip with a wrong checksum");
    check(b"this is no layer at all, but it is longer than a magic number", "text");
    check(&vec![b'x'; 2048], "text of some blocks");
}

#[test]
fn an_archive_cut_at_any_block_is_noticed_unless_it_ends_there() {
    let tar = Archive::new()
        .add(&crate::archive::entry(b'0', "a").xattr("user.x", "1"), b"data")
        .file("b", &"b".repeat(1300))
        .symlink("c", "b")
        .end();
    // Where a member ends and the next one begins, the padding of the last one included.
    let whole = [0, 4 * 512, 8 * 512, 9 * 512, 10 * 512, 11 * 512];
    for cut in (0..=tar.len()).step_by(512) {
        let root = tempfile::tempdir().unwrap();
        let result = apply(&tar[..cut], root.path());
        assert_eq!(result.is_ok(), whole.contains(&cut), "cut at block {}: {result:?}", cut / 512);
        if let Err(error) = result {
            assert_eq!(error.kind(), Kind::DataLoss);
        }
        if cut > 0 {
            assert!(
                apply(&tar[..cut - 200], tempfile::tempdir().unwrap().path()).is_err() || [4, 8].contains(&(cut / 512)),
                "{cut}"
            );
        }
    }
}

#[test]
fn media_types_that_are_no_layer_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let layer = Archive::new().file("f", "x").end();
    for media_type in
        [MediaType::OCI_CONFIG, MediaType::OCTET_STREAM, "application/vnd.oci.image.layer.v1.tar+encrypted"]
    {
        let content = Memory(Bytes::copy_from_slice(&layer), 4096);
        let descriptor = Descriptor::of(media_type, &layer);
        let differ = Differ::new(Options::default());
        let result = run(differ.apply(&content, &descriptor, &bind(root.path()), Whiteouts::AsMounted, None));
        assert_eq!(result.unwrap_err().kind(), Kind::FailedPrecondition);
    }
    assert!(shape(root.path()).is_empty());
}

#[test]
fn a_layer_over_the_limit_is_refused_before_it_fills_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let layer = gzip(&Archive::new().file("zeros", &"\0".repeat(20 << 20)).end());
    assert!(layer.len() < 1 << 20);
    let content = Memory(Bytes::from(layer.clone()), usize::MAX);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &layer);
    let differ = Differ::new(Options { max_size: Some(5 << 20), ..Options::default() });
    let result = run(differ.apply(&content, &descriptor, &bind(root.path()), Whiteouts::AsMounted, None));
    assert_eq!(result.unwrap_err().kind(), Kind::ResourceExhausted);
    assert!(std::fs::metadata(root.path().join("zeros")).unwrap().len() <= 5 << 20);
}

#[test]
fn progress_is_told_by_compressed_bytes() {
    let root = tempfile::tempdir().unwrap();
    let layer = gzip(&archive());
    let tracker = Tracker::new();
    let task = tracker.task("layer");
    apply_with(&layer, &bind(root.path()), Whiteouts::AsMounted, Some(&task)).unwrap();
    let total = layer.len() as u64;
    assert_eq!(tracker.snapshot()[0].state, State::Unpacking { offset: total, total });
}

/// A blob whose reading takes forever after the first part.
struct Stalling(Bytes, Arc<AtomicU64>);

#[async_trait]
impl ReaderAt for Stalling {
    fn size(&self) -> u64 {
        self.0.len() as u64 + 10_000_000
    }

    async fn read_at(&self, offset: u64, _: usize) -> Result<Bytes> {
        if offset == 0 {
            return Ok(self.0.clone());
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[async_trait]
impl Provider for Stalling {
    async fn reader(&self, _: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        Ok(Box::new(Self(self.0.clone(), Arc::clone(&self.1))))
    }
}

fn layer_threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|name| name.starts_with("layer-")).count()
}

#[test]
fn a_dropped_call_stops_its_threads() {
    let root = tempfile::tempdir().unwrap();
    let tar = Archive::new().file("f", &"x".repeat(100_000)).end();
    let stalling = Stalling(Bytes::from(tar), Arc::default());
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, b"");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let differ = Differ::new(Options::default());
        let mounts = bind(root.path());
        let apply = differ.apply(&stalling, &descriptor, &mounts, Whiteouts::AsMounted, None);
        assert!(tokio::time::timeout(Duration::from_millis(200), apply).await.is_err());
    });
    assert_eq!(stalling.1.load(Ordering::SeqCst), 1);
    for _ in 0..200 {
        if layer_threads() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the threads of a dropped call are still there");
}
