//! Blobs: in by standard input, out by standard output.

use std::io::{Read, Write};

use serde_json::json;
use windlass_core::Digest;

use crate::dist::{Dist, Run};

fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

#[test]
fn a_blob_goes_in_and_comes_out() {
    let dist = Dist::new();
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = digest(&bytes);
    assert_eq!(dist.feed("content ingest my-file", &bytes).ok().trim(), digest);

    assert!(dist.run(&format!("content get {digest}")).stdout == bytes, "the same bytes come out");
    let listed = dist.json("content ls");
    assert_eq!((&listed[0]["digest"], &listed[0]["size"]), (&json!(digest), &json!(bytes.len())));
    assert_eq!(dist.json(&format!("content info {digest}")), listed[0]);
    assert_eq!(dist.ok("content ls -q").trim(), digest);
    assert_eq!(dist.json("content active"), json!([]));

    assert_eq!(dist.ok(&format!("content rm {digest}")).trim(), digest);
    let said = dist.run(&format!("content get {digest}")).failed();
    assert!(said.starts_with("dist: ") && said.contains(&digest), "{said}");
}

#[test]
fn an_ingest_that_was_killed_continues_where_it_stopped() {
    let dist = Dist::new();
    let bytes: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = digest(&bytes);
    let line = format!("content ingest part --expected-digest {digest} --expected-size {}", bytes.len());

    let mut child = dist.start(&line);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&bytes[..6 << 20]).unwrap();
    // Everything but the last part was taken out of the pipe by now, so it is on its way into the store.
    std::thread::sleep(std::time::Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();

    let active = dist.json("content active");
    let offset = active[0]["offset"].as_u64().unwrap();
    assert!(offset > 0 && offset <= 6 << 20, "{active}");
    assert_eq!((&active[0]["ref"], &active[0]["total"]), (&json!("part"), &json!(bytes.len())));
    assert_eq!(dist.feed(&line, &bytes).ok().trim(), digest);
    assert_eq!(dist.json("content active"), json!([]));
}

#[test]
fn an_ingest_without_an_expected_digest_begins_anew() {
    let dist = Dist::new();
    let mut child = dist.start("content ingest part");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![1; 3 << 20]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(dist.feed("content ingest part", b"other").ok().trim(), digest(b"other"));
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    let dist = Dist::new();
    let expected = digest(b"right");
    let said = dist.feed(&format!("content ingest x --expected-digest {expected}"), b"wrong").failed();
    assert!(said.contains(&expected), "{said}");
    let said = dist.feed("content ingest x --expected-size 3", b"four").failed();
    assert!(said.contains('3') && said.contains('x'), "{said}");
    let said = dist.feed("content ingest y --expected-size 5", b"four").failed();
    assert!(said.contains('5'), "{said}");
    assert_eq!(dist.json("content ls"), json!([]));
    assert!(!said.contains("panicked"));
}

#[test]
fn a_blob_that_is_here_is_not_read_again() {
    let dist = Dist::new();
    let digest = digest(b"bytes");
    let line = format!("content ingest x --expected-digest {digest}");
    dist.feed(&line, b"bytes").ok();
    assert_eq!(dist.feed(&line, b"").ok().trim(), digest);
    let Run { code, stdout, .. } = dist.feed(&format!("--format json {line}"), b"");
    let printed: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((code, printed), (Some(0), json!({ "digest": digest, "size": 5 })));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_silently() {
    let dist = Dist::new();
    let digest = dist.feed("content ingest x", &vec![7; 8 << 20]).ok();
    let mut child = dist.start(&format!("content get {}", digest.trim()));
    let mut first = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), [].as_slice()));
}

#[test]
fn filters_choose_what_is_listed() {
    let dist = Dist::new();
    let [one, two] = [b"one", b"two"].map(|bytes| dist.feed("content ingest x", bytes).ok().trim().to_owned());
    assert_eq!(dist.ok(&format!("content ls -q digest=={one}")).trim(), one);
    assert_eq!(dist.json(&format!("content ls digest=={one} digest=={two}")).as_array().unwrap().len(), 2);
    assert_eq!(dist.json("content ls digest==none"), json!([]));
    assert_eq!(dist.ok("content ls digest==none"), "DIGEST  SIZE  CREATED  LABELS\n");
}

#[test]
fn errors_are_json_when_data_is() {
    let dist = Dist::new();
    let digest = digest(b"absent");
    for option in ["--format json", "--progress json"] {
        let said = dist.run(&format!("{option} content info {digest}")).failed();
        let document: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(document["error"]["code"], "not-found");
        assert!(document["error"]["message"].as_str().unwrap().contains(&digest));
        assert_eq!(said.lines().count(), 1);
    }
}
