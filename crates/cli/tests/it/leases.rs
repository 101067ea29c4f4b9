//! Leases: what they hold stays, and one can see for how long.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use windlass_core::{Digest, timestamp};

use crate::dist::Dist;
use crate::fixture;

fn time(value: &Value) -> SystemTime {
    timestamp::deserialize(value).unwrap()
}

#[test]
fn a_lease_is_created_listed_and_removed() {
    let dist = Dist::new();
    assert_eq!(dist.ok("leases create --id build -x 2h team=mine empty="), "build\n");
    let generated = dist.ok("lease create").trim().to_owned();
    dist.ok("l create --expires never --id mirror");

    let listed = dist.json("leases ls");
    let named = |id: &str| listed.as_array().unwrap().iter().find(|lease| lease["id"] == id).unwrap();
    assert_eq!((&named("build")["labels"], &named("build")["resources"]), (&json!({ "team": "mine" }), &json!(0)));
    let lasts = |id: &str| time(&named(id)["expires_at"]).duration_since(time(&named(id)["created_at"])).unwrap();
    assert_eq!(lasts("build"), Duration::from_hours(2));
    assert_eq!(lasts(&generated), Duration::from_hours(24), "as ctr has it");
    assert_eq!(named("mirror")["expires_at"], Value::Null);
    assert_eq!(dist.ok("leases ls -q labels.team==mine id==mirror"), "build\nmirror\n");
    let table = dist.ok("leases list id==build");
    assert!(table.starts_with("ID ") && table.contains("in 1 hour") && table.contains("team=mine"), "{table}");

    let said = dist.run("leases create --id build").failed();
    assert!(said.contains("build"), "{said}");
    assert_eq!(dist.ok(&format!("leases rm build {generated}")), format!("build\n{generated}\n"));
    assert_eq!(dist.ok("leases ls -q"), "mirror\n");
    let said = dist.run("leases rm build").failed();
    assert!(said.contains("build") && said.contains("hint: "), "{said}");
}

#[test]
fn a_lease_whose_label_says_when_it_ends_has_no_other_end() {
    let dist = Dist::new();
    let lease = dist.json("leases create --id x containerd.io/gc.expire=2100-01-01T00:00:00Z");
    assert_eq!(lease["expires_at"], json!("2100-01-01T00:00:00Z"));
    let said = dist.run("leases create containerd.io/gc.expire=soon").failed();
    assert!(said.contains("soon") && said.contains("hint: "), "{said}");
}

#[test]
fn an_ingest_that_a_lease_holds_expires_with_the_last_of_its_leases() {
    let dist = Dist::new();
    let digest = Digest::sha256(b"all of it").to_string();
    let ingest = ["-n", "team", "content", "ingest", "my part", "--expected-digest", &digest, "--expected-size", "9"];
    let mut child = dist.command(ingest).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"all").unwrap();
    assert!(!child.wait().unwrap().success(), "that is not all of it");
    let status = || -> Value {
        let printed = dist.run_with(["-n", "team", "--format", "json", "content", "status", "my part"]).ok();
        serde_json::from_str(&printed).unwrap()
    };
    let resume = format!("dist -n team content ingest 'my part' --expected-digest {digest} --expected-size 9");
    assert_eq!((&status()["resume"], &status()["held_by"]), (&json!(resume), &json!([])));

    let hold = |id: &str, expires: &str| {
        dist.ok(&format!("-n team leases create --id {id} --expires {expires}"));
        dist.run_with(["-n", "team", "leases", "add", id, "ingests/my part"]).ok();
    };
    let day = Duration::from_hours(24);
    hold("short", "1h");
    assert_eq!(time(&status()["expires_at"]), time(&status()["updated_at"]) + day, "not before a day has passed");
    hold("long", "48h");
    let ends = dist.json("-n team leases ls id==long")[0]["expires_at"].clone();
    assert_eq!((&status()["expires_at"], &status()["held_by"]), (&ends, &json!(["long", "short"])));
    hold("endless", "never");
    assert_eq!(status()["expires_at"], Value::Null);
    assert!(dist.ok("-n team content active").contains("never"));
}

