//! Images that are here, looked after: converted, tagged, labelled, checked, measured and pruned.

use serde_json::{Value, json};

use crate::dist::Dist;
use crate::fixture;

fn pulled(dist: &Dist) -> String {
    let reference = fixture::layout(dist);
    dist.ok(&format!("pull {reference}"));
    reference
}

#[test]
fn a_converted_image_has_the_same_snapshots_and_other_layers() {
    let dist = Dist::new();
    let reference = pulled(&dist);
    let converted = dist.json(&format!("images convert --compression zstd --docker {reference} app:zstd"));
    assert_eq!((&converted["name"], &converted["layers"]), (&json!("docker.io/library/app:zstd"), &json!(3)));
    let plain = dist.json("images convert --uncompress --oci app:zstd app:plain");
    assert_eq!(plain["layers"], 3);
    let of = |name: &str| dist.json(&format!("images inspect {name}"))["tree"]["children"][0].clone();
    let (old, zstd, plain) = (of(&reference), of("app:zstd"), of("app:plain"));
    assert_eq!(old["image"]["layers"], zstd["image"]["layers"], "diff ids and chain ids stay");
    assert_eq!(old["children"][0]["digest"], zstd["children"][0]["digest"], "and so does the config");
    assert_eq!(zstd["children"][1]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.zstd");
    assert_eq!(plain["children"][1]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(plain["children"][1]["digest"], plain["image"]["layers"][0]["diff_id"]);
    // What was converted stands by itself.
    dist.ok(&format!("images rm {reference} app:plain"));
    let directory = dist.path("mounted");
    dist.ok(&format!("images mount app:zstd {}", directory.display()));
    assert_eq!(std::fs::read_to_string(directory.join("etc/greeting")).unwrap(), "hello from above\n");
    dist.ok(&format!("images unmount {}", directory.display()));
    let itself = dist.run("images convert --oci app:zstd app:zstd").failed();
    assert!(itself.contains("cannot become itself"), "{itself}");
}

#[test]
fn names_are_given_and_taken() {
    let dist = Dist::new();
    let reference = pulled(&dist);
    assert_eq!(dist.json(&format!("images tag {reference} a:1 b:1")).as_array().unwrap().len(), 2);
    let taken = dist.run(&format!("images tag {reference} a:1")).failed();
    assert!(taken.contains("--force"), "{taken}");
    dist.ok(&format!("images convert --uncompress {reference} c:1"));
    dist.ok("images tag --force c:1 a:1");
    let target = |name: &str| dist.json(&format!("images inspect {name}"))["target"]["digest"].clone();
    assert_eq!(target("a:1"), target("c:1"));
    assert_ne!(target("a:1"), target("b:1"));
    assert!(dist.run("images tag nothing:1 d:1").failed().contains("nothing"));
}

#[test]
fn labels_are_set_replaced_and_removed() {
    let dist = Dist::new();
    let reference = pulled(&dist);
    let labels = |line: &str| dist.json(&format!("images label {line}"))["labels"].clone();
    assert_eq!(labels(&format!("{reference} a=1 b=2")), json!({"a": "1", "b": "2"}));
    assert_eq!(labels(&format!("{reference} a=")), json!({"b": "2"}));
    assert_eq!(labels(&format!("-r {reference} c=3")), json!({"c": "3"}));
    assert_eq!(labels(&format!("-r {reference}")), json!({}));
    assert!(dist.run(&format!("images label {reference} nonsense")).refused().contains("key=value"));
}

#[test]
fn a_check_says_what_is_missing() {
    let dist = Dist::new();
    let reference = pulled(&dist);
    let checked = || -> Value { dist.json("images check")[0].clone() };
    assert_eq!((&checked()["status"], &checked()["unpacked"]), (&json!("complete"), &json!(true)));
    assert_eq!(checked()["present"], checked()["required"]);
    assert_eq!(dist.ok("images check -q"), format!("{reference}\n"));
    let table = dist.ok("images check");
    assert!(table.contains("complete (6/6)") && table.contains("true"), "{table}");
    let other = dist.json(&format!("images check --platform {}", fixture::OTHER))[0].clone();
    assert_eq!(other["status"], "unavailable", "{other}");
    let inspected = dist.json(&format!("images inspect {reference}"));
    let layer = inspected["tree"]["children"][0]["children"][2]["digest"].as_str().unwrap().to_owned();
    dist.ok(&format!("content rm {layer}"));
    assert_eq!((&checked()["status"], &checked()["missing"][0]["digest"]), (&json!("incomplete"), &json!(layer)));
    assert_eq!(checked()["unpacked"], true);
    assert_eq!(dist.ok("images check -q"), "");
    assert_eq!(dist.json("images check --snapshotter native")[0]["unpacked"], false);
}

#[test]
fn a_check_knows_what_was_dropped() {
    let dist = Dist::new();
    dist.ok(&format!("pull --content drop {}", fixture::layout(&dist)));
    let checked = dist.json("images check")[0].clone();
    assert_eq!((&checked["status"], &checked["unpacked"]), (&json!("dropped"), &json!(true)));
    assert_eq!(checked["missing"].as_array().unwrap().len(), 3);
}

#[test]
fn usage_tells_what_is_shared() {
    let dist = Dist::new();
    let reference = pulled(&dist);
    let alone = dist.json(&format!("images usage {reference}"));
    assert_eq!(alone["shared"], json!({"content": 0, "snapshots": 0}));
    assert_eq!((alone["snapshots"].as_array().unwrap().len(), alone["blobs"].as_array().unwrap().len()), (3, 6));
    dist.ok(&format!("images convert --uncompress {reference} app:plain"));
    let shared = dist.json(&format!("images usage {reference}"));
    assert_eq!(shared["total"], alone["total"]);
    assert_eq!(shared["shared"]["snapshots"], alone["total"]["snapshots"]);
    let config = shared["shared"]["content"].as_u64().unwrap();
    assert!(config > 0 && config < alone["total"]["content"].as_u64().unwrap(), "{shared}");
    assert!(dist.ok(&format!("images usage {reference}")).contains("shared"));
}

#[test]
fn what_has_no_tag_is_pruned_and_with_all_everything() {
    let dist = Dist::new();
    let reference = pulled(&dist);
    let archive = dist.path("out.tar");
    dist.ok(&format!("images export {} {reference}", archive.display()));
    dist.ok(&format!("images import --digests --base-name example.org/x {}", archive.display()));
    let before = dist.json("images ls").as_array().unwrap().len();
    let pruned = dist.json("images prune");
    let deleted = pruned["deleted"].as_array().unwrap();
    assert!(deleted.len() == 1 && deleted[0].as_str().unwrap().starts_with("example.org/x@sha256:"), "{pruned}");
    assert_eq!(pruned["freed"]["bytes"], 0, "the tagged image needs all of it");
    assert_eq!(dist.json("images ls").as_array().unwrap().len(), before - 1);
    let all = dist.json("images prune --all");
    assert!(all["freed"]["bytes"].as_u64().unwrap() > 0, "{all}");
    dist.assert_empty();
}
