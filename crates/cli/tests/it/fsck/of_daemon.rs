//! `dist fsck` of a daemon, which goes on working.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{check, kinds};
use crate::dist::Dist;
use crate::fixture;
use crate::remote::{Daemon, at};

/// Returns where a blob is.
fn blob(dist: &Dist, digest: &Value) -> PathBuf {
    dist.root().join("content/blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
}

/// Replaces the bytes of a blob, which nobody else may.
fn damage(path: &PathBuf, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_a_daemon_keeps_is_checked_while_it_works() {
    let dist = Dist::new();
    let daemon = Daemon::start(&dist);
    let reference = fixture::layout(&dist);
    dist.ok(&format!("--progress none pull {reference}"));
    dist.ok(&format!("--progress none -n other pull {reference}"));
    assert_eq!(check(&dist, ""), [] as [Value; 0]);
    let run = at(&daemon.socket, "fsck");
    assert!(run.stderr.contains("note: a daemon at work"), "{}", run.stderr);
    assert_eq!(run.ok(), "nothing is wrong\n");

    let blobs = dist.json(&format!("images usage {reference}"))["blobs"].clone();
    let layers: Vec<&Value> = blobs.as_array().unwrap().iter().filter(|blob| is_layer(blob)).collect();
    let [first, second, third] = layers.as_slice() else { panic!("{blobs}") };
    let whole = fs::read(blob(&dist, &first["digest"])).unwrap();
    damage(&blob(&dist, &first["digest"]), &vec![b'x'; whole.len()]);
    assert_eq!(check(&dist, " --quick"), [] as [Value; 0], "the size is right");
    damage(&blob(&dist, &second["digest"]), b"short");
    fs::remove_file(blob(&dist, &third["digest"])).unwrap();
    for (options, of) in [("", 3), (" --quick", 2)] {
        let found = check(&dist, options);
        assert_eq!(found.len(), of, "{found:#?}");
        for finding in &found {
            assert_eq!(finding["severity"], "damage", "{finding}");
            let affected: Vec<&Value> = finding["images"].as_array().unwrap().iter().collect();
            assert_eq!(affected.len(), 2, "it is an image of both namespaces: {finding}");
            assert!(affected.iter().all(|image| image["name"] == json!(reference)), "{finding}");
        }
        let kinds = kinds(&found);
        // A daemon of ours knows itself that a blob has another size, and does not read it.
        let known = ["blob-digest", "blob-missing", "blob-unreadable"];
        assert_eq!(kinds, if of == 3 { &known[..] } else { &known[1..] });
        let wrong = found.iter().find(|finding| finding["problem"] == "blob-digest");
        assert_eq!(wrong.map(|wrong| &wrong["digest"]), Some(&first["digest"]).filter(|_| of == 3));
    }
}

fn is_layer(blob: &Value) -> bool {
    blob["mediaType"].as_str().unwrap().contains("layer")
}

#[test]
fn what_images_of_a_daemon_lack_is_found() {
    let dist = Dist::new();
    let _daemon = Daemon::start(&dist);
    let reference = fixture::layout(&dist);
    dist.ok(&format!("--progress none pull {reference}"));
    let keys = dist.ok("snapshots ls -q");
    let children: Vec<Value> = dist.json("snapshots ls").as_array().unwrap().clone();
    let parents: Vec<&Value> = children.iter().map(|info| &info["parent"]).collect();
    let top = keys.lines().find(|key| !parents.contains(&&json!(key))).unwrap();
    dist.ok(&format!("snapshots rm {top}"));
    let found = check(&dist, "");
    assert_eq!(kinds(&found), ["snapshot-missing"]);
    assert_eq!((&found[0]["key"], &found[0]["images"][0]["name"]), (&json!(top), &json!(reference)));
    let target = dist.json(&format!("images inspect {reference}"))["target"]["digest"].clone();
    dist.ok(&format!("content rm {}", target.as_str().unwrap()));
    let found = check(&dist, "");
    assert_eq!(kinds(&found), ["snapshot-missing", "target-missing"]);
}

#[test]
fn a_repair_needs_the_root_without_its_daemon() {
    let dist = Dist::new();
    let daemon = Daemon::start(&dist);
    for run in [at(&daemon.socket, "fsck --repair"), dist.run("fsck --repair")] {
        let said = run.failed();
        assert!(said.contains(daemon.socket.to_str().unwrap()) && said.contains("hint: stop the daemon"), "{said}");
    }
}
