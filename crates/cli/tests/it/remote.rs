//! The command on a daemon, ours and Debian's containerd: it says what it says on a root.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use windlass_core::Digest;

use crate::archives::Containerd;
use crate::dist::{Dist, Run, bare};
use crate::fixture;

/// A daemon that has a root, for as long as the value lives.
pub(crate) struct Daemon {
    process: Child,
    pub(crate) socket: PathBuf,
    /// What it said of a panic, which no client and no load may cause.
    panics: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts one on the root of a test, and returns when it says that it is ready.
    pub(crate) fn start(dist: &Dist) -> Self {
        Self::configured(dist, "")
    }

    /// Does the same with more in its configuration.
    pub(crate) fn configured(dist: &Dist, more: &str) -> Self {
        let (socket, configuration) = (dist.path("run/windlass.sock"), dist.path("daemon.toml"));
        // It collects when it is asked to, as a command on a root does.
        let own = "[gc]\nschedule_delay = \"1h\"\nstartup_delay = \"0s\"\n";
        std::fs::write(&configuration, format!("{more}{own}")).unwrap();
        let mut command = dist.command(["daemon", "--state"]);
        command.arg(dist.path("state")).arg("--address").arg(&socket).arg("--config").arg(&configuration);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said: Vec<String> = lines.by_ref().take_while(|line| !line.contains("ready after")).collect();
        assert!(socket.exists(), "{said:?}");
        let panics = Arc::new(Mutex::new(Vec::new()));
        let heard = panics.clone();
        // The rest has to be read, or the daemon would wait for it.
        std::thread::spawn(move || {
            lines.filter(|line| line.contains("panicked at")).for_each(|line| heard.lock().unwrap().push(line));
        });
        Self { process, socket, panics }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Returns how many files it has open.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) {
        self.process.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            assert_eq!(*self.panics.lock().unwrap(), Vec::<String>::new(), "the daemon panicked");
        }
    }
}

/// Runs a command line on what is at an address.
pub(crate) fn at(socket: &Path, line: &str) -> Run {
    let words = line.split(' ');
    Run::of(bare().arg("--address").arg(socket).args(words).stdin(Stdio::null()).output().unwrap())
}

/// What a run shows, without what differs between two of them: times, and the directory of the test.
fn shown(dist: &Dist, run: &Run) -> String {
    let directory = dist.path("").display().to_string();
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    let printed = match serde_json::from_str::<Value>(&printed) {
        Ok(mut document) => {
            without_times(&mut document);
            document.to_string()
        }
        Err(_) => printed,
    };
    // A daemon says as well which call it was that failed.
    let said = run.stderr.replace("dist: write one: ", "dist: ");
    without_numbers(&format!("{:?}\n{printed}\n{said}", run.code).replace(&directory, "DIR/"))
}

/// Leaves out which number the directory of a snapshot has.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("/snapshots/");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "/snapshots/" + part.trim_start_matches(|it: char| it.is_ascii_digit()))
}

fn without_times(value: &mut Value) {
    match value {
        Value::String(text) if humantime_like(text) => *text = "TIME".into(),
        Value::Array(values) => values.iter_mut().for_each(without_times),
        Value::Object(fields) => {
            for measured in ["marking", "pause", "longest_pause"] {
                fields.remove(measured);
            }
            fields.values_mut().for_each(without_times);
        }
        _ => {}
    }
}

fn humantime_like(text: &str) -> bool {
    windlass_core::timestamp::deserialize(&json!(text)).is_ok()
}