#[test]
fn what_a_lease_holds_stays_until_it_is_removed() {
    let dist = Dist::new();
    let digest = dist.feed("content ingest x", b"held").ok().trim().to_owned();
    let resource = format!("content/{digest}");
    dist.ok("leases create --id holder");
    assert_eq!(
        dist.ok(&format!("leases add holder {resource} images/x snapshots/overlayfs/a/b ingests/r")).lines().count(),
        4
    );
    // Nothing but the lease keeps it now.
    dist.ok(&format!("content label {digest} -r a=b"));
    assert_eq!(
        dist.json("leases resources holder"),
        json!([
            { "type": "content", "id": digest },
            { "type": "images", "id": "x" },
            { "type": "ingests", "id": "r" },
            { "type": "snapshots/overlayfs", "id": "a/b" },
        ])
    );
    assert_eq!(dist.json("leases ls")[0]["resources"], json!(4));
    dist.ok("leases remove-resource holder images/x");
    assert!(!dist.ok("leases resources holder").contains("images"));

    dist.ok("leases create --id other");
    dist.ok("leases rm --sync other");
    assert_eq!(dist.ok("content ls -q").trim(), digest, "a collection leaves it");
    assert_eq!(dist.ok("leases rm --sync holder"), "holder\n");
    assert_eq!(dist.json("content ls"), json!([]), "and the one that waits for it has taken it");
    for line in ["leases resources holder", &format!("leases add holder {resource}")] {
        let said = dist.run(line).failed();
        assert!(said.contains("holder"), "{said}");
    }
    let absent = Digest::sha256(b"absent");
    dist.ok("leases create --id early");
    dist.ok(&format!("leases add early content/{absent}"));
}

#[test]
fn an_interrupted_pull_shows_who_may_resume_it_and_until_when() {
    let dist = Dist::new();
    let slow = fixture::Slow::start();
    let mut child = slow.begin(&dist);
    child.kill().unwrap();
    child.wait().unwrap();

    let leases = dist.json("leases ls");
    let lease = &leases[0];
    assert_eq!(
        (leases.as_array().unwrap().len(), &lease["labels"]["windlass.dev/interrupted-pull"]),
        (1, &json!(slow.reference()))
    );
    assert!(dist.ok("leases ls").contains(&format!("interrupted pull of {}", slow.reference())));

    let active = dist.json("content active");
    let ingest = &active[0];
    let large = ingest["ref"].as_str().unwrap();
    assert!(large.starts_with("layer-sha256:"), "{active}");
    assert!(ingest["offset"].as_u64().unwrap() > 0 && ingest["offset"].as_u64() < ingest["total"].as_u64(), "{active}");
    assert_eq!(ingest["held_by"], json!([lease["id"]]));
    assert_eq!(ingest["resume"], json!(format!("dist pull {}", slow.reference())));
    let age = time(&ingest["updated_at"]).duration_since(time(&ingest["started_at"])).unwrap();
    assert!(age < Duration::from_mins(5), "{active}");
    // The lease began with the pull, and the last write came later.
    let day = Duration::from_hours(24);
    assert_eq!(time(&ingest["expires_at"]), time(&ingest["updated_at"]) + day);
    let lease_ends = time(&lease["expires_at"]);
    assert!(lease_ends <= time(&ingest["expires_at"]) && lease_ends > SystemTime::now() + day / 2, "{lease}");
    let held = dist.ok(&format!("leases resources {}", lease["id"].as_str().unwrap()));
    assert!(held.contains(large), "{held}");
    let shown = dist.ok("content active");
    assert!(shown.contains("in 23 hours") && shown.contains(&format!("dist pull {}", slow.reference())), "{shown}");

    slow.hurry();
    let resume = ingest["resume"].as_str().unwrap().strip_prefix("dist ").unwrap();
    let pulled = dist.json(resume);
    assert!(pulled["reused"].as_u64() >= ingest["offset"].as_u64(), "{pulled}");
    assert_eq!((dist.json("content active"), dist.json("leases ls")), (json!([]), json!([])));
}
