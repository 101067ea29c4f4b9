//! What format 1 looks like, byte for byte: one record of each table, as `tests/fixtures/format-1/records.txt` has it.
//!
//! A line is the table, the key with its NULs shown as `|`, and the value behind its version byte. A change of this file
//! is a change of the format: records that were written before have to be read for ever.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::any::Any;
use windlass_core::container::{Container, Runtime};
use windlass_core::gc::{self, ChildKind, Node};
use windlass_core::image::Image;
use windlass_core::lease::Lease;
use windlass_core::snapshot::{self, State};
use windlass_core::{Descriptor, Digest, Labels, Platform, content};

use super::records::{decode, encode};
use super::schema::{
    CHILDREN, CONTAINERS, CONTENTS, IMAGES, LEASES, LINKS, META, NAMESPACES, NamespaceRecord, RESOURCES, SNAPSHOTS,
    SnapshotRecord,
};
use super::{Links, Present, Records, text_of};

const GOLDEN: &str = include_str!("../../tests/fixtures/format-1/records.txt");

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000 + seconds, 123_456_789)
}

fn labels() -> Labels {
    Labels::new().with("a.b/c", "ä \"quoted\"").with(gc::content_label(ChildKind::Layer, 0), digest().to_string())
}

fn digest() -> Digest {
    Digest::sha256(b"golden")
}

fn image() -> Image {
    let mut target = Descriptor::new("application/vnd.oci.image.index.v1+json", digest(), 6);
    target.annotations.insert("org.example".into(), "1".into());
    target.platform = Some("linux/arm64/v8".parse::<Platform>().unwrap());
    let image = Image::new("docker.io/library/redis:7".parse().unwrap(), target);
    Image { labels: labels(), created_at: at(0), updated_at: at(1), ..image }
}

fn container() -> Container {
    let any = Any::new("type.example/Spec", vec![1, 2, 255]);
    Container {
        id: "c1".into(),
        labels: labels(),
        image: Some("redis".parse().unwrap()),
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: Some(any.clone()) },
        spec: Some(any.clone()),
        snapshotter: Some("overlayfs".into()),
        snapshot_key: Some("c1".parse().unwrap()),
        sandbox_id: None,
        extensions: BTreeMap::from([("x".into(), any)]),
        created_at: at(0),
        updated_at: at(1),
    }
}

fn snapshot() -> SnapshotRecord {
    let info = snapshot::Info {
        state: State::Committed,
        key: digest().to_string().parse().unwrap(),
        parent: Some("parent".parse().unwrap()),
        labels: labels(),
        created_at: at(0),
        updated_at: at(1),
    };
    SnapshotRecord { inner: "default/18ab-01/x".parse().unwrap(), info }
}

fn links() -> Links {
    let parent = Node::Snapshot { snapshotter: "overlayfs".into(), key: "parent".into() };
    let labels = labels().with(gc::ROOT, "1").with(gc::EXPIRE, "2027-01-15T09:00:00+01:00");
    Links::of(&labels).on(Some(&parent))
}

fn line<T>(records: &Records<T>, key: &str, record: &T) -> String
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let value = encode(record).unwrap();
    // What is written today is read today.
    assert_eq!(decode::<T>(&value).unwrap(), *record);
    // What was written then is read today, into the same record.
    let start = format!("{}\t{key}\t", records.table());
    let golden = GOLDEN.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{start}"));
    let mut stored = vec![1];
    stored.extend_from_slice(golden.as_bytes());
    assert_eq!(decode::<T>(&stored).unwrap(), *record, "{start}");
    assert_eq!(value[0], 1);
    format!("{start}{}\n", std::str::from_utf8(&value[1..]).unwrap())
}

#[test]
fn format_1_is_read_and_written_as_it_was_released() {
    let content = content::Info { digest: digest(), size: 6, created_at: at(0), updated_at: at(1), labels: labels() };
    let lease =
        Lease { id: "18ab-01".parse().unwrap(), created_at: at(0), expires_at: Some(at(86_400)), labels: labels() };
    let namespace = NamespaceRecord { labels: labels(), created_at: at(0) };
    let digest = digest();
    let node = text_of(&Node::Content(digest.clone()));
    let written = [
        line(&META, "format", &1),
        line(&NAMESPACES, "default", &namespace),
        line(&IMAGES, "default|docker.io/library/redis:7", &image()),
        line(&CONTAINERS, "default|c1", &container()),
        line(&CONTENTS, &format!("default|{digest}"), &content),
        line(&SNAPSHOTS, &format!("default|overlayfs|{digest}"), &snapshot()),
        line(&CHILDREN, &format!("default|overlayfs|parent|{digest}"), &Present),
        line(&LEASES, "default|18ab-01", &lease),
        line(&RESOURCES, &format!("default|18ab-01|{node}"), &Present),
        line(&LINKS, "default|snapshot/overlayfs/x", &links()),
    ]
    .concat();
    assert_eq!(written, GOLDEN);
}

#[test]
fn an_unknown_encoding_is_refused_by_its_number() {
    let error = decode::<u32>(&[9, b'1']).unwrap_err();
    assert!(error.to_string().contains("encoding 9"), "{error}");
    for damaged in [&[][..], &[1], &[1, b'{']] {
        assert!(decode::<Links>(damaged).unwrap_err().is(windlass_core::Kind::DataLoss));
    }
}
