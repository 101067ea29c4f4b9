//! A pull that is killed while a layer comes in parts, and the next one.

use serde_json::Value;

use crate::dist::Dist;
use crate::fixture::Slow;

const MIB: u64 = 1 << 20;
/// How large a part is.
const PART: u64 = 8 * MIB;

/// Returns the offset of the last line that says how far the large layer is.
fn last_offset(lines: &[String]) -> Option<u64> {
    let offsets = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["offset"].as_u64());
    offsets.max()
}

#[test]
fn a_pull_that_is_killed_again_and_again_brings_no_more_than_a_part_again_each_time() {
    let (dist, slow) = (Dist::new(), Slow::in_parts());
    let mut here = 0;
    for kill_at in [3 * MIB, 14 * MIB, 22 * MIB, 37 * MIB] {
        let (mut child, rest) = slow.begin_until(&dist, kill_at.max(here));
        child.kill().unwrap();
        child.wait().unwrap();
        let reached = last_offset(&rest.join().unwrap()).unwrap_or_default().max(kill_at).max(here);
        // It went on between the last line and its end.
        let reached = reached.max(dist.json("content active")[0]["offset"].as_u64().unwrap());
        here = reached.saturating_sub(PART);
    }
    slow.hurry();
    let pulled = dist.json(&format!("pull {}", slow.reference()));
    let (downloaded, reused) = (pulled["downloaded"].as_u64().unwrap(), pulled["reused"].as_u64().unwrap());
    assert_eq!(downloaded + reused, slow.size(), "{pulled}");
    assert!(reused >= here, "{reused} bytes were reused, at least {here} were here");
    assert!(downloaded <= slow.size() - 37 * MIB + PART, "{downloaded} bytes were brought again");
    let look = dist.path("look");
    dist.ok(&format!("images mount {} {}", slow.reference(), look.display()));
    assert_eq!(std::fs::metadata(look.join("large")).unwrap().len(), 48 * MIB);
    dist.ok(&format!("images unmount {}", look.display()));
    assert_eq!(dist.json("content active"), serde_json::json!([]));
}
