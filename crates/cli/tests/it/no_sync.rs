//! Writing without waiting for the disk.

use std::fs;

use crate::dist::Dist;
use crate::fixture;

#[test]
fn what_was_pulled_without_syncs_is_made_durable_by_the_next_command_with_them() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let marker = dist.root().join("unsynced");
    dist.ok(&format!("--no-sync pull {reference}"));
    assert!(marker.exists());
    assert_eq!(dist.json("--no-sync images ls").as_array().unwrap().len(), 1, "a process that ended loses nothing");
    assert!(marker.exists());
    assert_eq!(dist.json("images ls").as_array().unwrap().len(), 1);
    assert!(!marker.exists());
}

#[test]
fn after_a_restart_every_command_warns_until_a_repair() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("--no-sync pull {reference}"));
    fs::write(dist.root().join("unsynced"), "another boot").unwrap();
    for _ in 0..2 {
        let said = dist.run("images ls").stderr;
        assert!(said.contains("written without syncs") && said.contains("dist fsck"), "{said}");
    }
    assert_eq!(dist.run("fsck").code, Some(1));
    dist.ok("fsck --repair");
    dist.ok("fsck");
    assert!(!dist.root().join("unsynced").exists());
}
