//! `dist daemon` as a process, with Debian's `ctr` as its client.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::dist::{Dist, Run, bare};

/// A daemon, killed when a test ends early.
struct Daemon {
    child: Child,
    socket: PathBuf,
    /// How long it took until it was ready.
    ready: Duration,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Starts one and waits until it says by sd_notify that it is ready.
    fn start(dist: &Dist) -> Self {
        Self::start_with(dist, &[])
    }

    fn start_with(dist: &Dist, more: &[&str]) -> Self {
        let notify = dist.path("notify");
        let _ = std::fs::remove_file(&notify);
        let listener = UnixDatagram::bind(&notify).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let socket = dist.path("run/w.sock");
        let mut command = dist.command(["daemon", "--state"]);
        command.arg(dist.path("state")).arg("--address").arg(&socket).args(more);
        let began = Instant::now();
        let child = command.env("NOTIFY_SOCKET", &notify).stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self { child, socket, ready: Duration::ZERO };
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        daemon.ready = began.elapsed();
        daemon
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn ctr(&self, line: &str) -> Run {
        let mut command = Command::new("ctr");
        Run::of(command.arg("--address").arg(&self.socket).args(line.split(' ')).stdin(Stdio::null()).output().unwrap())
    }

    /// Returns how many files it has open.
    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Sends a signal, and returns the exit code, what was logged, and how long it took.
    fn end(mut self, signal: Signal) -> (Option<i32>, String, Duration) {
        let began = Instant::now();
        kill_process(self.pid(), signal).unwrap();
        let code = self.child.wait().unwrap().code();
        let mut logged = String::new();
        for line in BufReader::new(self.child.stderr.take().unwrap()).lines() {
            logged.push_str(&(line.unwrap() + "\n"));
        }
        (code, logged, began.elapsed())
    }
}

#[test]
fn a_daemon_is_ready_within_a_second_answers_ctr_and_stops_in_order() {
    let dist = Dist::new();
    let daemon = Daemon::start(&dist);
    assert!(daemon.ready < Duration::from_secs(1), "{:?}", daemon.ready);
    daemon.ctr("namespaces create team a=b").ok();
    assert!(daemon.ctr("namespaces ls -q").ok().lines().any(|name| name == "team"));
    daemon.ctr("namespaces label team a=c").ok();
    assert!(daemon.ctr("namespaces ls").ok().contains("a=c"));
    let socket = daemon.socket.clone();
    let (code, logged, took) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0), "{logged}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    for said in ["ready after", "SIGTERM: stopping", "stopped"] {
        assert!(logged.contains(said), "{said} is not in\n{logged}");
    }
    assert!(!socket.exists());
    let daemon = Daemon::start(&dist);
    assert!(daemon.ctr("namespaces ls").ok().contains("a=c"), "it is there after a restart");
    daemon.ctr("namespaces rm team").ok();
    assert_eq!(daemon.end(Signal::INT).0, Some(0));
}

#[test]
fn a_second_signal_stops_at_once_and_a_hangup_does_not() {
    let dist = Dist::new();
    let daemon = Daemon::start(&dist);
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    daemon.ctr("namespaces create x").ok();
    let (_, logged, _) = daemon.end(Signal::TERM);
    assert!(logged.contains("SIGHUP changes nothing"), "{logged}");
}

#[test]
fn a_root_that_a_daemon_has_says_where_it_answers() {
    let dist = Dist::new();
    let daemon = Daemon::start(&dist);
    dist.ok("images ls");
    let second = dist.run_with(["daemon", "--address", dist.path("other.sock").to_str().unwrap()]).failed();
    assert!(second.contains("is in use by process"), "{second}");
    assert!(second.contains(&format!("which answers at {}", daemon.socket.display())), "{second}");
    let mut command = bare();
    command.arg("--root").arg(dist.path("root2")).arg("daemon").arg("--address").arg(&daemon.socket);
    command.arg("--state").arg(dist.path("state"));
    let said = Run::of(command.output().unwrap()).failed();
    assert!(said.contains("is in use: process") && said.contains("hint: "), "{said}");
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_daemon_is_killed_under_load() {
    let dist = Dist::new();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let daemon = Arc::new(Daemon::start(&dist));
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (daemon, stop) = (daemon.clone(), stop.clone());
                std::thread::spawn(move || {
                    let mut done = Vec::new();
                    for number in 0.. {
                        let name = format!("r{round}-c{client}-n{number}");
                        if daemon.ctr(&format!("namespaces create {name}")).code != Some(0)
                            || stop.load(Ordering::Relaxed)
                        {
                            return done;
                        }
                        done.push(name);
                    }
                    done
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700));
        kill_process(daemon.pid(), Signal::KILL).unwrap();
        stop.store(true, Ordering::Relaxed);
        acknowledged.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
    }
    assert!(!acknowledged.is_empty());
    let daemon = Daemon::start(&dist);
    let there = daemon.ctr("namespaces ls -q").ok();
    let there: Vec<&str> = there.lines().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?} of {} are lost", acknowledged.len());
}

