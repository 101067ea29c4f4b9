//! How much, how fast and how long: rates, deadlines, hosts that limit requests, and signals.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use windlass_core::Platform;
use windlass_testkit::image::{Image, Layer};
use windlass_testkit::registry::{DockerRegistry, Fake, Fault};

use crate::dist::{Dist, Run};
use crate::fixture;

/// Takes the error out of the last line that a command printed on standard error.
#[track_caller]
fn error_of(run: &Run) -> Value {
    let line = run.stderr.lines().last().unwrap_or_else(|| panic!("{run:?}"));
    serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{}", run.stderr))["error"].take()
}

#[test]
fn a_rate_is_kept_within_five_percent_with_a_real_registry() {
    let dist = Dist::new();
    let layers = [Layer::new().file("first", fixture::large()), Layer::new().file("second", fixture::large())];
    let [first, second] = layers;
    let bundle = Image::new(&Platform::host().to_string()).layer(first).layer(second).build();
    bundle.write_layout(&dist.path("layout"), "1").unwrap();
    let registry = DockerRegistry::start();
    registry.push_layout(dist.path("layout"), "app:1");
    let line = |options: &str| format!("--progress none fetch {options}{}/app:1", registry.host());
    let timed = |dist: &Dist, line: &str| {
        let began = Instant::now();
        dist.ok(line);
        began.elapsed().as_secs_f64()
    };
    // What the command costs that has nothing to do with the bytes.
    let alone = timed(&Dist::new(), &line(""));
    #[expect(clippy::cast_precision_loss, reason = "there are some million")]
    let ideal = bundle.size() as f64 / f64::from(3 << 20);
    let limited = timed(&dist, &line("--limit-rate 3MiB "));
    let rate = ideal / limited;
    println!("{limited:.2} s where the rate says {ideal:.2} s; {alone:.2} s without");
    assert!(ideal > 7.0 && alone < ideal / 4.0, "nothing can be measured: {ideal} s, and {alone} s without a limit");
    assert!(rate <= 1.05, "it was faster than it may be: {limited} s for {ideal} s");
    assert!(
        (limited - alone) <= ideal * 1.05,
        "it was slower than it may be: {limited} s for {ideal} s, {alone} s without"
    );
}

#[test]
fn a_rate_holds_for_what_is_sent_too_within_five_percent_with_a_real_registry() {
    let dist = Dist::new();
    let layers = [Layer::new().file("first", fixture::large()), Layer::new().file("second", fixture::large())];
    let [first, second] = layers;
    let bundle = Image::new(&Platform::host().to_string()).layer(first).layer(second).build();
    bundle.write_layout(&dist.path("layout"), "1").unwrap();
    let local = format!("oci:{}:1", dist.path("layout").display());
    dist.ok(&format!("fetch {local}"));
    let timed = |line: &str| {
        let registry = DockerRegistry::start();
        let line = line.replace("REGISTRY", registry.host());
        let began = Instant::now();
        dist.ok(&format!("--progress none {line}"));
        began.elapsed().as_secs_f64()
    };
    // What the command costs that has nothing to do with the bytes.
    let alone = timed(&format!("push REGISTRY/app:1 {local}"));
    #[expect(clippy::cast_precision_loss, reason = "there are some million")]
    let ideal = bundle.size() as f64 / f64::from(3 << 20);
    assert!(ideal > 7.0 && alone < ideal / 4.0, "nothing can be measured: {ideal} s, and {alone} s without a limit");
    let (push, copy) = std::thread::scope(|scope| {
        let push = scope.spawn(|| timed(&format!("push --limit-rate 3MiB --priority low REGISTRY/app:1 {local}")));
        let copy = scope.spawn(|| timed(&format!("copy --limit-rate 3MiB {local} REGISTRY/app:1")));
        (push.join().unwrap(), copy.join().unwrap())
    });
    for (what, limited) in [("push", push), ("copy", copy)] {
        println!("{what}: {limited:.2} s where the rate says {ideal:.2} s; {alone:.2} s without");
        assert!(ideal / limited <= 1.05, "{what} was faster than it may be: {limited} s for {ideal} s");
        assert!(
            (limited - alone) <= ideal * 1.05,
            "{what} was slower than it may be: {limited} s for {ideal} s, {alone} s without"
        );
    }
}

