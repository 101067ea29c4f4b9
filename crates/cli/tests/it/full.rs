//! Disks that are really full, each a small one of its own: while fetching, while unpacking, of files, and when the
//! database commits. What was brought stays, the message has the numbers, and when there is room the pull continues.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use rustix::fs::FallocateFlags;
use serde_json::{Value, json};
use windlass_core::Platform;
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::loopback::Loopback;

use crate::dist::{Dist, Run, files_below};
use crate::fixture;

const MIB: u64 = 1 << 20;

/// A root on a small disk, which somebody else fills and frees.
struct Small {
    dist: Dist,
    disk: Loopback,
}

impl Small {
    fn new(bytes: u64, format: &str) -> Self {
        let dist = Dist::with_root("disk/root");
        let disk = Loopback::mount(&dist.path("disk"), bytes, format, "");
        Self { dist, disk }
    }

    fn filler(&self) -> PathBuf {
        self.disk.path().join("filler")
    }

    /// Leaves so many bytes free.
    fn fill(&self, free: u64) {
        let file = File::create(self.filler()).unwrap();
        let mut length = 0;
        // What a filesystem says is free and what a file can have differ by what describes the file.
        for step in [MIB, 64 << 10, 4 << 10] {
            while self.disk.free() >= free + step
                && rustix::fs::fallocate(&file, FallocateFlags::empty(), length, step).is_ok()
            {
                length += step;
            }
        }
    }

    /// Creates a lease whose record takes several pages of the database.
    fn create(&self, number: usize) -> Run {
        let labels: Vec<String> = (0..8).map(|label| format!("filler-{label}={}", "x".repeat(3500))).collect();
        self.dist.run(&format!("--progress json leases create --id lease-{number} {}", labels.join(" ")))
    }

    /// Creates leases until the database has to grow and cannot: how many there are, and what the last one said.
    fn create_until_it_fails(&self) -> (usize, Run) {
        let failed = (0..400).map(|number| (number, self.create(number))).find(|(_, run)| run.code != Some(0));
        failed.unwrap_or_else(|| panic!("the database did not grow"))
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// Asserts that nothing of a failed pull is visible, and that the next one continues and makes the image whole.
    fn assert_continues(&self, reference: &str, file: &str, bytes: &[u8], size: u64) {
        assert_eq!(self.dist.json("images ls"), json!([]));
        assert_eq!(self.dist.json("snapshots ls kind==active"), json!([]));
        assert_eq!(self.dist.json("leases ls").as_array().unwrap().len(), 1);
        let pulled = self.dist.json(&format!("pull {reference}"));
        let (downloaded, reused) = (pulled["downloaded"].as_u64().unwrap(), pulled["reused"].as_u64().unwrap());
        assert_eq!(downloaded + reused, size, "{pulled}");
        assert!(reused > 0, "{pulled}");
        let directory = self.dist.path("mounted");
        self.dist.ok(&format!("images mount {reference} {}", directory.display()));
        assert!(std::fs::read(directory.join(file)).unwrap() == bytes, "{file} differs");
        self.dist.ok(&format!("images unmount {}", directory.display()));
        self.dist.ok(&format!("images rm {reference}"));
        self.dist.assert_empty();
        assert_eq!(self.dist.json("leases ls"), json!([]));
    }
}

/// Asserts that a command failed because something is used up, and said so in these words.
#[track_caller]
fn assert_full(run: Run, words: &[&str]) {
    let said = run.failed();
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "resource-exhausted", "{said}");
    assert!(["disk-full", "resource-exhausted"].contains(&last["error"]["reason"].as_str().unwrap()), "{said}");
    let message = last["error"]["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{word:?} in {message}");
    }
    assert!(last["error"]["hint"].is_string(), "{said}");
}

#[test]
fn a_pull_that_cannot_fit_is_refused_with_the_numbers() {
    let small = Small::new(24 * MIB, "");
    let slow = fixture::Slow::start();
    slow.hurry();
    let free = format!("are free on {}", small.disk.device());
    let run = small.dist.run(&format!("--progress json pull {}", slow.reference()));
    assert_full(run, &["needs at least 24.0 MiB", "for 2 blobs and 2 layers below", &free]);
    assert_eq!(small.dist.json("content active"), json!([]), "nothing was downloaded");
    let room = &small.dist.json(&format!("pull --plan {}", slow.reference()))["room"];
    assert_eq!(room["verdict"], "too-little", "{room}");
    assert!(small.dist.ok(&format!("pull --plan {}", slow.reference())).contains("too little"));
    // The blobs alone fit.
    small.dist.ok(&format!("fetch {}", slow.reference()));
}