#[test]
fn clients_that_come_and_go_leave_no_file_open() {
    let dist = Dist::new();
    let daemon = Daemon::start(&dist);
    daemon.ctr("namespaces ls").ok();
    std::thread::sleep(Duration::from_millis(200));
    let before = daemon.files();
    for _ in 0..60 {
        daemon.ctr("namespaces ls").ok();
    }
    for _ in 0..50 {
        if daemon.files() <= before {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(daemon.files() <= before, "{} files are open, {before} were", daemon.files());
}

#[test]
fn the_configuration_is_printed_checked_and_migrated() {
    let dist = Dist::new();
    let default = dist.ok("daemon config default");
    let file = dist.path("config.toml");
    std::fs::write(&file, &default).unwrap();
    let path = file.display();
    assert!(dist.ok(&format!("daemon config check {path}")).contains("nothing is wrong"));
    std::fs::write(&file, "[grpc]\nadress = \"/x\"\n").unwrap();
    let said = dist.run(&format!("daemon config check {path}")).failed();
    assert!(
        said.contains("config.toml:2: nobody knows the key grpc.adress") && said.contains("did you mean grpc.address?"),
        "{said}"
    );
    let said = dist.run(&format!("daemon --config {path}")).failed();
    assert!(said.contains("grpc.adress"), "a daemon does not start with it: {said}");
    std::fs::write(&file, "version = 2\nroot = \"/c\"\noom_score = 1\n[grpc]\naddress = \"/run/c.sock\"\n").unwrap();
    let migrated = dist.run(&format!("daemon config migrate {path}"));
    assert!(migrated.stderr.contains("oom_score means nothing here"), "{}", migrated.stderr);
    let ours = migrated.ok();
    assert!(ours.contains("root = \"/c\"") && ours.contains("address = \"/run/c.sock\""), "{ours}");
    std::fs::write(&file, ours).unwrap();
    let dumped = dist.ok(&format!("daemon config dump --config {path} --address /run/d.sock"));
    assert!(dumped.contains("address = \"/run/d.sock\""), "flags go before files: {dumped}");
}

#[test]
fn what_the_configuration_says_holds() {
    let dist = Dist::new();
    let file = dist.path("config.toml");
    std::fs::write(&file, "disabled_plugins = [\"io.containerd.grpc.v1.namespaces\"]\n[debug]\nlevel = \"debug\"\n")
        .unwrap();
    let daemon = Daemon::start_with(&dist, &["--config", file.to_str().unwrap()]);
    let said = daemon.ctr("namespaces ls");
    assert!(said.code != Some(0) && said.stderr.contains("not implemented"), "{said:?}");
    let (_, logged, _) = daemon.end(Signal::TERM);
    assert!(logged.contains("plugin io.containerd.grpc.v1.namespaces is left out: it is disabled"), "{logged}");
    assert!(logged.contains("DEBUG"), "{logged}");
}

#[test]
fn a_root_whose_blobs_are_behind_a_socket_is_used_by_commands_too_while_somebody_answers_there() {
    let (front, behind) = (Dist::new(), Dist::new());
    let file = front.path("config.toml");
    let config = format!(
        "disabled_plugins = [\"io.containerd.content.v1.content\"]\n\
         [proxy_plugins.blobs]\ntype = \"content\"\naddress = {:?}\n",
        behind.path("run/w.sock")
    );
    std::fs::write(&file, config).unwrap();
    let served = Daemon::start(&behind);
    let daemon = Daemon::start_with(&front, &["--config", file.to_str().unwrap()]);
    front.feed("content ingest key", b"of the daemon").ok();
    let listed = front.ok("plugins ls");
    assert!(listed.lines().any(|line| line.contains("io.containerd.content.v1") && line.contains("blobs")), "{listed}");
    daemon.end(Signal::TERM);

    let digest = windlass_core::Digest::sha256(b"of the daemon");
    assert_eq!(front.ok(&format!("content get {digest}")), "of the daemon");
    front.feed("content ingest other", b"of a command").ok();
    assert_eq!(front.ok("fsck"), "nothing is wrong\n");
    let blobs = front.root().join("content/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
    assert_eq!(behind.ok("-n windlass content ls -q").lines().count(), 2);
    served.end(Signal::TERM);

    for line in ["fsck".to_owned(), format!("content get {digest}")] {
        let said = front.run(&line);
        assert!(said.code == Some(1) && said.stderr.contains("content store blobs at"), "{line}: {said:?}");
        assert!(said.stderr.contains("hint: see to who answers at"), "{line}: {said:?}");
    }
}