/// Runs what a user does with content, images, leases and namespaces, and returns each command line with what it showed.
fn session(dist: &Dist) -> Vec<(String, String)> {
    let mut transcript = Vec::new();
    let reference = fixture::layout(dist);
    let (one, two) = (Digest::sha256(b"one"), Digest::sha256(b"two"));
    let archive = dist.path("out.tar").display().to_string();
    for (line, input) in [
        ("content ingest one", &b"one"[..]),
        (&format!("content ingest two --expected-digest {two} --expected-size 3"), b"two"),
        ("content ingest one", b"one"),
        (&format!("content ingest part --expected-digest {} --expected-size 3", Digest::sha256(b"all")), b"al"),
    ] {
        let run = dist.feed(line, input);
        transcript.push((line.to_owned(), shown(dist, &run)));
    }
    for line in [
        format!("content get {one}"),
        format!("content get {}", Digest::sha256(b"absent")),
        format!("--format json content info {one}"),
        format!("--format json content label {one} a=b"),
        "content ls -q labels.a==b".to_owned(),
        "--format json content ls".to_owned(),
        "--format json content active".to_owned(),
        "--format json content status part".to_owned(),
        "content abort part".to_owned(),
        "content abort part".to_owned(),
        format!("content rm {two}"),
        format!("--progress none --format json fetch {reference}"),
        "images ls -q".to_owned(),
        "--format json images ls".to_owned(),
        format!("--format json images inspect {reference}"),
        format!("--progress none --format json images export {archive} {reference}"),
        format!("--progress none --format json -n other images import --no-unpack {archive}"),
        "--format json -n other images ls".to_owned(),
        "images inspect absent".to_owned(),
        format!("--format json why {reference}"),
        format!("--format json why {one}"),
        "leases create --id build -x 2h team=mine".to_owned(),
        "leases create --id build".to_owned(),
        format!("leases add build content/{one} images/x"),
        "--format json leases resources build".to_owned(),
        "--format json leases ls".to_owned(),
        "leases rm --sync build".to_owned(),
        "leases rm build".to_owned(),
        "namespaces create team a=b".to_owned(),
        "namespaces create team".to_owned(),
        "namespaces label team a=c".to_owned(),
        "--format json namespaces ls".to_owned(),
        "namespaces rm other".to_owned(),
        "namespaces rm team".to_owned(),
        format!("content label {one} -r a=b"),
        "--format json gc --plan".to_owned(),
        "--format json gc".to_owned(),
        "gc --plan".to_owned(),
        format!("--format json images rm {reference}"),
        format!("images rm {reference}"),
        "content ls -q".to_owned(),
    ] {
        let run = dist.run(&line);
        transcript.push((line, shown(dist, &run)));
    }
    transcript
}

