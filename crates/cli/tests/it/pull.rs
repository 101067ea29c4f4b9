//! Pulls and fetches: what they bring, what they do not bring again, what they say.

use serde_json::{Value, json};
use windlass_testkit::registry::{DockerRegistry, Fake, Fault};

use crate::dist::Dist;
use crate::fixture;

#[test]
fn a_second_pull_downloads_nothing() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    registry.push_layout(fixture::directory(&dist), "a/b:1");
    let reference = format!("{}/a/b:1", registry.host());
    let first = dist.json(&format!("pull {reference}"));
    assert!(first["downloaded"].as_u64().unwrap() > 0);
    for line in [format!("pull {reference}"), format!("fetch {reference}")] {
        let again = dist.json(&line);
        assert_eq!((&again["downloaded"], &again["digest"]), (&json!(0), &first["digest"]), "{line}");
        assert_eq!(again["reused"], first["downloaded"], "{line}");
    }
}

#[test]
fn a_pull_into_another_namespace_downloads_nothing() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    registry.push_layout(fixture::directory(&dist), "a/b:1");
    let reference = format!("{}/a/b:1", registry.host());
    let first = dist.json(&format!("pull {reference}"));
    let again = dist.json(&format!("-n other pull {reference}"));
    assert_eq!((&again["downloaded"], &again["reused"]), (&json!(0), &first["downloaded"]));
}

#[test]
fn a_layer_beyond_the_limits_is_refused_and_nothing_of_it_stays() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let said = dist.run(&format!("--progress none --layer-limits max-entries=4 pull {reference}")).failed();
    assert!(said.contains("more than 4 entries") && said.contains("hint: "), "{said}");
    for line in ["images ls", "snapshots ls"] {
        assert_eq!(dist.json(line), json!([]), "{line}");
    }
    let said = dist.run("--layer-limits max-entries=few images ls").refused();
    assert!(said.contains("max-entries=few"), "{said}");
    dist.ok(&format!("--progress none --layer-limits max-entries=5 pull {reference}"));
}

#[test]
fn layers_that_are_not_kept_are_unpacked_said_and_brought_back() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    registry.push_layout(fixture::directory(&dist), "a/b:1");
    let reference = format!("{}/a/b:1", registry.host());
    dist.ok(&format!("pull --content drop {reference}"));
    let blobs = dist.json("content ls");
    assert_eq!(blobs.as_array().unwrap().len(), 3, "index, manifest and config: {blobs}");
    assert_eq!(dist.json("content active"), json!([]));
    let inspected = dist.ok(&format!("images inspect {reference}"));
    assert_eq!(inspected.matches("not kept  unpacked: overlayfs").count(), 3, "{inspected}");
    let directory = dist.path("mounted");
    dist.ok(&format!("images mount {reference} {}", directory.display()));
    assert_eq!(std::fs::read_to_string(directory.join("etc/greeting")).unwrap(), "hello from above\n");
    dist.ok(&format!("images unmount {}", directory.display()));
    dist.ok("gc");

    let mut again = dist.command(["pull", &reference, "--plan"]);
    assert!(again.env("DIST_CONTENT", "drop").output().unwrap().status.success());
    assert_eq!(dist.json(&format!("pull --content drop {reference}"))["downloaded"], json!(0));
    dist.ok(&format!("fetch {reference}"));
    let inspected = dist.ok(&format!("images inspect {reference}"));
    assert!(!inspected.contains("not kept") && !inspected.contains("  missing  unpacked"), "{inspected}");
    let wrong = dist.run(&format!("pull --content some {reference}"));
    assert_eq!(wrong.code, Some(2));
    dist.ok(&format!("images rm {reference}"));
    dist.assert_empty();
}

#[test]
fn an_image_of_one_namespace_is_not_removed_with_that_of_another() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("pull {reference}"));
    dist.ok(&format!("-n other pull {reference}"));
    dist.ok(&format!("images rm {reference}"));
    assert_eq!(dist.json("images ls"), json!([]));
    assert_eq!(dist.ok("-n other images ls -q").trim(), reference);
    let directory = dist.path("mounted");
    dist.ok(&format!("-n other images mount {reference} {}", directory.display()));
    assert!(directory.join("etc/greeting").exists());
    dist.ok(&format!("-n other images unmount {}", directory.display()));
    dist.ok(&format!("-n other images rm {reference}"));
    dist.assert_empty();
}