#[test]
fn a_command_that_is_out_of_time_says_so_and_the_next_one_continues() {
    let (dist, slow) = (Dist::new(), fixture::Slow::start());
    let began = Instant::now();
    let run = dist.run(&format!("--format json --progress none pull --timeout 900ms {}", slow.reference()));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let error = error_of(&run);
    assert_eq!((run.code, &error["code"], &error["reason"]), (Some(1), &json!("deadline-exceeded"), &json!("timeout")));
    assert!(error["hint"].as_str().unwrap().contains("continues"), "{error}");
    assert_eq!(dist.json("images ls"), json!([]));
    assert!(dist.json("content active")[0]["offset"].as_u64().unwrap() > 0);
    slow.hurry();
    let pulled = dist.json(&format!("pull {}", slow.reference()));
    assert!(pulled["reused"].as_u64().unwrap() > 0, "{pulled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_registry_that_limits_the_rate_is_waited_for_and_given_up_when_that_takes_too_long() {
    let fake = Fake::start().await;
    fixture::serve(&fake, "a/b", "1", &fixture::bundle());
    let busy = |after: &str| Fault::Answer {
        status: 429,
        headers: vec![("retry-after".to_owned(), after.to_owned())],
        body: "slow down".into(),
    };
    fake.fault_times("/v2/", busy("1"), 2);
    let dist = Dist::new();
    let reference = format!("{}/a/b:1", fake.host());
    let began = Instant::now();
    dist.ok(&format!("fetch {reference}"));
    assert!(began.elapsed() >= Duration::from_secs(2), "it did not wait: {:?}", began.elapsed());

    fake.fault("/v2/", busy("1"));
    let dist = Dist::new();
    let began = Instant::now();
    let run = dist.run(&format!("--format json --progress none fetch --rate-limit-wait 3s {reference}"));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let error = error_of(&run);
    assert_eq!(error["reason"], "rate-limited", "{error}");
    let tried = &error["tried"][0];
    assert_eq!((&tried["host"], &tried["rule"]), (&json!(fake.host()), &json!("named by the reference")));
    assert!(tried["retries"].as_u64().unwrap() >= 1, "{tried}");
    dist.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_push_and_a_copy_are_out_of_time_too() {
    let (dist, fake) = (Dist::new(), Fake::start().await);
    let local = fixture::layout(&dist);
    dist.ok(&format!("fetch --all-platforms {local}"));
    fake.fault("/v2/", Fault::Silence);
    let to = format!("{}/a/b:1", fake.host());
    for line in [format!("push --timeout 700ms {to} {local}"), format!("copy --timeout 700ms {local} {to}")] {
        let began = Instant::now();
        let run = dist.run(&format!("--format json --progress none {line}"));
        assert!(began.elapsed() < Duration::from_secs(5), "{line}: {:?}", began.elapsed());
        assert_eq!((run.code, &error_of(&run)["reason"]), (Some(1), &json!("timeout")), "{line}");
    }
}

#[test]
fn an_interrupt_ends_a_pull_at_once() {
    let (dist, slow) = (Dist::new(), fixture::Slow::start());
    let child = slow.begin(&dist);
    let began = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(dist.json("content active")[0]["offset"].as_u64().unwrap() > 0);
}

/// Starts a command that opens a pipe into which nobody writes: that keeps it for a second after it was interrupted.
fn reading(dist: &Dist) -> std::process::Child {
    let pipe = dist.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.display().to_string();
    let child = dist
        .command(["--progress", "none", "images", "import", &pipe])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it listens for the interrupt: proc(5), a mask of the signals that are caught.
    let status = format!("/proc/{}/status", child.id());
    let listens = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        u64::from_str_radix(&caught, 16).unwrap() & (1 << 1) != 0
    };
    let began = Instant::now();
    while !listens() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not listen for signals");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    child
}

#[test]
fn a_second_interrupt_does_not_wait_for_what_the_first_one_left_running() {
    let time = |interrupts: usize| {
        let dist = Dist::new();
        let mut child = reading(&dist);
        let began = Instant::now();
        for _ in 0..interrupts {
            assert_eq!(child.try_wait().unwrap(), None);
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            std::thread::sleep(Duration::from_millis(150));
        }
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(130), "{interrupts}");
        began.elapsed()
    };
    let (once, twice) = (time(1), time(2));
    println!("{once:?} after one interrupt, {twice:?} after two");
    assert!(once > Duration::from_millis(900), "nothing was left running: {once:?}");
    assert!(twice < Duration::from_millis(800), "{twice:?}");
}
