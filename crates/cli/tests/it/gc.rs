//! Garbage: what is listed goes, what is needed has a reason.

use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use windlass_core::Digest;

use crate::dist::Dist;
use crate::fixture;

/// Leaves what a crash between the rename of a blob and its record leaves.
fn leave_blob(dist: &Dist, bytes: &[u8]) -> String {
    let digest = Digest::sha256(bytes);
    fs::write(dist.root().join("content/blobs/sha256").join(digest.hex()), bytes).unwrap();
    digest.to_string()
}

/// Begins an ingest, kills the process, sets the clock of what is left back by two days, and returns its size.
fn leave_ingest(dist: &Dist) -> u64 {
    let mut child = dist.start("content ingest given-up");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&fixture::large()).unwrap();
    let ingests = dist.root().join("content/ingest");
    let data = || crate::dist::files_below(&ingests).into_iter().find(|path| path.ends_with("data"));
    let size = || data().map_or(0, |data| fs::metadata(data).unwrap().len());
    while size() < 1 << 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (data, then) = (data().unwrap(), SystemTime::now() - Duration::from_hours(48));
    for path in [data.as_path(), data.parent().unwrap()] {
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }
    size()
}

#[test]
fn what_a_plan_lists_is_what_goes() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    assert_eq!(dist.json("gc --plan"), json!([]));
    let before = dist.json("images ls");
    let digest = leave_blob(&dist, b"unrecorded");
    let begun = leave_ingest(&dist);

    let plan = dist.json("gc --plan");
    let blob = json!({"kind": "content", "namespace": null, "id": digest, "bytes": 10});
    let ingest = json!({"kind": "ingest", "namespace": "default", "id": "given-up", "bytes": begun});
    assert_eq!(plan, json!([blob, ingest]));
    assert_eq!(dist.json("gc --plan"), plan, "nothing has gone yet");
    let table = dist.ok("gc --plan");
    assert!(table.contains(&digest) && table.contains("2 objects would go and free "), "{table}");

    let collected = dist.json("gc");
    assert_eq!(collected["bytes"], begun + 10);
    assert_eq!(collected["blobs"], json!({"count": 1, "bytes": 10}));
    assert_eq!(collected["ingests"], json!({"count": 1, "bytes": begun}));
    assert_eq!(collected["records"], 0);
    assert_eq!(dist.json("gc --plan"), json!([]));
    assert_eq!(dist.json("images ls"), before);
    let said = dist.ok("gc");
    assert!(said.starts_with("freed") && said.contains("0 B (0 blobs, 0 snapshots, 0 ingests)"), "{said}");
}

#[test]
fn everything_of_an_image_stays_because_of_it() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    for blob in dist.json("content ls").as_array().unwrap() {
        let why = dist.json(&format!("why {}", blob["digest"].as_str().unwrap()));
        for explained in why.as_array().unwrap() {
            assert_eq!(explained["pin"]["reason"], "record", "{explained}");
            assert_eq!(explained["pin"]["path"][0], format!("image {reference}"), "{explained}");
        }
    }
    let snapshots = dist.json("snapshots ls");
    for snapshot in snapshots.as_array().unwrap() {
        let key = snapshot["key"].as_str().unwrap();
        let why = dist.json(&format!("why {key}"));
        let last = |explained: &Value| explained["pin"]["path"].as_array().unwrap().last().unwrap().clone();
        let of_snapshot = why.as_array().unwrap().iter().find(|it| last(it) == format!("snapshot overlayfs/{key}"));
        let path = &of_snapshot.unwrap()["pin"]["path"];
        assert_eq!(path[0], format!("image {reference}"), "{path}");
    }
    let said = dist.ok(&format!("why {reference}"));
    assert_eq!(said, format!("image {reference}\n  image {reference}  (a record that stays until it is deleted)\n"));
}

#[test]
fn what_nothing_keeps_is_said_so_and_what_is_not_here_is_an_error() {
    let dist = Dist::new();
    dist.ok("namespaces create x");
    let digest = leave_blob(&dist, b"unrecorded");
    assert_eq!(dist.json(&format!("why {digest}")), json!([{"object": format!("blob {digest}"), "pin": null}]));
    let said = dist.ok(&format!("why {digest}"));
    assert!(said.contains("nothing keeps it"), "{said}");
    let said = dist.run(&format!("why {}", Digest::sha256(b"absent"))).failed();
    assert!(said.contains("no blob, snapshot, image or ingest of namespace default") && said.contains("hint: "));
}