#[test]
fn a_plan_says_what_would_be_done_and_does_nothing() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let plan = dist.json(&format!("pull --plan {reference}"));
    assert_eq!(plan["name"], json!(reference));
    assert_eq!(plan["images"].as_array().unwrap().len(), 1);
    let layers = plan["images"][0]["layers"].as_array().unwrap();
    assert_eq!(layers[1]["parent"], layers[0]["chain_id"]);
    let missing =
        |plan: &Value| plan["blobs"].as_array().unwrap().iter().filter(|blob| blob["present"] == false).count();
    assert_eq!(missing(&plan), layers.len());
    let room = &plan["room"];
    assert_eq!((&room["blobs"], &room["verdict"]), (&json!(layers.len()), &json!("fits")));
    assert!(room["places"][0]["needs_bytes"]["at_least"].as_u64() > room["download"].as_u64(), "{room}");
    let table = dist.ok(&format!("pull --plan {reference}"));
    for expected in ["download", "missing", "unpack", "room", " free on "] {
        assert!(table.contains(expected), "{expected:?} in {table}");
    }
    assert_eq!(dist.json("images ls"), json!([]));
    assert_eq!(dist.json("snapshots ls"), json!([]));

    dist.ok(&format!("pull {reference}"));
    assert_eq!(missing(&dist.json(&format!("pull --plan {reference}"))), 0);
}

#[test]
fn a_fetch_brings_content_and_no_snapshots() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let fetched = dist.json(&format!("fetch {reference}"));
    let image = &dist.json("images ls")[0];
    assert_eq!((&image["stored"], &image["size"]), (&fetched["downloaded"], &fetched["downloaded"]));
    assert_eq!(dist.json("snapshots ls"), json!([]));
    assert_eq!(dist.json(&format!("pull {reference}"))["downloaded"], 0);
    assert_ne!(dist.json("snapshots ls"), json!([]));
}

#[test]
fn metadata_is_enough_to_inspect() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    dist.ok(&format!("fetch --metadata-only {reference}"));
    let image = &dist.json("images ls")[0];
    assert!(image["stored"].as_u64().unwrap() < image["size"].as_u64().unwrap(), "{image}");
    assert!(dist.ok(&format!("images inspect {reference}")).contains("command: "));
}

#[test]
fn platforms_are_chosen() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let platforms = || dist.json("images ls")[0]["platforms"].as_array().unwrap().len();
    dist.ok(&format!("fetch --platform {} {reference}", fixture::OTHER));
    let image = &dist.json("images ls")[0];
    assert_eq!(image["platforms"][0]["architecture"], fixture::OTHER.split('/').nth(1).unwrap());
    assert_eq!(platforms(), 1);
    dist.ok(&format!("fetch --all-platforms {reference}"));
    assert_eq!(platforms(), 2);
    let said = dist.run(&format!("fetch --platform linux/mips {reference}")).failed();
    assert!(said.contains("linux/mips") && said.contains(fixture::OTHER) && said.contains("--platform"), "{said}");
}

#[test]
fn one_object_goes_to_standard_output_and_nothing_else_does() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    registry.push_layout(fixture::directory(&dist), "a/b:1");
    let repository = format!("{}/a/b", registry.host());
    let index = dist.run(&format!("fetch-object {repository}:1"));
    assert_eq!((index.code, index.stderr.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_slice(&index.stdout).unwrap();
    let manifest = document["manifests"][0]["digest"].as_str().unwrap();
    let media_type = document["manifests"][0]["mediaType"].as_str().unwrap();
    let manifest = dist.run(&format!("fetch-object {repository} {manifest} --media-type {media_type}"));
    let document: Value = serde_json::from_slice(&manifest.stdout).unwrap();
    for layer in document["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let blob = dist.run(&format!("fetch-object {repository} {digest}"));
        assert_eq!(windlass_core::Digest::sha256(&blob.stdout).to_string(), digest);
    }
    assert!(!dist.root().exists(), "no store was opened");
}

#[test]
fn progress_is_lines_of_json() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let run = dist.run(&format!("--progress json pull {reference}"));
    assert_eq!(run.code, Some(0));
    let lines: Vec<Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = lines.last().unwrap();
    assert_eq!((&end["type"], &end["ok"], &end["reused"]), (&json!("end"), &json!(true), &json!(0)));
    let last = |id: &str| {
        let of = |line: &&Value| line["id"].as_str().is_some_and(|found| found.starts_with(id));
        lines.iter().rev().find(of).unwrap_or_else(|| panic!("{id} in {}", run.stderr))["state"].clone()
    };
    assert_eq!(last(&reference), "resolved");
    assert_eq!(last("index-sha256:"), "done");
    assert_eq!(last("layer-sha256:"), "done");

    let failed = dist.run(&format!("--progress json pull {reference}-absent")).failed();
    let lines: Vec<Value> = failed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [.., end, error] = lines.as_slice() else { panic!("{failed}") };
    assert_eq!((&end["type"], &end["ok"]), (&json!("end"), &json!(false)));
    assert_eq!(error["error"]["code"], "not-found");
}

