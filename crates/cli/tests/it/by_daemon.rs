//! Pulls that a daemon carries out itself: they say and show what those on a root do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use windlass_testkit::registry::DockerRegistry;

use crate::archives::Containerd;
use crate::dist::{Dist, Run};
use crate::fixture::{self, Slow};
use crate::remote::{Daemon, at};

/// What is in the debug log when this process does what a daemon does not.
const BY_ITSELF: &str = "is brought by this process and not by the daemon";

fn served(dist: &Dist, registry: &DockerRegistry) -> String {
    registry.push_layout(fixture::directory(dist), "a/b:1");
    format!("{}/a/b:1", registry.host())
}

/// Returns the last line of progress of every object, and the end, without times and rates.
fn progress(run: &Run) -> BTreeMap<String, Value> {
    let lines = run.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut last = BTreeMap::new();
    for mut line in lines {
        let fields = line.as_object_mut().unwrap();
        for measured in ["elapsed_ms", "rate", "stalled_ms"] {
            fields.remove(measured);
        }
        let of = fields.get("id").or(fields.get("type")).map_or_else(|| "error".to_owned(), ToString::to_string);
        // How often totals come is the clock's.
        if of != "\"totals\"" {
            last.insert(of, line);
        }
    }
    last
}

#[test]
fn a_pull_by_a_daemon_says_and_shows_what_one_on_a_root_does() {
    let (alone, by_daemon, registry) = (Dist::new(), Dist::new(), DockerRegistry::start());
    let _daemon = Daemon::start(&by_daemon);
    let reference = served(&alone, &registry);
    let absent = format!("{}/a/b:absent", registry.host());
    for line in [
        format!("pull --no-unpack {reference}"),
        format!("fetch --metadata-only --platform {} {reference}", fixture::OTHER),
        format!("pull {reference}"),
        format!("pull {reference}"),
        format!("pull --snapshotter native {reference}"),
        format!("pull --snapshotter absent {reference}"),
        format!("-n other pull --content drop --max-concurrent-downloads 1 {reference}"),
        format!("-n third fetch --all-platforms {reference}"),
        format!("-n third pull --platform linux/mips {reference}"),
        format!("pull {absent}"),
        format!("fetch {absent}"),
    ] {
        let line = format!("--progress json --format json {line}");
        let (ours, theirs) = (alone.run(&line), by_daemon.run(&line));
        assert_eq!(ours.code, theirs.code, "{line}: {} {}", ours.stderr, theirs.stderr);
        assert_eq!(String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&theirs.stdout), "{line}");
        assert_eq!(progress(&ours), progress(&theirs), "{line}");
        assert!(by_daemon.run(&format!("--log-level debug {line}")).stderr.lines().all(|it| !it.contains(BY_ITSELF)));
        assert_eq!(by_daemon.json("leases ls"), json!([]), "{line}");
    }
    for line in ["images ls -q", "content ls -q", "-n other content ls -q", "-n third content ls -q"] {
        assert_eq!(alone.ok(line), by_daemon.ok(line), "{line}");
    }
    for snapshotter in ["overlayfs", "native"] {
        let keys = |dist: &Dist| {
            let listed = dist.ok(&format!("snapshots ls -q --snapshotter {snapshotter}"));
            let mut keys: Vec<String> = listed.lines().map(str::to_owned).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&alone), keys(&by_daemon), "{snapshotter}");
    }
}

#[test]
fn what_a_daemon_is_configured_for_holds_unless_the_command_line_says_otherwise() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    let reference = served(&dist, &registry);
    let _daemon = Daemon::configured(&dist, "[content]\nlayers = \"drop\"\n");
    let kept = |namespace: &str| dist.json(&format!("-n {namespace} content ls")).as_array().unwrap().len();
    dist.ok(&format!("-n one pull {reference}"));
    assert_eq!(kept("one"), 3, "index, manifest and config");
    dist.ok(&format!("-n two pull --content keep {reference}"));
    assert_eq!(kept("two"), 6);
}

#[test]
fn a_mirror_of_the_daemon_that_failed_is_told_although_the_image_came() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    let reference = served(&dist, &registry);
    let hosts = dist.path("hosts").join(registry.host());
    std::fs::create_dir_all(&hosts).unwrap();
    // Nobody listens there.
    std::fs::write(hosts.join("hosts.toml"), "[host.\"http://127.0.0.1:9\"]\n").unwrap();
    let _daemon =
        Daemon::configured(&dist, &format!("[registry]\nhosts_dirs = [\"{}\"]\n", dist.path("hosts").display()));
    for line in [format!("pull {reference}"), format!("-n other fetch {reference}")] {
        let told = dist.json(&line)["passed_over"].take();
        assert_eq!(
            (&told[0]["host"], &told[0]["reason"]),
            (&json!("127.0.0.1:9"), &json!("connection-refused")),
            "{told}"
        );
    }
}

