//! What a repair cannot do, or not at once, and how a damaged root is opened.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::damage::{Records, flip, truncate};
use super::{check, kinds, read};
use crate::dist::Dist;
use crate::fixture;

/// The largest blob of a root.
fn largest_blob(dist: &Dist) -> PathBuf {
    let blobs = fs::read_dir(dist.root().join("content/blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn what_came_from_a_directory_is_fetched_from_there_and_otherwise_stays_as_it_is() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let blob = largest_blob(&dist);
    flip(&blob, |length| length / 2);
    let damaged = fs::read(&blob).unwrap();

    fs::rename(dist.path("layout"), dist.path("away")).unwrap();
    let found = check(&dist, " --repair");
    assert_eq!(kinds(&found), ["blob-digest"]);
    assert_eq!(found[0]["outcome"]["state"], "remains");
    let reason = found[0]["outcome"]["reason"].as_str().unwrap();
    assert!(reason.contains(&reference) && reason.contains("layout"), "{reason}");
    assert_eq!(fs::read(&blob).unwrap(), damaged, "the only copy is kept");
    let said = dist.run("--progress none fsck --repair");
    assert_eq!(said.code, Some(1));
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(text.contains("not repaired: ") && text.contains("1 finding: 1 damaged or lost"), "{text}");

    fs::rename(dist.path("away"), dist.path("layout")).unwrap();
    let found = check(&dist, " --repair");
    assert_eq!((kinds(&found), &found[0]["outcome"]["state"]), (vec!["blob-digest".to_owned()], &"repaired".into()));
    assert_ne!(fs::read(&blob).unwrap(), damaged);
    assert_eq!(check(&dist, ""), [] as [Value; 0]);
    assert_eq!(dist.ok("fsck").trim(), "nothing is wrong");
}

#[test]
fn a_snapshot_that_is_mounted_is_left_until_it_is_not() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let mounted = dist.path("mounted");
    dist.ok(&format!("images mount {reference} {}", mounted.display()));
    let snapshots = dist.root().join("snapshots/overlayfs/snapshots");
    let directories = fs::read_dir(snapshots).unwrap().map(|entry| entry.unwrap().path().join("fs/bin/greet"));
    let file = directories.into_iter().find(|file| file.exists()).unwrap();
    fs::remove_file(file).unwrap();
    let found = check(&dist, " --repair");
    dist.ok(&format!("images unmount {}", mounted.display()));
    assert_eq!(kinds(&found), ["tree-changed"]);
    let reason = found[0]["outcome"]["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("mounted at {}", mounted.display())), "{reason}");
    let found = check(&dist, " --repair");
    assert_eq!(found[0]["outcome"]["state"], "repaired", "{found:?}");
    assert!(read(&dist, &reference, "bin/greet").starts_with("#!/bin/sh"));
}

#[test]
fn a_quick_check_finds_what_sizes_tell() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    let blob = largest_blob(&dist);
    flip(&blob, |length| length / 2);
    assert_eq!(check(&dist, " --quick"), [] as [Value; 0]);
    truncate(&blob, 7);
    assert_eq!(kinds(&check(&dist, " --quick")), ["blob-size"]);
    let found = check(&dist, " --quick --repair");
    assert_eq!(found[0]["outcome"]["state"], "repaired", "{found:?}");
    assert_eq!(check(&dist, ""), [] as [Value; 0]);
}

#[test]
fn a_root_that_is_not_here_is_not_made() {
    let dist = Dist::new();
    let said = dist.run("fsck").failed();
    assert!(said.contains("is not here") && !dist.root().exists(), "{said}");
    dist.ok("images ls");
    assert_eq!(check(&dist, ""), [] as [Value; 0], "an empty root");
}

#[test]
fn a_damaged_database_is_data_loss_and_the_hint_says_what_to_do() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    for file in ["meta.redb", "snapshots/overlayfs/records.redb"] {
        let path = dist.root().join(file);
        let whole = fs::read(&path).unwrap();
        let third = whole.len() / 3;
        let zeroed = [&whole[..4096], &vec![0; whole.len() - 4096]].concat();
        let mut header = whole.clone();
        header[2] ^= 1;
        for (what, bytes) in [("cut off", &whole[..third]), ("a header", &header), ("zeros", &zeroed)] {
            fs::write(&path, bytes).unwrap();
            let said = dist.run("--format json snapshots ls");
            let error: Value = serde_json::from_str(said.stderr.lines().last().unwrap()).unwrap();
            assert_eq!(error["error"]["code"], "data-loss", "{file}, {what}: {}", said.stderr);
            assert!(error["error"]["hint"].as_str().unwrap().contains("dist fsck --repair"), "{file}, {what}: {error}");
        }
        fs::write(&path, &whole).unwrap();
        dist.ok("snapshots ls");
    }
}

