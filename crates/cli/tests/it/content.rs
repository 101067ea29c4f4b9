//! Blobs: in by standard input, out by standard output.

use std::io::{Read, Write};

use serde_json::json;
use windlass_core::Digest;

use crate::dist::{Dist, Run, files_below};
use crate::fixture;

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
fn a_kill_costs_at_most_one_checkpoint_of_hashing() {
    let dist = Dist::new();
    let bytes = vec![3; 50 << 20];
    let line = format!("content ingest part --expected-digest {}", digest(&bytes));
    let mut child = dist.start(&line);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&bytes[..45 << 20]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    let file = |name: &str| {
        let files = files_below(&dist.root().join("content/ingest"));
        std::fs::read(files.iter().find(|path| path.ends_with(name)).unwrap()).unwrap()
    };
    let state = String::from_utf8(file("state")).unwrap();
    let state: serde_json::Value = serde_json::from_str(state.lines().nth(1).unwrap()).unwrap();
    let (there, hashed) = (file("data").len() as u64, state["hash"]["offset"].as_u64().unwrap());
    assert!(there > 40 << 20 && hashed > 0 && there - hashed <= 16 << 20, "{hashed} of {there} bytes are hashed");
    assert_eq!(dist.feed(&line, &bytes).ok().trim(), digest(&bytes));
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

#[test]
fn an_ingest_from_a_file_is_continued_without_reading_what_is_here() {
    let dist = Dist::new();
    let bytes: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = digest(&bytes);
    let line = format!("content ingest part --expected-digest {digest}");
    let mut child = dist.start(&line);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&bytes[..6 << 20]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    let offset = dist.json("content status part")["offset"].as_u64().unwrap();
    assert!(offset > 0, "something is here");

    // What is here already is not read: were it, the digest would be wrong.
    let path = dist.path("input");
    let mut rest = vec![0; usize::try_from(offset).unwrap()];
    rest.extend_from_slice(&bytes[rest.len()..]);
    std::fs::write(&path, &rest).unwrap();
    let output = dist.command(line.split(' ')).stdin(std::fs::File::open(&path).unwrap()).output().unwrap();
    assert_eq!(Run::of(output).ok().trim(), digest);
}

#[test]
fn an_input_that_is_shorter_than_before_is_refused_and_the_ingest_stays() {
    let dist = Dist::new();
    let bytes = vec![7; 3 << 20];
    let line = format!("content ingest part --expected-digest {} --expected-size {}", digest(&bytes), bytes.len());
    let said = dist.feed(&line, &bytes[..2 << 20]).failed();
    assert!(said.contains("ended after 2097152 of 3145728 bytes") && said.contains("hint: "), "{said}");
    let said = dist.feed(&line, &bytes[..1 << 20]).failed();
    assert!(said.contains("ended after 1048576 of 3145728 bytes") && said.contains("hint: "), "{said}");
    assert_eq!(dist.json("content status part")["offset"], json!(2 << 20));
    assert_eq!(dist.feed(&line, &bytes).ok().trim(), digest(&bytes));
}

#[test]
fn an_ingest_says_where_it_stands_how_to_resume_it_and_until_when() {
    let dist = Dist::new();
    let bytes = vec![1; 2 << 20];
    let expected = digest(&bytes);
    let line = format!("content ingest my-part --expected-digest {expected} --expected-size {}", bytes.len());
    dist.feed(&line, &bytes[..1 << 20]).failed();

    let status = dist.json("content status my-part");
    assert_eq!(
        (&status["ref"], &status["offset"], &status["total"]),
        (&json!("my-part"), &json!(1 << 20), &json!(2 << 20))
    );
    assert_eq!((&status["expected"], &status["held_by"]), (&json!(expected), &json!([])));
    assert_eq!(status["resume"], json!(format!("dist {line}")), "the very command");
    let time = |field: &str| humantime(&status[field]);
    assert_eq!(time("expires_at").duration_since(time("updated_at")).unwrap().as_secs(), 24 * 3600);
    assert_eq!(dist.json("content active"), json!([status]));

    let shown = dist.ok("content status my-part");
    assert!(shown.contains("1.0 MiB/2.0 MiB") && shown.contains("in 23 hours"), "{shown}");
    assert!(dist.ok("content active").contains(&format!("dist {line}")));
    let said = dist.run("content status other").failed();
    assert!(said.contains("other") && said.contains("content active"), "{said}");

    assert_eq!(dist.ok("content abort my-part"), "my-part\n");
    assert_eq!(dist.json("content active"), json!([]));
    let said = dist.run("content abort my-part").failed();
    assert!(said.contains("my-part") && said.contains("hint: "), "{said}");
}

fn humantime(time: &serde_json::Value) -> std::time::SystemTime {
    windlass_core::timestamp::deserialize(time).unwrap()
}

#[test]
fn labels_are_set_removed_and_replaced() {
    let dist = Dist::new();
    let digest = dist.feed("content ingest x", b"bytes").ok().trim().to_owned();
    let root = dist.json(&format!("content info {digest}"))["labels"].clone();
    let label = |changes: &str| dist.json(&format!("content label {digest} {changes}"))["labels"].clone();
    let mut all = root.clone();
    all["a.b/c"] = json!("1=2");
    all["d"] = json!("3");
    assert_eq!(label("a.b/c=1=2 d=3"), all);
    assert_eq!(label("d="), {
        all.as_object_mut().unwrap().remove("d");
        all
    });
    assert_eq!(label("absent="), dist.json(&format!("content info {digest}"))["labels"]);
    assert_eq!(label("-r only=this gone="), json!({ "only": "this" }));
    assert_eq!(dist.ok(&format!("content label {digest} more=1")), "more=1,only=this\n");
    assert_eq!(dist.ok("content ls -q labels.more==1").trim(), digest);
    assert_eq!(label("--replace-all"), json!({}));
    let absent = Digest::sha256(b"absent");
    let said = dist.run(&format!("content label {absent} a=b")).failed();
    assert!(said.contains(&absent.to_string()), "{said}");
}

#[test]
fn a_blob_is_edited_into_another_one() {
    let dist = Dist::new();
    let old = dist.feed("content ingest x", br#"{"a":1}"#).ok().trim().to_owned();
    let child = Digest::sha256(b"child");
    dist.ok(&format!("content label {old} containerd.io/gc.ref.content.l.0={child} other=1"));
    let edit =
        |editor: &str, more: &[&str]| dist.run_with([&["content", "edit", "--editor", editor, &old], more].concat());

    let new = edit("sed -i s/1/23/", &[]).ok().trim().to_owned();
    assert_eq!(dist.ok(&format!("content get {new}")), r#"{"a":23}"#);
    assert_eq!(dist.ok(&format!("content get {old}")), r#"{"a":1}"#, "the one that was edited stays");
    let labels = dist.json(&format!("content info {new}"))["labels"].clone();
    assert_eq!(labels["containerd.io/gc.ref.content.l.0"], json!(child.to_string()), "it refers to the same");
    assert!(labels["containerd.io/gc.root"].is_string() && labels["other"].is_null(), "{labels}");

    assert_eq!(edit("sed -i s/1/23/", &[]).ok().trim(), new, "the same again is no error");
    assert_eq!(edit("true", &[]).ok().trim(), old, "nothing changed, nothing stored");
    let said = edit("false", &[]).failed();
    assert!(said.contains("false") && said.contains("hint: "), "{said}");
    assert_eq!(dist.json("content ls").as_array().unwrap().len(), 2);
    assert_eq!(dist.json("content active"), json!([]));
}

#[test]
fn an_edited_blob_that_is_refused_is_not_lost() {
    let dist = Dist::new();
    let old = dist.feed("content ingest x", br#"{"a":1}"#).ok().trim().to_owned();
    let mut command = dist.command(["content", "edit", "--validate", "json", "--editor", "truncate -s 3", &old]);
    let temporary = dist.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let said = Run::of(command.env("TMPDIR", &temporary).output().unwrap()).failed();
    let kept = files_below(&temporary);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(said.contains("JSON") && said.contains(kept[0].to_str().unwrap()), "{said}");
    assert_eq!(std::fs::read(&kept[0]).unwrap(), br#"{"a"#);
    assert_eq!(dist.json("content ls").as_array().unwrap().len(), 1);
}

#[test]
fn what_was_edited_is_kept_when_the_root_cannot_be_opened_any_more() {
    let dist = Dist::new();
    let old = dist.feed("content ingest x", b"1").ok().trim().to_owned();
    let root = dist.root().display().to_string();
    let script = dist.path("editor");
    std::fs::write(&script, format!("echo changed > $1; rm -rf {root}; touch {root}\n")).unwrap();
    let editor = format!("sh {}", script.display());
    let mut command = dist.command(["content", "edit", "--editor", &editor, &old]);
    let temporary = dist.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let said = Run::of(command.env("TMPDIR", &temporary).output().unwrap()).failed();
    let kept = files_below(&temporary);
    assert!(kept.len() == 1 && said.contains(kept[0].to_str().unwrap()) && said.contains(&root), "{said}");
    assert_eq!(std::fs::read(&kept[0]).unwrap(), b"changed\n");
}

#[test]
fn the_editor_is_the_one_that_the_environment_names() {
    let dist = Dist::new();
    let old = dist.feed("content ingest x", b"1").ok().trim().to_owned();
    let edit = |variables: &[(&str, &str)]| {
        let mut command = dist.command(["content", "edit", &old]);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let new = Run::of(output).ok();
        dist.ok(&format!("content get {}", new.trim()))
    };
    assert_eq!(edit(&[("EDITOR", "sed -i s/1/editor/")]), "editor");
    assert_eq!(edit(&[("EDITOR", "sed -i s/1/editor/"), ("VISUAL", "sed -i s/1/visual/")]), "visual");
    assert_eq!(edit(&[("EDITOR", "sed -i s/1/editor/"), ("VISUAL", "")]), "editor");
}

#[test]
fn the_root_is_free_while_somebody_edits() {
    let dist = Dist::new();
    let old = dist.feed("content ingest x", b"1").ok().trim().to_owned();
    let list = format!("{} --root {} content ls -q >", env!("CARGO_BIN_EXE_dist"), dist.root().display());
    let new = dist.run_with(["content", "edit", "--editor", &list, &old]).ok();
    assert_eq!(dist.ok(&format!("content get {}", new.trim())).trim(), old);
}

#[test]
fn bytes_that_are_here_are_kept_by_another_ingest_of_them() {
    let dist = Dist::new();
    dist.ok(&format!("pull {}", fixture::layout(&dist)));
    let digest = dist.ok("content ls -q").lines().next().unwrap().to_owned();
    let bytes = dist.run(&format!("content get {digest}")).stdout;
    let file = dist.path("input");
    std::fs::write(&file, &bytes).unwrap();
    let from_file = || {
        let input = std::fs::File::open(&file).unwrap();
        Run::of(dist.command(["content", "ingest", "again"]).stdin(input).output().unwrap())
    };
    assert_eq!(from_file().ok().trim(), digest);
    assert_eq!(from_file().ok().trim(), digest);
    let labels = &dist.json(&format!("content info {digest}"))["labels"];
    assert!(labels["containerd.io/gc.root"].is_string(), "{labels}");
    let said = dist.feed("content ingest again", &bytes).failed();
    assert!(said.contains("already") && said.contains("--expected-digest"), "{said}");
    assert_eq!(dist.feed(&format!("content ingest again --expected-digest {digest}"), &bytes).ok().trim(), digest);
}