#[test]
fn the_credentials_are_those_of_the_user_and_not_of_the_daemon() {
    let (alone, by_daemon, registry) = (Dist::new(), Dist::new(), DockerRegistry::start_with_password());
    let _daemon = Daemon::start(&by_daemon);
    let reference = served(&alone, &registry);
    let (user, password) = registry.credentials().unwrap();
    let file = alone.path("config.json");
    let both = |config: Value| {
        std::fs::write(&file, config.to_string()).unwrap();
        [&alone, &by_daemon].map(|dist| {
            let line = format!("--progress none --format json pull --no-unpack {reference}");
            let mut command = dist.command(line.split(' '));
            Run::of(command.env("DOCKER_CONFIG", file.parent().unwrap()).output().unwrap())
        })
    };
    let auth = |password: &str| json!({ "auths": { registry.host(): { "username": user, "password": password } } });
    for config in [json!({}), auth("wrong")] {
        let [ours, theirs] = both(config).map(Run::failed);
        assert!(ours.contains("unauthenticated"), "{ours}");
        assert_eq!(ours, theirs);
    }
    // Something that only the command can know.
    let failed = both(json!({ "credHelpers": { registry.host(): "of-nobody" } })).map(Run::failed);
    // Each is warned as well, at its own time.
    let [ours, theirs] = failed.map(|said| said.lines().last().unwrap_or_default().to_owned());
    assert!(ours.contains("of-nobody"), "{ours}");
    assert_eq!(ours, theirs);
    let [ours, theirs] = both(auth(password)).map(Run::ok);
    assert_eq!(ours, theirs);
}

#[test]
fn an_interrupt_stops_the_daemon_s_pull_and_the_next_one_continues() {
    let (dist, slow) = (Dist::new(), Slow::start());
    let _daemon = Daemon::start(&dist);
    let child = slow.begin(&dist);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    // The daemon settles: what was brought is kept for the next pull, and nothing is half-made.
    let began = Instant::now();
    let lease = loop {
        let leases = dist.json("leases ls");
        match leases.as_array().unwrap().as_slice() {
            [one] if one["labels"].get("windlass.dev/interrupted-pull").is_some() => break one.clone(),
            _ => assert!(began.elapsed() < Duration::from_secs(10), "{leases}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(lease["labels"]["windlass.dev/interrupted-pull"], json!(slow.reference()));
    assert_eq!(dist.json("snapshots ls kind==active"), json!([]));
    let active = dist.json("content active");
    let here = active[0]["offset"].as_u64().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(dist.json("content active")[0]["offset"].as_u64(), Some(here), "it still arrives");
    slow.hurry();
    let pulled = dist.json(&format!("pull {}", slow.reference()));
    assert!(pulled["reused"].as_u64().unwrap() >= here, "{pulled}, {here} were here");
    assert_eq!(dist.json("leases ls"), json!([]));
    assert_eq!(dist.json("content active"), json!([]));
}

#[test]
fn what_a_daemon_does_not_do_is_done_by_the_command_which_says_so_to_who_asks() {
    let (dist, registry) = (Dist::new(), DockerRegistry::start());
    let daemon = Daemon::start(&dist);
    let reference = served(&dist, &registry);
    let layout = fixture::layout(&dist);
    let debug = |socket: &std::path::Path, line: &str| {
        let run = at(socket, &format!("--progress none --log-level debug {line}"));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr
    };
    assert!(!debug(&daemon.socket, &format!("fetch {reference}")).contains(BY_ITSELF));
    let said = debug(&daemon.socket, &format!("fetch {layout}"));
    assert!(said.contains(BY_ITSELF) && said.contains("no registry's"), "{said}");
    let said = debug(&daemon.socket, &format!("fetch --max-connections-per-host 2 {reference}"));
    assert!(said.contains(BY_ITSELF), "{said}");
    let without = Dist::new();
    let disabled = "disabled_plugins = [\"io.containerd.grpc.v1.transfer\"]\n";
    let less = Daemon::configured(&without, disabled);
    assert!(debug(&less.socket, &format!("pull {reference}")).contains(BY_ITSELF));
    let containerd = Containerd::start(&dist);
    let socket = std::path::PathBuf::from(&containerd.socket);
    assert!(debug(&socket, &format!("pull --snapshotter native {reference}")).contains(BY_ITSELF));
    assert_eq!(at(&socket, "images ls -q").ok().trim(), reference);
}
