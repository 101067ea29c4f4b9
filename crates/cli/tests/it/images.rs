//! Images from a pull to their removal, with a root filesystem in between.

use std::fs;

use serde_json::{Value, json};
use windlass_core::Platform;

use crate::dist::Dist;
use crate::fixture;

fn host() -> Value {
    serde_json::to_value(Platform::host()).unwrap()
}

#[test]
fn an_image_is_pulled_listed_mounted_and_removed() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);

    let pulled = dist.json(&format!("pull {reference}"));
    assert_eq!((&pulled["name"], &pulled["reused"]), (&json!(reference), &json!(0)));
    assert!(pulled["downloaded"].as_u64().unwrap() > 0, "{pulled}");
    assert_eq!(pulled["digest"], pulled["target"]["digest"]);
    assert_eq!(pulled["snapshots"].as_array().unwrap().len(), 1);

    let listed = dist.json("images ls");
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let image = &listed[0];
    assert_eq!((&image["name"], &image["target"]), (&json!(reference), &pulled["target"]));
    assert_eq!(image["platforms"], json!([host()]));
    assert_eq!(image["size"], image["stored"]);
    assert_eq!(image["stored"], pulled["downloaded"], "only this machine's platform was brought");
    assert_eq!(dist.ok("images ls -q"), format!("{reference}\n"));
    let table = dist.ok("images ls");
    let digest = pulled["digest"].as_str().unwrap();
    assert!(
        table.starts_with("REF") && table.contains(digest) && table.contains(&Platform::host().to_string()),
        "{table}"
    );

    let directory = dist.path("mounted");
    let mount = format!("images mount {reference} {}", directory.display());
    assert_eq!(dist.ok(&mount).trim(), directory.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(fs::read_to_string(directory.join("etc/greeting")).unwrap(), "hello from above\n");
    assert!(!directory.join("etc/removed").exists(), "a whiteout hides it");
    assert_eq!(fs::read_link(directory.join("link")).unwrap().to_str(), Some("etc/greeting"));
    assert!(fs::write(directory.join("new"), "x").is_err(), "it is read-only");
    assert_eq!(dist.ok(&format!("images unmount {}", directory.display())), format!("{}\n", directory.display()));
    assert!(fs::read_dir(&directory).unwrap().next().is_none(), "the directory stays, empty");

    let removed = dist.json(&format!("images rm {reference}"));
    assert_eq!(removed["deleted"], json!([reference]));
    assert_eq!(removed["freed"]["blobs"]["bytes"], image["stored"]);
    assert!(removed["freed"]["snapshots"]["count"].as_u64().unwrap() >= 3, "{removed}");
    dist.assert_empty();
}

#[test]
fn a_mount_outlives_its_image() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let directory = dist.path("mounted");
    fs::create_dir(&directory).unwrap();
    dist.ok(&format!("images mount {reference} {}", directory.display()));
    dist.ok(&format!("images rm {reference}"));
    assert_eq!(fs::read_to_string(directory.join("etc/greeting")).unwrap(), "hello from above\n");
    assert_eq!(dist.json("content ls"), json!([]));
    dist.ok(&format!("images unmount {}", directory.display()));
    dist.assert_empty();
}

#[test]
fn a_directory_is_mounted_on_once_and_unmounted_once() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let directory = dist.path("mounted");
    let (mount, unmount) = (
        format!("images mount {reference} {}", directory.display()),
        format!("images unmount {}", directory.display()),
    );
    dist.ok(&mount);
    let said = dist.run(&mount).failed();
    assert!(said.contains("is a mount point already") && said.contains("hint: "), "{said}");
    let said = dist.run(&format!("-n other {unmount}")).failed();
    assert!(said.contains("-n default images unmount"), "{said}");
    dist.ok(&unmount);
    let said = dist.run(&unmount).failed();
    assert!(said.contains("no image of namespace default is mounted on") && said.contains("hint: "), "{said}");
    let said = dist.run(&format!("images unmount {}/absent", directory.display())).failed();
    assert!(said.contains("No such file"), "{said}");
    // A second round proves that nothing of the first is in the way.
    dist.ok(&mount);
    dist.ok(&unmount);
}

