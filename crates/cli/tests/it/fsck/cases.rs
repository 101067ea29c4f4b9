//! The kinds of damage: how each is done, and what is found.

use std::fs;
use std::process::Command;

use windlass_core::Digest;

use super::damage::{Scene, flip, truncate};

/// One kind of damage.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) damage: fn(&Scene<'_>),
    /// The kinds of findings.
    pub(crate) found: &'static [&'static str],
    /// Whether an image is affected.
    pub(crate) affects: bool,
    /// Whether the names of images are lost.
    pub(crate) renamed: bool,
}

const fn harm(name: &'static str, found: &'static [&'static str], damage: fn(&Scene<'_>)) -> Case {
    Case { name, damage, found, affects: true, renamed: false }
}

const fn litter(name: &'static str, found: &'static [&'static str], damage: fn(&Scene<'_>)) -> Case {
    Case { name, damage, found, affects: false, renamed: false }
}

const fn amnesia(name: &'static str, found: &'static [&'static str], damage: fn(&Scene<'_>)) -> Case {
    Case { name, damage, found, affects: false, renamed: true }
}

/// Every case.
pub(crate) const CASES: &[Case] = &[
    // Blobs.
    harm("a layer's blob is gone", &["blob-missing"], |scene| {
        fs::remove_file(scene.blob(&scene.layers[1])).unwrap();
    }),
    harm("a layer's blob is shorter", &["blob-size"], |scene| truncate(&scene.blob(&scene.layers[0]), 10)),
    harm("a bit of a layer's blob is flipped", &["blob-digest"], |scene| {
        flip(&scene.blob(&scene.layers[2]), |length| length / 2);
    }),
    harm("a bit of a manifest is flipped", &["blob-digest"], |scene| {
        flip(&scene.blob(&scene.manifest), |length| length / 2);
    }),
    harm("a config is empty", &["blob-size"], |scene| truncate(&scene.blob(&scene.config), 0)),
    litter("a blob without a record", &["blob-unrecorded"], |scene| {
        fs::write(scene.blob(&Digest::sha256(b"stray").to_string()), b"stray").unwrap();
    }),
    litter("a file among blobs", &["foreign-file"], |scene| {
        fs::write(scene.path("content/blobs/sha256/notes.txt"), "mine").unwrap();
    }),
    litter("a database that was never finished", &["temporary-file"], |scene| {
        fs::write(scene.path("meta.redb.new"), "half").unwrap();
    }),
    litter("a small blob that was on its way", &["temporary-file"], |scene| {
        fs::create_dir_all(scene.path("content/small")).unwrap();
        fs::write(scene.path("content/small").join(Digest::sha256(b"small").hex()), "bytes").unwrap();
    }),
    litter("databases that were being rebuilt", &["temporary-file"], |scene| {
        fs::create_dir(scene.path("meta.rebuild")).unwrap();
        fs::write(scene.path("meta.rebuild/meta.redb"), "half").unwrap();
        fs::write(scene.path("snapshots/native/records.redb.new"), "half").unwrap();
    }),
    litter("a power cut after writes without syncs", &["written-without-syncs"], |scene| {
        fs::write(scene.path("unsynced"), "another boot").unwrap();
    }),
    litter("a layer's blob was not kept", &[], |scene| scene.drop_blob(1)),
    harm("a file of a snapshot is gone whose blob was not kept", &["tree-changed"], |scene| {
        scene.drop_blob(1);
        let script = scene.directory(0).join("fs/bin/greet");
        fs::remove_file(script).unwrap();
        scene.drop_blob(0);
    }),
    harm("a snapshot's directory is gone, and no blob was kept", &["directory-missing"], |scene| {
        (0..scene.layers.len()).for_each(|layer| scene.drop_blob(layer));
        fs::remove_dir_all(scene.directory(1)).unwrap();
    }),
    // Ingests.
    litter("an ingest of nobody", &["ingest-unowned"], |scene| {
        let directory = scene.path("content/ingest").join(Digest::sha256(b"nobody").hex());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("data"), b"some bytes").unwrap();
    }),
    litter("an ingest that was given up", &["ingest-abandoned"], |scene| {
        let directory = scene.path("content/ingest").join(Digest::sha256(b"default\0old").hex());
        fs::create_dir_all(&directory).unwrap();
        let owner = r#"{"version":1,"namespace":"default","ref":"old","started_at":"2020-01-01T00:00:00Z"}"#;
        fs::write(directory.join("ref"), format!("{}\n{owner}\n", Digest::sha256(owner.as_bytes()).hex())).unwrap();
        fs::write(directory.join("data"), b"some bytes").unwrap();
        let old = Command::new("touch").args(["-d", "2020-01-01"]).arg(directory.join("data")).arg(&directory).status();
        assert!(old.unwrap().success());
    }),
    // Records.
    harm("the record of a blob is damaged", &["record-damaged"], |scene| {
        scene.records().put("contents", &format!("default {}", scene.layers[0]), b"\x01{\"digest\":");
    }),
    harm("the record of an image is damaged", &["record-damaged"], |scene| {
        scene.records().put("images", &format!("default {}", scene.image), b"\x01nonsense");
    }),
    harm("the record of a snapshot is damaged", &["record-damaged"], |scene| {
        scene.records().put("snapshots", &format!("default overlayfs {}", scene.chain[2]), b"");
    }),
    litter("the record of a namespace is damaged", &["record-damaged"], |scene| {
        scene.records().put("namespaces", "other", b"\x01");
    }),
    harm("a record has the wrong size", &["record-size"], |scene| {
        let key = format!("default {}", scene.layers[0]);
        scene.records().change("contents", &key, |info| info["size"] = 1.into());
    }),
    harm("an image's target has no record", &["target-missing"], |scene| {
        scene.records().remove("contents", &format!("default {}", scene.index));
        scene.records().remove("links", &format!("default content/{}", scene.index));
    }),
    litter("a namespace has no record", &["namespace-unrecorded"], |scene| {
        scene.records().remove("namespaces", "other");
    }),
    litter("a manifest does not keep a layer", &["reference-missing"], |scene| {
        let layer = scene.layers[1].clone();
        scene.records().change("contents", &format!("default {}", scene.manifest), |info| {
            info["labels"].as_object_mut().unwrap().retain(|_, value| *value != layer.as_str());
        });
        scene.records().change("links", &format!("default content/{}", scene.manifest), |links| {
            links["to"].as_array_mut().unwrap().retain(|to| *to != format!("content/{layer}"));
        });
    }),
    // What is derived from records.
    litter("links are gone", &["links-wrong"], |scene| {
        scene.records().remove("links", &format!("default content/{}", scene.manifest));
    }),
    litter("links do not decode", &["links-wrong"], |scene| {
        scene.records().put("links", &format!("default content/{}", scene.index), b"\x01[");
    }),
    litter("links of nothing", &["links-dangling"], |scene| {
        let nothing = Digest::sha256(b"nothing");
        let links =
            format!("\u{1}{{\"root\":false,\"expires_at\":null,\"parent\":null,\"to\":[\"content/{nothing}\"]}}");
        scene.records().put("links", &format!("default content/{nothing}"), links.as_bytes());
    }),
    litter("a child is not listed", &["child-missing"], |scene| {
        let key = format!("default overlayfs {} {}", scene.chain[0], scene.chain[1]);
        scene.records().remove("children", &key);
    }),
    litter("a child that does not exist is listed", &["child-dangling"], |scene| {
        scene.records().put("children", &format!("default overlayfs {} nothing", scene.chain[2]), b"\x01null");
    }),
    litter("a lease that does not exist holds something", &["resource-dangling"], |scene| {
        scene.records().put("resources", &format!("default gone content/{}", scene.index), b"\x01null");
    }),
    // Snapshots, in the store.
    harm("an image's snapshot is gone", &["snapshot-missing"], |scene| {
        let [.., below, top] = scene.chain.as_slice() else { panic!("too few layers") };
        scene.records().remove("snapshots", &format!("default overlayfs {top}"));
        scene.records().remove("children", &format!("default overlayfs {below} {top}"));
        scene.records().remove("links", &format!("default snapshot/overlayfs/{top}"));
    }),
    harm("a snapshot's parent is gone", &["parent-missing"], |scene| {
        scene.records().remove("snapshots", &format!("default overlayfs {}", scene.chain[0]));
    }),
    // Snapshots, in the snapshotter.
    harm("a snapshotter has lost a snapshot", &["directory-unrecorded", "snapshot-lost"], |scene| {
        scene.behind().forget(&scene.chain[2]);
    }),
    harm(
        "a snapshotter has lost a parent",
        &["directory-unrecorded", "inner-parent-missing", "snapshot-lost"],
        |scene| scene.behind().forget(&scene.chain[0]),
    ),
    harm("a snapshotter's record is damaged", &["record-damaged", "snapshot-lost"], |scene| {
        let behind = scene.behind();
        let (_, name) = behind.find(&scene.chain[1]);
        behind.put(&name, b"\x01{");
    }),
    litter("a snapshotter has a snapshot too many", &["directory-missing", "snapshot-unrecorded"], |scene| {
        scene.behind().invent(900, "default/none/stray");
    }),
    litter("a directory is not listed", &["index-wrong"], |scene| {
        let behind = scene.behind();
        let (id, _) = behind.find(&scene.chain[1]);
        behind.forget_id(id);
    }),
    harm("a snapshot's directory is gone", &["directory-missing"], |scene| {
        fs::remove_dir_all(scene.directory(1)).unwrap();
    }),
    harm("a file of a snapshot is gone", &["tree-changed"], |scene| {
        fs::remove_file(scene.directory(0).join("fs/bin/greet")).unwrap();
    }),
    harm("a snapshot is empty", &["tree-changed"], |scene| {
        fs::remove_dir_all(scene.directory(2).join("fs/etc")).unwrap();
    }),
    harm("a file of a snapshot has lost its bytes", &["tree-changed"], |scene| {
        truncate(&scene.directory(0).join("fs/bin/greet"), 0);
    }),
    litter("directories of no snapshot", &["directory-unrecorded"], |scene| {
        for name in ["900", "new-901", "rm-902"] {
            let tree = scene.path("snapshots/overlayfs/snapshots").join(name).join("fs");
            fs::create_dir_all(&tree).unwrap();
            fs::write(tree.join("file"), "bytes").unwrap();
        }
    }),
    litter("a file among snapshots", &["foreign-file"], |scene| {
        fs::write(scene.path("snapshots/overlayfs/snapshots/notes.txt"), "mine").unwrap();
    }),
    // Two kinds at once: the repair of one neither forgets the other nor takes from it what it needs.
    harm(
        "a bit of a layer's blob is flipped, and a directory is not listed",
        &["blob-digest", "index-wrong"],
        |scene| {
            flip(&scene.blob(&scene.layers[2]), |length| length / 2);
            let behind = scene.behind();
            let (id, _) = behind.find(&scene.chain[1]);
            behind.forget_id(id);
        },
    ),
    harm("an image's target has no record anywhere", &["blob-unrecorded", "target-missing"], |scene| {
        for namespace in ["default", "other"] {
            scene.records().remove("contents", &format!("{namespace} {}", scene.index));
            scene.records().remove("links", &format!("{namespace} content/{}", scene.index));
        }
    }),
    harm("an image's snapshot has no record anywhere", &["snapshot-missing", "snapshot-unrecorded"], |scene| {
        let [.., below, top] = scene.chain.as_slice() else { panic!("too few layers") };
        for namespace in ["default", "other"] {
            scene.records().remove("snapshots", &format!("{namespace} overlayfs {top}"));
            scene.records().remove("children", &format!("{namespace} overlayfs {below} {top}"));
            scene.records().remove("links", &format!("{namespace} snapshot/overlayfs/{top}"));
        }
    }),
    harm("a snapshot's parent has no record anywhere", &["parent-missing", "snapshot-unrecorded"], |scene| {
        for namespace in ["default", "other"] {
            scene.records().remove("snapshots", &format!("{namespace} overlayfs {}", scene.chain[0]));
        }
    }),
    harm("an image's record is damaged, and so is its target", &["blob-digest", "record-damaged"], |scene| {
        scene.records().put("images", &format!("default {}", scene.image), b"\x01nonsense");
        flip(&scene.blob(&scene.index), |length| length / 2);
    }),
    harm("a blob's records are damaged, and it is cut off", &["blob-digest", "record-damaged"], |scene| {
        for namespace in ["default", "other"] {
            scene.records().put("contents", &format!("{namespace} {}", scene.layers[0]), b"\x01{\"digest\":");
        }
        truncate(&scene.blob(&scene.layers[0]), 10);
    }),
    harm("a blob's records are damaged, and it is gone", &["blob-missing", "record-damaged"], |scene| {
        for namespace in ["default", "other"] {
            scene.records().put("contents", &format!("{namespace} {}", scene.layers[0]), b"\x01{\"digest\":");
        }
        fs::remove_file(scene.blob(&scene.layers[0])).unwrap();
    }),
    // Mounts.
    litter("a mount that no snapshot keeps", &["mount-stale"], |scene| {
        let target = scene.dist.path("mounted");
        fs::create_dir(&target).unwrap();
        let status = Command::new("mount").arg("--bind").arg(scene.directory(0).join("fs")).arg(&target).status();
        assert!(status.unwrap().success());
    }),
    litter("a view that is not mounted any more", &["view-unmounted"], |scene| {
        let target = scene.dist.path("mounted");
        scene.dist.ok(&format!("images mount {} {}", scene.image, target.display()));
        assert!(Command::new("umount").arg(&target).status().unwrap().success());
    }),
    // Databases.
    amnesia("the database is cut off", &["database-damaged"], |scene| {
        let path = scene.path("meta.redb");
        let length = fs::metadata(&path).unwrap().len();
        truncate(&path, length / 3);
    }),
    amnesia("the database is empty", &["database-damaged"], |scene| truncate(&scene.path("meta.redb"), 0)),
    amnesia("the header of the database is damaged", &["database-damaged"], |scene| {
        flip(&scene.path("meta.redb"), |_| 3);
    }),
    litter("a bit of the database is flipped", &["database-damaged"], |scene| {
        let (path, probe) = (scene.path("meta.redb"), scene.dist.path("probe"));
        let (bytes, name) = (fs::read(&path).unwrap(), scene.image.as_bytes());
        let places = bytes.windows(name.len()).enumerate().filter(|(_, window)| *window == name).map(|(at, _)| at);
        // A page that was given up may have the name too, and nobody minds what happens to that.
        let is_live = |at: &usize| {
            fs::copy(&path, &probe).unwrap();
            flip(&probe, |_| *at);
            let checked = redb::Database::open(&probe).and_then(|mut database| database.check_integrity());
            !matches!(checked, Ok(true))
        };
        let at = places.into_iter().find(is_live).unwrap();
        flip(&path, |_| at);
    }),
    amnesia("the database is gone", &["database-missing"], |scene| {
        fs::remove_file(scene.path("meta.redb")).unwrap();
    }),
    harm("a snapshotter's database is cut off", &["database-damaged", "snapshot-lost"], |scene| {
        truncate(&scene.path("snapshots/overlayfs/records.redb"), 5000);
    }),
    harm("a snapshotter's database is gone", &["database-missing", "snapshot-lost"], |scene| {
        fs::remove_file(scene.path("snapshots/overlayfs/records.redb")).unwrap();
    }),
];