#[test]
fn a_disk_that_somebody_fills_while_a_layer_is_fetched_keeps_what_came() {
    let small = Small::new(64 * MIB, "");
    let slow = fixture::Slow::start();
    let (mut child, said) = slow.begin_and_listen(&small.dist);
    small.fill(0);
    let code = child.wait().unwrap().code();
    let run = Run { code, stdout: Vec::new(), stderr: said.join().unwrap().join("\n") };
    // The layer is written twice at the same time, as it came and unpacked: either may be what finds the disk full.
    let unpacking = run.stderr.lines().last().is_some_and(|error| error.contains("the layer needs 12.0 MiB at least"));
    let words = if unpacking { ["unpack layer", "write"] } else { ["of 12.0 MiB are here, ", "content/ingest"] };
    assert_full(run, &[&words[..], &["are free on", small.disk.device()]].concat());
    small.make_room();
    let active = small.dist.json("content active");
    assert!(active[0]["offset"].as_u64().unwrap() > 2 * MIB, "{active}");
    small.fill(6 * MIB);
    let run = small.dist.run(&format!("--progress json pull {}", slow.reference()));
    assert_full(run, &["needs at least", "are free on"]);
    small.make_room();
    slow.hurry();
    small.assert_continues(&slow.reference(), "large", &fixture::large(), slow.size());
}

#[test]
fn a_disk_that_is_full_while_a_layer_is_unpacked_keeps_the_blobs_and_no_half_tree() {
    let small = Small::new(64 * MIB, "");
    // It compresses so well that nobody could have known.
    let text = "so long and thanks for all the fish\n".repeat(1_000_000);
    let layer = Layer::new().file("long", &text);
    let bundle = Image::new(&Platform::host().to_string()).layer(layer).build();
    let layout = small.dist.path("layout");
    bundle.write_layout(&layout, "1").unwrap();
    let reference = format!("oci:{}:1", layout.display());
    small.dist.ok("images ls");
    small.fill(16 * MIB);
    let run = small.dist.run(&format!("--progress json pull {reference}"));
    assert_full(run, &["the layer needs", "at least and probably", "are free on", small.disk.device(), "long"]);
    let trees = files_below(&small.dist.root().join("snapshots/overlayfs/snapshots"));
    assert_eq!(trees, Vec::<PathBuf>::new(), "what was half-made is gone, while the disk is full");
    small.make_room();
    small.assert_continues(&reference, "long", text.as_bytes(), bundle.size());
}

#[test]
fn a_disk_without_room_for_files_says_so_and_the_pull_continues() {
    let small = Small::new(32 * MIB, "-N 512");
    let layer = (0..300).fold(Layer::new(), |layer, number| layer.file(&format!("file-{number}"), "x"));
    let bundle = Image::new(&Platform::host().to_string()).layer(layer).build();
    let layout = small.dist.path("layout");
    bundle.write_layout(&layout, "1").unwrap();
    let reference = format!("oci:{}:1", layout.display());
    let fillers: Vec<PathBuf> = (0..250).map(|number| small.disk.path().join(format!("filler-{number}"))).collect();
    for filler in &fillers {
        File::create(filler).unwrap();
    }
    let run = small.dist.run(&format!("--progress json pull {reference}"));
    assert_full(run, &["the layer needs", " files are free on", "file-"]);
    for filler in fillers {
        std::fs::remove_file(filler).unwrap();
    }
    small.assert_continues(&reference, "file-299", b"x", bundle.size());
}

#[test]
fn on_a_disk_that_is_full_to_the_last_byte_images_are_listed_and_removed() {
    let small = Small::new(64 * MIB, "");
    let slow = fixture::Slow::start();
    slow.hurry();
    small.dist.ok(&format!("pull {}", slow.reference()));
    small.fill(0);
    assert_eq!(small.dist.ok("images ls -q").trim(), slow.reference());
    small.dist.ok(&format!("images rm {}", slow.reference()));
    small.dist.assert_empty();
    assert!(small.disk.free() > slow.size(), "{} are free", small.disk.free());
}

#[test]
fn a_database_that_cannot_commit_says_so_and_works_again_when_there_is_room() {
    let small = Small::new(32 * MIB, "");
    let dist = &small.dist;
    dist.ok("images ls");
    let reference = fixture::layout(dist);
    small.fill(0);
    // Until the file has to grow, its own free pages suffice.
    let (created, run) = small.create_until_it_fails();
    assert_full(run, &["metadata database"]);
    // Neither does anything else wait for what does not come.
    let began = Instant::now();
    assert_eq!(dist.run(&format!("pull {reference}")).code, Some(1));
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    small.make_room();
    let leases = dist.json("leases ls");
    let named = |lease: &Value| lease["id"].as_str().is_some_and(|id| id.starts_with("lease-"));
    let there = leases.as_array().unwrap().iter().filter(|lease| named(lease)).count();
    assert_eq!(there, created, "what was acknowledged, and no more");
    small.create(1000).ok();
    dist.ok(&format!("pull {reference}"));
}

/// Where blocks are smaller than pages, an allocation can stop in the middle of one.
#[test]
fn a_database_that_finds_room_for_a_part_of_its_growth_opens_again() {
    let small = Small::new(64 * MIB, "-b 1024");
    let dist = &small.dist;
    dist.ok("images ls");
    small.fill(700 << 10);
    let (created, run) = small.create_until_it_fails();
    assert_full(run, &["metadata database"]);
    small.make_room();
    assert_eq!(dist.json("leases ls").as_array().unwrap().len(), created);
    small.create(1000).ok();
}