#[test]
fn progress_is_lines_for_a_log_or_nothing() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let run = dist.run(&format!("pull {reference}"));
    assert!(run.stderr.contains(&format!("{reference}: resolv")), "{}", run.stderr);
    assert!(run.stderr.lines().last().unwrap().starts_with("total: "), "{}", run.stderr);
    let run = dist.run(&format!("--progress none pull {reference}"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn progress_is_bars_on_a_terminal() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let line = format!("{} --root {} pull {reference}", env!("CARGO_BIN_EXE_dist"), dist.root().display());
    // script(1) runs a command on a terminal of its own.
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
    let output = script.env("HOME", dist.path("")).stdin(std::process::Stdio::null()).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    for expected in ["index ", "config ", "layer ", "done  ", "total ", "downloaded, 0 B reused", "\nreused      0 B"] {
        assert!(shown.contains(expected), "{expected:?} in {shown}");
    }
}

#[test]
fn a_user_who_is_not_root_fetches_and_is_told_before_a_pull_downloads() {
    let dist = Dist::new();
    let reference = fixture::layout(&dist);
    let user = dist.as_nobody();
    let said = user(&format!("pull {reference}")).failed();
    assert!(said.contains("needs root") && said.contains("--no-unpack") && said.contains("dist fetch"), "{said}");
    assert!(!dist.root().exists(), "nothing was begun");
    user(&format!("pull --no-unpack {reference}")).ok();
    user(&format!("fetch {reference}")).ok();
    assert_eq!(user("images ls -q").ok().trim(), reference);
    assert!(dist.root().join("windlass/lock").exists(), "the root is in the user's data directory");
    let said = user(&format!("images mount {reference} {}", dist.path("mounted").display())).failed();
    assert!(said.contains("needs root"), "{said}");
}

#[test]
fn a_mirror_that_failed_is_told_although_the_image_came() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mirror = runtime.block_on(Fake::start());
    let (dist, other, registry) = (Dist::new(), Dist::new(), DockerRegistry::start());
    registry.push_layout(format!("{}:1", fixture::directory(&dist).display()), "a/b:1");
    let bundle = fixture::bundle();
    fixture::serve(&mirror, "a/b", "1", &bundle);
    let layer = &bundle.images[0].layers[0].digest;
    mirror.fault(format!("/v2/a/b/blobs/{layer}"), Fault::CorruptByte(20));
    let hosts = dist.path("hosts").join(registry.host());
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), format!("[host.\"{}\"]\n", mirror.url())).unwrap();
    let line = format!("fetch --hosts-dir {} {}/a/b:1", dist.path("hosts").display(), registry.host());

    let run = dist.run(&line);
    let printed = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("WARN") && run.stderr.contains("sends something else for"), "{}", run.stderr);
    let told = printed.lines().find(|line| line.starts_with("failing")).unwrap();
    assert!(told.contains(&mirror.host()) && told.contains("hosts.toml:1") && told.contains("has digest"), "{told}");

    let told = other.json(&line)["passed_over"].take();
    let host = json!(mirror.host());
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(
        (&told[0]["host"], &told[0]["reason"], &told[0]["times"]),
        (&host, &json!("digest-mismatch"), &json!(1))
    );

    let alone = Dist::new().run(&format!("{line} --no-fallback")).failed();
    let tried: Vec<&str> = alone.lines().filter_map(|line| line.strip_prefix("tried: ")).collect();
    assert!(tried.len() == 1 && tried[0].starts_with(&mirror.host()), "{alone}");
}
