//! The process is killed at any moment, hundreds of times on the same roots, and nothing is lost or left over.

use std::process::Stdio;
use std::time::Duration;

use windlass::{NATIVE, OVERLAYFS};
use windlass_core::Platform;
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::loopback::Memory;
use windlass_testkit::registry::{Fake, Fault, Recorded};

use crate::dist::{Dist, files_below};
use crate::fixture;
use crate::survivor::{Course, Deed, Survivor, end, ends_within, noise};

/// How many processes are killed, or just not, in an ordinary run.
const ROUNDS: usize = 200;
/// After how many rounds a pull is run to its end, and after how many everything is deleted.
const COMPLETE: usize = 10;
const CLEAR: usize = 40;
/// How large the filesystem is, in bytes.
const SIZE: u64 = 64 << 20;

/// How large the layer is that comes in parts, and how large these are.
const LARGE: usize = 48 << 20;
const PART: u64 = 512 << 10;
/// What may have to be sent again after a kill: what was written since the state was saved last, the parts on their way,
/// and what was sent and not received.
const AGAIN: u64 = (4 << 20) + 4 * PART + (2 << 20);

#[test]
fn a_layer_that_comes_in_parts_is_continued_after_each_kill_with_little_sent_twice() {
    let Course { mut random, .. } = Course::of("kill in parts", 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start());
    let bytes = noise(1, LARGE);
    let layer = Layer::new().file("large", bytes.clone()).file("small", "small\n");
    let bundle = Image::new(&Platform::host().to_string()).layer(layer).build();
    fixture::serve(&fake, "in/parts", "1", &bundle);
    let digest = &bundle.image().layers[0].digest;
    let slow = Fault::Trickle { piece: 128 << 10, pause: Duration::from_millis(14) };
    fake.fault(format!("/v2/in/parts/blobs/{digest}"), slow);
    let dist = Dist::new();
    let line = format!("--wait=20s --progress none pull --range-size 512KiB {}/in/parts:1", fake.host());
    let begin = || dist.command(line.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();

    let kills = 3;
    for _ in 0..kills {
        let until = fake.sent() + (11 << 20) + random.below(3 << 20);
        let mut child = begin();
        while fake.sent() < until {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            std::thread::sleep(Duration::from_millis(2));
        }
        end(child);
        let snapshots = files_below(&dist.root().join("snapshots/overlayfs"));
        println!("killed with {} files of snapshots", snapshots.len());
    }
    dist.ok(&line);
    let closed = |request: &Recorded| request.header("range").is_some_and(|range| !range.ends_with('-'));
    assert!(fake.requests().iter().any(closed), "it came in one stream");
    let twice = fake.sent().saturating_sub(bundle.size());
    assert!(twice <= kills * AGAIN, "{twice} bytes were sent twice");
    dist.ok("fsck");
    let files = files_below(&dist.root().join("snapshots/overlayfs/snapshots"));
    let large: Vec<_> = files.iter().filter(|path| path.ends_with("large")).collect();
    assert_eq!(large.len(), 1, "{files:?}");
    assert!(std::fs::read(large[0]).unwrap() == bytes, "the file is another one");
}

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