#[test]
fn a_view_without_its_mount_is_in_nobodys_way() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let directory = dist.path("mounted");
    let mount = format!("images mount {reference} {}", directory.display());
    for again in [mount.clone(), format!("images unmount {}", directory.display())] {
        dist.ok(&mount);
        let status = std::process::Command::new("umount").arg(&directory).status().unwrap();
        assert!(status.success(), "as a restart of the machine would");
        dist.ok(&again);
        if again == mount {
            dist.ok(&format!("images unmount {}", directory.display()));
        }
    }
    assert_eq!(dist.json("snapshots ls kind==view"), json!([]));
}

#[test]
fn what_is_not_unpacked_is_not_mounted_and_says_what_to_do() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("fetch {reference}"));
    let directory = dist.path("mounted");
    let said = dist.run(&format!("images mount {reference} {}", directory.display())).failed();
    assert!(said.contains("not unpacked") && said.contains("`dist pull"), "{said}");
    assert!(!directory.exists(), "the directory that was made for it is gone");
    let said = dist.run(&format!("images mount absent {}", directory.display())).failed();
    assert!(said.contains("docker.io/library/absent:latest") && said.contains("hint: "), "{said}");
    let file = dist.path("file");
    fs::write(&file, "").unwrap();
    let said = dist.run(&format!("images mount {reference} {}", file.display())).failed();
    assert!(said.contains("is not a directory"), "{said}");
}

#[test]
fn an_image_is_inspected_as_a_tree() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let report = dist.json(&format!("images inspect {reference}"));
    let manifests = report["tree"]["children"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "both platforms are listed");
    let (here, elsewhere) = (&manifests[0], &manifests[1]);
    assert_eq!((&here["present"], &elsewhere["present"]), (&json!(true), &json!(false)));
    assert_eq!(here["image"]["platform"], host());
    assert_eq!(here["image"]["config"]["Cmd"], json!(["/bin/greet"]));
    let layers = here["image"]["layers"].as_array().unwrap();
    assert_eq!(layers.len() + 1, here["children"].as_array().unwrap().len(), "the config comes before the layers");
    assert!(layers.iter().all(|layer| layer["snapshotters"] == json!(["overlayfs"])), "{layers:?}");

    let text = dist.ok(&format!("images inspect {reference}"));
    for expected in ["├── manifest", "└── manifest", "missing", "unpacked: overlayfs", "command: [\"/bin/greet\"]"]
    {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
}

#[test]
fn several_images_are_removed_together_or_not_at_all() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    let said = dist.run(&format!("images rm {reference} absent")).failed();
    assert!(said.contains("docker.io/library/absent:latest"), "{said}");
    assert_eq!(dist.ok("images ls -q").trim(), reference, "nothing is removed");
    let table = dist.ok(&format!("images rm {reference} {reference}"));
    assert!(table.starts_with("deleted") && table.contains("freed"), "{table}");
    dist.assert_empty();
}

#[test]
fn snapshots_are_listed_shown_and_removed() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let pulled = dist.json(&format!("pull {reference}"));
    let listed = dist.json("snapshots ls");
    let top = listed.as_array().unwrap().iter().find(|snapshot| snapshot["key"] == pulled["snapshots"][0]).unwrap();
    assert_eq!((&top["state"], &top["snapshotter"]), (&json!("committed"), &json!("overlayfs")));

    let directory = dist.path("mounted");
    dist.ok(&format!("images mount {reference} {}", directory.display()));
    let key = dist.json("snapshots ls kind==view")[0]["key"].as_str().unwrap().to_owned();
    assert_eq!(key, format!("mount {}", directory.canonicalize().unwrap().display()));
    let command = dist.run_with(["snapshots", "mounts", &key, "/elsewhere"]).ok();
    assert!(command.starts_with("mount -t overlay overlay /elsewhere -o "), "{command}");

    let parent = top["parent"].as_str().unwrap();
    let said = dist.run(&format!("snapshots rm {parent}")).failed();
    assert!(said.contains(parent), "{said}");
    dist.ok(&format!("images unmount {}", directory.display()));
    assert_eq!(dist.ok(&format!("snapshots rm {}", top["key"].as_str().unwrap())).trim(), top["key"].as_str().unwrap());
}
