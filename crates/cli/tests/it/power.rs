//! The power is cut at any moment, really: the filesystem drops whatever was not synced, and replays its journal.

use std::time::Duration;

use windlass::{EROFS, NATIVE, OVERLAYFS};
use windlass_testkit::loopback::Loopback;

use crate::dist::Dist;
use crate::survivor::{Course, Deed, Survivor, end, ends_within};

/// How often the power is cut in an ordinary run.
const ROUNDS: usize = 30;
const ROUNDS_WRITEBACK: usize = 10;
const ROUNDS_NEW: usize = 12;
/// How large the disk is, in bytes.
const SIZE: u64 = 96 << 20;
/// After how many rounds a pull is run to its end, and everything is deleted.
const COMPLETE: usize = 5;

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    cut_the_power("power", ROUNDS, "");
}

#[test]
fn a_filesystem_that_writes_names_before_bytes_loses_nothing_either() {
    cut_the_power("power, data=writeback", ROUNDS_WRITEBACK, "data=writeback");
}

#[test]
fn a_root_whose_first_pull_is_cut_off_can_be_used() {
    let Course { mut random, rounds } = Course::of("power, new roots", ROUNDS_NEW);
    let dist = Dist::with_root("disk/root");
    let (disk, root) = (Loopback::mount(&dist.path("disk"), SIZE, "", "data=writeback"), dist.root());
    let mut survivor = Survivor::new(dist);
    for round in 1..=rounds {
        let deed = Deed::Pull([OVERLAYFS, NATIVE, EROFS][round % 3]);
        let time = survivor.patience(deed, &mut random);
        println!("round {round}: {deed:?}, power cut after {time:?}");
        cut(&disk, &mut survivor, deed, time);
        survivor.clear();
        std::fs::remove_dir_all(&root).unwrap();
        // In this mode ext4 gives away blocks of files whose removal is not durable: a cut would bring them back with the bytes of
        // others.
        std::fs::File::open(root.parent().unwrap()).and_then(|parent| parent.sync_all()).unwrap();
    }
    drop(survivor);
    disk.restore();
}

/// Begins a deed, cuts the power while it is at it, and checks what is left.
fn cut(disk: &Loopback, survivor: &mut Survivor, deed: Deed, time: Duration) {
    let mut child = survivor.begin(deed);
    let ended = ends_within(&mut child, time);
    disk.cut();
    let output = end(child);
    disk.restore();
    survivor.ended(deed, &output, ended);
    survivor.check(deed);
}

fn cut_the_power(name: &str, rounds: usize, options: &str) {
    let Course { mut random, rounds } = Course::of(name, rounds);
    let dist = Dist::with_root("disk/root");
    let disk = Loopback::mount(&dist.path("disk"), SIZE, "", options);
    let mut survivor = Survivor::new(dist);
    for round in 1..=rounds {
        let deed = survivor.choose(&mut random);
        let time = survivor.patience(deed, &mut random);
        println!("round {round}: {deed:?}, power cut after {time:?}");
        cut(&disk, &mut survivor, deed, time);
        if round % COMPLETE == 0 {
            let snapshotter = [OVERLAYFS, NATIVE, EROFS][round / COMPLETE % 3];
            survivor.complete(Deed::Pull(snapshotter));
            survivor.clear();
        }
    }
    // The disk is unmounted when nobody uses it any more.
    drop(survivor);
    disk.restore();
}