#[test]
fn commands_say_on_a_daemon_what_they_say_on_a_root() {
    let (embedded, served) = (Dist::new(), Dist::new());
    let _daemon = Daemon::start(&served);
    let (ours, theirs) = (session(&embedded), session(&served));
    let mut different = Vec::new();
    for ((line, alone), (_, by_daemon)) in ours.iter().zip(&theirs) {
        if alone != by_daemon {
            different.push(format!("$ dist {line}\n--- on a root\n{alone}\n--- on a daemon\n{by_daemon}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    assert!(ours.iter().filter(|(_, shown)| shown.starts_with("Some(0)")).count() > 25, "most of them succeed");
    let archive = |dist: &Dist| {
        let directory = dist.path("").display().to_string();
        String::from_utf8_lossy(&std::fs::read(dist.path("out.tar")).unwrap()).replace(&directory, "DIR/")
    };
    assert!(archive(&embedded) == archive(&served), "the archives differ");
}

/// Where what a line shows is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Same {
    /// On a root and on a daemon of ours.
    Ours,
    /// On Debian's containerd as well.
    Everywhere,
}

/// Runs what a user does with images and snapshots, and returns each command line with what it showed; `run` says where.
fn images_and_snapshots(dist: &Dist, run: &dyn Fn(&str) -> Run) -> Vec<(Same, String, String)> {
    let reference = fixture::layout(dist);
    let pulled = run(&format!("--progress none --format json pull --snapshotter native {reference}")).ok();
    let pulled: Value = serde_json::from_str(&pulled).unwrap();
    let top = pulled["snapshots"][0].as_str().unwrap().to_owned();
    let (app, zstd) = ("registry.test/app:1", "registry.test/app:zstd");
    let native = "--snapshotter native";
    let mut transcript = Vec::new();
    for (same, line) in [
        (Same::Everywhere, format!("images tag {reference} {app}")),
        (Same::Ours, format!("images tag {reference} {app}")),
        (Same::Everywhere, format!("images tag --force {reference} {app}")),
        (Same::Everywhere, format!("images label {app} team=mine")),
        (Same::Everywhere, format!("--format json images check {native} name=={app}")),
        (Same::Everywhere, format!("images check -q {native}")),
        (Same::Ours, format!("--format json images usage {native} {app}")),
        (Same::Everywhere, format!("--progress none --format json images convert --compression zstd {app} {zstd}")),
        (Same::Everywhere, format!("--format json images inspect {zstd}")),
        (Same::Everywhere, format!("--progress none images convert {app} {zstd}")),
        (Same::Everywhere, format!("snapshots ls -q {native}")),
        (Same::Everywhere, format!("snapshots tree {native}")),
        (Same::Ours, format!("snapshots prepare {native} -t /mnt --label a=b work {top}")),
        (Same::Everywhere, format!("--format json snapshots label {native} work c=d")),
        (Same::Ours, format!("--format json snapshots info {native} work")),
        (Same::Ours, format!("snapshots info {native} absent")),
        (Same::Ours, format!("--format json snapshots diff {native} --keep work")),
        (Same::Everywhere, format!("snapshots commit {native} done work")),
        (Same::Ours, format!("snapshots view {native} look done")),
        (Same::Everywhere, format!("snapshots tree {native}")),
        (Same::Everywhere, format!("snapshots rm {native} look")),
        (Same::Everywhere, format!("snapshots rm {native} done")),
        (Same::Everywhere, format!("--progress none snapshots unpack {native} {zstd}")),
        (Same::Everywhere, format!("snapshots unpack {native} absent")),
        (Same::Everywhere, format!("--format json images check {native} name=={zstd}")),
        (Same::Ours, "--format json images prune --all".to_owned()),
        (Same::Everywhere, "images ls -q".to_owned()),
    ] {
        let shown = shown(dist, &run(&line));
        transcript.push((same, line, shown));
    }
    transcript
}

#[test]
fn images_and_snapshots_are_worked_on_in_the_same_words_everywhere() {
    let (embedded, served, foreign) = (Dist::new(), Dist::new(), Dist::new());
    let _daemon = Daemon::start(&served);
    let containerd = Containerd::start(&foreign);
    let alone = images_and_snapshots(&embedded, &|line| embedded.run(line));
    let by_daemon = images_and_snapshots(&served, &|line| served.run(line));
    let by_containerd = images_and_snapshots(&foreign, &|line| at(Path::new(&containerd.socket), line));
    let mut different = Vec::new();
    for ((same, line, alone), (by_daemon, by_containerd)) in alone.iter().zip(by_daemon.iter().zip(&by_containerd)) {
        if *alone != by_daemon.2 {
            different.push(format!("$ dist {line}\n--- on a root\n{alone}\n--- on a daemon\n{}", by_daemon.2));
        }
        if *same == Same::Everywhere && *alone != by_containerd.2 {
            different.push(format!("$ dist {line}\n--- on a root\n{alone}\n--- on containerd\n{}", by_containerd.2));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    assert!(alone.iter().filter(|(_, _, shown)| shown.starts_with("Some(0)")).count() > 20, "most of them succeed");
}

#[test]
fn an_ingest_that_was_cut_off_is_continued_on_a_daemon() {
    let dist = Dist::new();
    let _daemon = Daemon::start(&dist);
    let bytes = vec![7; 3 << 20];
    let line = format!("content ingest part --expected-digest {} --expected-size {}", digest(&bytes), bytes.len());
    let said = dist.feed(&line, &bytes[..2 << 20]).failed();
    assert!(said.contains("ended after 2097152 of 3145728 bytes"), "{said}");
    assert_eq!(dist.json("content status part")["offset"], json!(2 << 20));
    assert_eq!(dist.feed(&line, &bytes).ok().trim(), digest(&bytes));
    assert_eq!(dist.run(&format!("content get {}", digest(&bytes))).stdout, bytes);
}

fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

#[test]
fn an_address_is_an_option_or_a_variable_and_a_root_goes_before_the_variable() {
    let dist = Dist::new();
    dist.ok("namespaces create before");
    let daemon = Daemon::start(&dist);
    let line = ["namespaces", "ls", "-q"];
    assert_eq!(at(&daemon.socket, "namespaces ls -q").ok(), "before\n");
    let scheme = format!("unix://{}", daemon.socket.display());
    assert_eq!(at(Path::new(&scheme), "namespaces ls -q").ok(), "before\n");
    let by_variable = bare().env("CONTAINERD_ADDRESS", &daemon.socket).args(line).output().unwrap();
    assert_eq!(Run::of(by_variable).ok(), "before\n");
    // Where nobody listens, which is not asked.
    let with_root = dist.command(line).env("CONTAINERD_ADDRESS", dist.path("nowhere")).output().unwrap();
    assert_eq!(Run::of(with_root).ok(), "before\n");
    let said = dist.run_with(["--address", "/x", "namespaces", "ls"]).failed();
    assert!(said.contains("--root does not go with --address") && said.contains("hint: "), "{said}");
    assert_eq!(dist.ok("--wait namespaces ls -q"), "before\n", "a daemon is not waited for");
}

#[test]
fn what_is_for_the_daemon_to_decide_is_refused() {
    let dist = Dist::new();
    let daemon = Daemon::start(&dist);
    for (run, option) in [
        (at(&daemon.socket, "--no-sync images ls"), "--no-sync"),
        (at(&daemon.socket, "--content-sharing shared images ls"), "--content-sharing"),
        (at(&daemon.socket, "--wait images ls"), "--wait"),
        (dist.run("--no-sync images ls"), "--no-sync"),
        (dist.run("--content-sharing isolated images ls"), "--content-sharing"),
    ] {
        let said = run.failed();
        assert!(said.contains(option) && said.contains("daemon") && said.contains("hint: "), "{said}");
    }
}

#[test]
fn nobody_at_an_address_and_one_that_is_not_open_to_a_user_are_told_apart() {
    let dist = Dist::new();
    let nowhere = dist.path("nowhere.sock");
    let said = at(&nowhere, "images ls").failed();
    assert!(said.contains("nobody listens at") && said.contains(nowhere.to_str().unwrap()), "{said}");
    assert!(said.contains("hint: `dist daemon`"), "{said}");
    let daemon = Daemon::start(&dist);
    let nobody = dist.as_nobody();
    let said = nobody(&format!("--address {} images ls", daemon.socket.display())).failed();
    assert!(said.contains("may not connect") && said.contains("hint: "), "{said}");
}

#[test]
fn a_root_is_worked_on_by_the_command_again_when_its_daemon_is_gone() {
    let dist = Dist::new();
    let mut daemon = Daemon::start(&dist);
    dist.ok("namespaces create one");
    kill_process(daemon.pid(), Signal::KILL).unwrap();
    daemon.process.wait().unwrap();
    dist.ok("namespaces create two");
    let mut daemon = Daemon::start(&dist);
    assert_eq!(dist.ok("namespaces ls -q"), "one\ntwo\n");
    let waiting = dist.start("--wait fsck");
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill_process(daemon.pid(), Signal::TERM).unwrap();
    assert!(daemon.process.wait().unwrap().success());
    assert!(waiting.wait_with_output().unwrap().status.success(), "who waits has it when the daemon has stopped");
    assert_eq!(dist.ok("namespaces ls -q"), "one\ntwo\n");
}

#[test]
fn containerd_of_debian_is_worked_on_for_what_it_offers() {
    let dist = Dist::new();
    let containerd = Containerd::start(&dist);
    let socket = PathBuf::from(&containerd.socket);
    let run = |line: &str| at(&socket, line);
    let json = |line: &str| -> Value { serde_json::from_str(&run(&format!("--format json {line}")).ok()).unwrap() };
    let file = dist.path("input");
    let bytes = fixture::large();
    std::fs::write(&file, &bytes).unwrap();
    let input = std::fs::File::open(&file).unwrap();
    let ingest = bare().arg("-a").arg(&socket).args(["content", "ingest", "x"]).stdin(input).output().unwrap();
    let stored = Run::of(ingest).ok().trim().to_owned();
    assert_eq!(stored, digest(&bytes));
    assert!(run(&format!("content get {stored}")).stdout == bytes);
    assert_eq!(json("content ls")[0]["digest"], json!(stored));
    assert_eq!(containerd.ctr(&["content", "ls", "-q"]).ok().trim(), stored);

    let reference = fixture::layout(&dist);
    run(&format!("--progress none fetch {reference}")).ok();
    assert_eq!(run("images ls -q").ok(), format!("{reference}\n"));
    assert_eq!(containerd.ctr(&["images", "ls", "-q"]).ok(), format!("{reference}\n"));
    assert_eq!(json(&format!("images inspect {reference}"))["name"], json!(reference));
    let lease = run("leases create --id build a=b").ok();
    assert_eq!(lease, "build\n");
    assert!(containerd.ctr(&["leases", "ls", "-q"]).ok().contains("build"));
    run("leases rm build").ok();
    run("namespaces create team a=b").ok();
    assert!(containerd.ctr(&["namespaces", "ls"]).ok().contains("a=b"));
    run("namespaces rm team").ok();
    for line in ["gc", "gc --plan", &format!("why {stored}")] {
        let said = run(line).failed();
        assert!(
            said.contains("over this connection") && said.contains("hint: the daemon collects by itself"),
            "{said}"
        );
    }
    run(&format!("--progress none pull --snapshotter native {reference}")).ok();
    assert_eq!(run("snapshots ls -q --snapshotter native").ok().lines().count(), 3);
    assert_eq!(run("fsck").ok(), "nothing is wrong\n");
    assert_eq!(containerd.ctr(&["snapshots", "--snapshotter", "native", "ls"]).ok().lines().count(), 4, "and a header");
    let directory = dist.path("mounted");
    run(&format!("images mount --snapshotter native {reference} {}", directory.display())).ok();
    let greeting = std::fs::read_to_string(directory.join("etc/greeting"));
    run(&format!("images unmount {}", directory.display())).ok();
    assert_eq!(greeting.unwrap(), "hello from above\n");
    run(&format!("images rm {reference}")).ok();
    assert_eq!(run("images ls -q").ok(), "");
    assert_eq!(run("snapshots ls -q --snapshotter native").ok(), "");
}

#[test]
fn an_image_is_pulled_mounted_and_removed_on_a_daemon() {
    let (dist, alone) = (Dist::new(), Dist::new());
    let _daemon = Daemon::start(&dist);
    let reference = fixture::layout(&dist);
    let pulled = dist.json(&format!("--progress none pull {reference}"));
    assert!(pulled["downloaded"].as_u64().unwrap() > 0, "{pulled}");
    let keys = |dist: &Dist| {
        let mut keys: Vec<String> = dist.ok("snapshots ls -q").lines().map(str::to_owned).collect();
        keys.sort();
        keys
    };
    alone.ok(&format!("pull {}", fixture::layout(&alone)));
    assert_eq!(keys(&dist), keys(&alone));
    assert_eq!(keys(&dist).len(), 3);
    let directory = dist.path("mounted");
    dist.ok(&format!("images mount {reference} {}", directory.display()));
    let greeting = std::fs::read_to_string(directory.join("etc/greeting"));
    dist.ok(&format!("images unmount {}", directory.display()));
    assert_eq!(greeting.unwrap(), "hello from above\n");
    let removed = dist.json(&format!("images rm {reference}"));
    assert_eq!(removed["freed"]["snapshots"]["count"], json!(3), "{removed}");
    dist.assert_empty();
}

#[test]
fn what_happens_on_a_daemon_is_printed_as_it_happens() {
    let dist = Dist::new();
    let said = dist.run("events").failed();
    assert!(said.contains("no daemon has root") && said.contains("hint: `dist daemon`"), "{said}");
    let _daemon = Daemon::start(&dist);
    let mut watches = [dist.start("events namespace"), dist.start("--format json events topic~=create")];
    std::thread::sleep(std::time::Duration::from_secs(1));
    dist.ok("namespaces create team a=b");
    let bytes = dist.feed("content ingest x", b"bytes").ok();
    let mut lines = watches.each_mut().map(|watch| BufReader::new(watch.stdout.take().unwrap()).lines());
    let table: Vec<String> = lines[0].by_ref().take(2).map(Result::unwrap).collect();
    let created = " +0000 UTC team /namespaces/create {\"labels\":{\"a\":\"b\"},\"name\":\"team\"}";
    assert!(table[0].ends_with(created), "{table:?}");
    assert!(table[1].contains("default /content/create ") && table[1].contains(bytes.trim()), "{table:?}");
    let event: Value = serde_json::from_str(&lines[1].next().unwrap().unwrap()).unwrap();
    assert_eq!((&event["topic"], &event["namespace"]), (&json!("/content/create"), &json!("default")), "{event}");
    assert_eq!(event["event"], json!({ "digest": bytes.trim(), "size": 5 }));
    for mut watch in watches {
        watch.kill().unwrap();
        watch.wait().unwrap();
    }
}

#[test]
fn the_plugins_of_a_daemon_are_listed() {
    let dist = Dist::new();
    let containerd = Containerd::start(&dist);
    let daemon = Daemon::start(&dist);
    for socket in [daemon.socket.as_path(), Path::new(&containerd.socket)] {
        let listed = at(socket, "plugins ls").ok();
        let native =
            listed.lines().find(|line| line.starts_with("io.containerd.snapshotter.v1") && line.contains("native"));
        assert!(native.is_some_and(|line| line.ends_with("ok")), "{listed}");
        let one = at(socket, "--format json plugins ls id==native").ok();
        let one: Value = serde_json::from_str(&one).unwrap();
        assert_eq!((&one[0]["status"], one.as_array().unwrap().len()), (&json!("ok"), 1), "{one}");
        let details = at(socket, "plugins ls -d id==native").ok();
        assert!(details.contains("capabilities") && details.contains("status"), "{details}");
    }
}