#[test]
fn a_damaged_database_is_kept_beside_the_new_one() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    for number in 1..3 {
        let path = dist.root().join("meta.redb");
        let length = fs::metadata(&path).unwrap().len();
        truncate(&path, length / 2);
        let damaged = fs::read(&path).unwrap();
        let found = check(&dist, " --repair");
        assert!(kinds(&found).contains(&"database-damaged".to_owned()), "{found:?}");
        assert_eq!(fs::read(dist.root().join(format!("meta.redb.damaged-{number}"))).unwrap(), damaged);
        assert_eq!(check(&dist, ""), [] as [Value; 0]);
    }
    let images: Vec<String> = dist.ok("images ls -q").lines().map(str::to_owned).collect();
    let [image] = images.as_slice() else { panic!("{images:?}") };
    assert_eq!(read(&dist, image, "etc/greeting"), "hello from above\n");
    dist.ok(&format!("images rm {image}"));
    dist.assert_empty();
}

#[test]
fn a_flipped_bit_beside_a_lost_database_is_not_forgotten() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    flip(&largest_blob(&dist), |length| length / 2);
    fs::remove_file(dist.root().join("meta.redb")).unwrap();
    for _ in 0..2 {
        let found = check(&dist, " --repair");
        // Nothing says any more where it came from.
        let blob = found.iter().find(|finding| finding["problem"] == "blob-digest").unwrap();
        assert_eq!(blob["outcome"]["state"], "remains", "{found:?}");
    }
    assert_eq!(kinds(&check(&dist, "")), ["blob-digest"]);
}

#[test]
fn bytes_that_may_be_needed_are_kept_when_the_repair_that_needs_them_fails() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    let records = Records::of(&dist.root());
    let (_, image) = records.read("images").pop().unwrap();
    let index = image["target"]["digest"].as_str().unwrap().to_owned();
    records.remove("contents", &format!("default {index}"));
    records.remove("links", &format!("default content/{index}"));
    drop(records);
    let blob = dist.root().join("content/blobs").join(index.replace(':', "/"));
    fs::rename(dist.path("layout"), dist.path("away")).unwrap();
    let found = check(&dist, " --repair");
    assert_eq!(kinds(&found), ["blob-unrecorded", "target-missing"]);
    assert!(blob.exists(), "{found:#?}");
    fs::rename(dist.path("away"), dist.path("layout")).unwrap();
    let found = check(&dist, " --repair");
    assert!(found.iter().all(|finding| finding["outcome"]["state"] == "repaired"), "{found:#?}");
}

#[test]
fn a_directory_of_no_snapshot_goes_to_lost_and_found() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    let snapshots = dist.root().join("snapshots/overlayfs/snapshots");
    for number in 1..3 {
        fs::create_dir_all(snapshots.join("900/fs")).unwrap();
        fs::write(snapshots.join("900/fs/mine"), "written").unwrap();
        assert_eq!(kinds(&check(&dist, " --repair")), ["directory-unrecorded"]);
        let kept = dist.root().join(format!("lost+found/overlayfs/900.{number}/fs/mine"));
        assert_eq!(fs::read_to_string(kept).unwrap(), "written");
    }
}

#[test]
fn a_copy_of_what_could_not_be_repaired_is_not_taken_for_good() {
    let dist = Dist::new();
    dist.ok(&format!("pull --snapshotter native {}", fixture::layout(&dist)));
    let bundle = fixture::bundle();
    let manifest: Value = serde_json::from_slice(&bundle.blobs[&bundle.images[0].manifest.digest]).unwrap();
    let base = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    // Every layer has a copy of the file of the first one, which cannot be had again.
    for entry in fs::read_dir(dist.root().join("snapshots/native/snapshots")).unwrap() {
        fs::remove_file(entry.unwrap().path().join("fs/bin/greet")).unwrap();
    }
    fs::remove_file(dist.root().join("content/blobs").join(base)).unwrap();
    fs::rename(dist.path("layout"), dist.path("away")).unwrap();
    let found = check(&dist, " --repair");
    assert_eq!(kinds(&found), ["blob-missing", "tree-changed"]);
    assert!(found.iter().all(|finding| finding["outcome"]["state"] == "remains"), "{found:#?}");
    assert_eq!(found.len(), 4);
    fs::rename(dist.path("away"), dist.path("layout")).unwrap();
    check(&dist, " --repair");
    assert_eq!(check(&dist, ""), [] as [Value; 0]);
}

#[test]
fn a_root_that_cannot_be_written_to_is_checked() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    truncate(&largest_blob(&dist), 7);
    let mount = |arguments: &[&str]| {
        let status = Command::new("mount").args(arguments).arg(dist.root()).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    mount(&["--bind", dist.root().to_str().unwrap()]);
    mount(&["-o", "remount,bind,ro"]);
    let run = dist.run("--progress none --format json fsck");
    assert!(Command::new("umount").arg(dist.root()).status().unwrap().success());
    let found: Vec<Value> = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", run.stderr));
    assert_eq!(kinds(&found), ["blob-size"]);
}
