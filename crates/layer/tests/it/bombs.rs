//! Layers that are small and become large: what bounds them, and that memory is bounded without.

use bytes::Bytes;
use windlass_core::diff::{Applied, Applier as _, Whiteouts};
use windlass_core::{Descriptor, Kind, MediaType, Result};
use windlass_layer::pipeline::{PART, Pipeline};
use windlass_layer::target::{Below, Style, Target};
use windlass_layer::{Devices, Differ, Options};

use crate::apply::{Memory, bind, run};
use crate::archive::{Archive, entry};
use crate::streams::gzip;
use crate::tree::shape;

fn apply(layer: &[u8], root: &std::path::Path, options: Options) -> Result<Applied> {
    let content = Memory(Bytes::copy_from_slice(layer), usize::MAX);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, layer);
    run(Differ::new(options).apply(&content, &descriptor, &bind(root), Whiteouts::AsMounted, None))
}

#[test]
fn a_layer_that_becomes_ten_thousand_times_as_large_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    std::io::copy(&mut &Archive::new().file("f", "x").end()[..], &mut encoder).unwrap();
    // After the archive's end, where it only costs time; a file would be no different.
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), (1 << 30) + (200 << 20)), &mut encoder).unwrap();
    let layer = encoder.finish().unwrap();
    assert!((layer.len() as u64) * 10_000 < 1 << 30, "{}", layer.len());
    let error = apply(&layer, root.path(), Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(error.to_string().contains("more than 1073741824 bytes uncompressed"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("raise the limit")));
}

#[test]
fn a_layer_that_becomes_a_hundred_times_as_large_is_one_unless_a_limit_says_otherwise() {
    let root = tempfile::tempdir().unwrap();
    let layer = gzip(&Archive::new().file("log", &"=".repeat(10 << 20)).end());
    assert!(layer.len() as u64 * 100 < 10 << 20, "{}", layer.len());
    apply(&layer, root.path(), Options::default()).unwrap();
    let limited = Options { max_size: Some(1 << 20), ..Options::default() };
    assert_eq!(apply(&layer, root.path(), limited).unwrap_err().kind(), Kind::ResourceExhausted);
    // The smaller limit counts.
    let options = Options { max_size: Some(1 << 20), max_ratio: Some(1), ..Options::default() };
    assert_eq!(options.size_limit(1), Some(1 << 20));
    assert_eq!(Options { max_size: None, ..options }.size_limit(3 << 30), Some(3 << 30));
}

#[test]
fn the_number_of_entries_has_a_limit() {
    let root = tempfile::tempdir().unwrap();
    let layer = (0..11).fold(Archive::new(), |archive, number| archive.file(&number.to_string(), "")).end();
    let limited = |max_entries| Options { max_entries: Some(max_entries), ..Options::default() };
    let error = apply(&layer, root.path(), limited(10)).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(error.to_string().contains("more than 10 entries"), "{error}");
    apply(&layer, root.path(), limited(11)).unwrap();
}

#[test]
fn device_nodes_are_refused_on_request() {
    let root = tempfile::tempdir().unwrap();
    let refuse = || Options { devices: Devices::Refuse, ..Options::default() };
    for kind in [b'3', b'4'] {
        let layer = Archive::new().add(&entry(kind, "dev").device(1, 3), b"").end();
        let error = apply(&layer, root.path(), refuse()).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains(r#""dev" is a device node"#), "{error}");
    }
    assert!(shape(root.path()).is_empty());
    apply(&Archive::new().add(&entry(b'6', "fifo"), b"").end(), root.path(), refuse()).unwrap();
    assert_eq!(shape(root.path()), ["fifo fifo"]);
}

/// How much memory this process has taken so far, at most.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn entries_without_number_and_attributes_without_measure_take_no_memory() {
    let root = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    let large = "v".repeat(60_000);
    let mut unit = Archive::new();
    for number in 0..200 {
        unit = unit.file(&format!(".wh.{number}{long}"), "").file(&format!(".wh..wh.{number}"), "").file("f", "");
        unit = unit.add(&entry(b'0', format!("f{number}")).xattr("user.none", "").record("comment", &large), b"");
    }
    let unit = Bytes::from(unit.0);
    let before = peak();
    run(async {
        let target = Target { root: root.path().into(), style: Style::Remove, below: Below::InPlace };
        let mut pipeline = Pipeline::start(target, &Options::default(), None).unwrap();
        for _ in 0..40 {
            for start in (0..unit.len()).step_by(PART) {
                assert!(pipeline.push(unit.slice(start..unit.len().min(start + PART))).await);
            }
        }
        assert!(pipeline.push(Bytes::from_static(&[0; 1024])).await);
        pipeline.finish().await.unwrap();
    });
    assert_eq!(shape(root.path()).len(), 201);
    let grown = peak() - before;
    assert!(grown < 64 << 20, "{grown} bytes more");
}
