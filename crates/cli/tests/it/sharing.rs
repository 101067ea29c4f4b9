//! Who gets what another namespace has brought.

use serde_json::{Value, json};

use crate::dist::{Dist, files_below};
use crate::fixture;

/// What two pulls of the same image into two namespaces left and moved.
struct Twice {
    dist: Dist,
    reference: String,
    size: u64,
    blobs: usize,
}

impl Twice {
    /// Pulls an image into the namespace `one`.
    fn begin() -> Self {
        let dist = Dist::new();
        let reference = fixture::layout(&dist);
        let pulled = dist.json(&format!("-n one pull {reference}"));
        let size = pulled["downloaded"].as_u64().unwrap();
        let blobs = files_below(&dist.root().join("content/blobs")).len();
        assert!(size > 0 && blobs > 0);
        Self { dist, reference, size, blobs }
    }

    /// Pulls it into another one, and tells how much of it was downloaded.
    fn pull(&self, options: &str, namespace: &str) -> u64 {
        let pulled = self.dist.json(&format!("{options} -n {namespace} pull {}", self.reference));
        assert_eq!(files_below(&self.dist.root().join("content/blobs")).len(), self.blobs, "bytes are stored once");
        let (moved, reused) = (&pulled["downloaded"], &pulled["reused"]);
        assert_eq!(moved.as_u64().unwrap() + reused.as_u64().unwrap(), self.size, "{pulled}");
        moved.as_u64().unwrap()
    }

    fn snapshots(&self, namespace: &str) -> Vec<Value> {
        self.dist.json(&format!("-n {namespace} snapshots ls")).as_array().unwrap().clone()
    }
}

#[test]
fn a_second_namespace_downloads_nothing_when_content_is_shared_and_everything_when_it_is_isolated() {
    let twice = Twice::begin();
    assert_eq!(twice.pull("--content-sharing shared", "two"), 0);
    assert_eq!(twice.pull("--content-sharing isolated", "three"), twice.size);
    assert_eq!(twice.snapshots("three").len(), twice.snapshots("one").len(), "and unpacks by itself");
    assert_eq!(twice.pull("--content-sharing isolated", "three"), 0, "what it brought itself is here");
    let mounted = twice.dist.path("mounted");
    twice.dist.ok(&format!("-n three images mount {} {}", twice.reference, mounted.display()));
    assert_eq!(std::fs::read_to_string(mounted.join("etc/greeting")).unwrap(), "hello from above\n");
    twice.dist.ok(&format!("-n three images unmount {}", mounted.display()));
    // Each stands by itself.
    twice.dist.ok(&format!("-n one images rm {}", twice.reference));
    twice.dist.ok(&format!("-n two images rm {}", twice.reference));
    assert_eq!(twice.pull("--content-sharing isolated", "three"), 0);
}

#[test]
fn a_namespace_says_by_a_label_whether_others_may_take_over_what_it_has() {
    let twice = Twice::begin();
    let label = |value: &str| twice.dist.ok(&format!("namespaces label one containerd.io/namespace.shareable={value}"));
    label("false");
    assert_eq!(twice.pull("--content-sharing shared", "two"), twice.size);
    // Now the second one has it too, and shares as the policy says.
    assert_eq!(twice.pull("--content-sharing shared", "three"), 0);
    let other = Twice::begin();
    other.dist.ok("namespaces label one containerd.io/namespace.shareable=true");
    assert_eq!(other.pull("--content-sharing isolated", "two"), 0);
}

#[test]
fn the_policy_is_named_by_option_or_environment() {
    let twice = Twice::begin();
    let pull = |namespace: &str, policy: &str| {
        let arguments = ["--format", "json", "-n", namespace, "pull", &twice.reference];
        let output = twice.dist.command(arguments).env("DIST_CONTENT_SHARING", policy).output().unwrap();
        let pulled: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        pulled["downloaded"].clone()
    };
    assert_eq!(pull("two", "isolated"), json!(twice.size));
    assert_eq!(pull("three", ""), json!(0));
    let said = twice.dist.run("--content-sharing some images ls").refused();
    assert!(said.contains("some") && said.contains("isolated"), "{said}");
}
