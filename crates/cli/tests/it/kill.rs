//! The process is killed at any moment, hundreds of times on the same roots, and nothing is lost or left over.

use windlass::{NATIVE, OVERLAYFS};
use windlass_testkit::loopback::Memory;

use crate::dist::Dist;
use crate::survivor::{Course, Deed, Survivor, end, ends_within};

/// How many processes are killed, or just not, in an ordinary run.
const ROUNDS: usize = 200;
/// After how many rounds a pull is run to its end, and after how many everything is deleted.
const COMPLETE: usize = 10;
const CLEAR: usize = 40;
/// How large the filesystem is, in bytes.
const SIZE: u64 = 64 << 20;

#[test]
fn a_process_that_is_killed_at_any_moment_loses_nothing_and_leaves_nothing() {
    let Course { mut random, rounds } = Course::of("kill", ROUNDS);
    let dist = Dist::with_root("memory/root");
    // A killed process takes nothing from the page cache, so nothing is lost by not having a disk below it.
    let memory = Memory::mount(&dist.path("memory"), SIZE);
    let mut survivor = Survivor::new(dist);
    let mut killed = 0;
    for round in 1..=rounds {
        let deed = survivor.choose(&mut random);
        let time = survivor.patience(deed, &mut random);
        println!("round {round}: {deed:?}, killed after {time:?}");
        let mut child = survivor.begin(deed);
        let ended = ends_within(&mut child, time);
        let output = end(child);
        survivor.ended(deed, &output, ended || output.status.success());
        survivor.check(deed);
        killed += usize::from(!output.status.success());
        if round % COMPLETE == 0 {
            let snapshotter = if round % (2 * COMPLETE) == 0 { NATIVE } else { OVERLAYFS };
            survivor.complete(Deed::Pull(snapshotter));
        }
        if round % CLEAR == 0 {
            survivor.clear();
        }
    }
    println!("{killed} of {rounds} were killed");
    assert!(killed > rounds / 4, "only {killed} of {rounds} were killed");
    survivor.clear();
    drop((survivor, memory));
}
