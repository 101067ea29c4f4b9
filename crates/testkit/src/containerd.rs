//! Debian's containerd, as a process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;

/// What the daemon is started with: all of it below one directory, and nothing that needs the machine.
fn config(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "version = 2\nroot = \"{directory}/root\"\nstate = \"{directory}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = \"{directory}/sock\"\n[ttrpc]\naddress = \"{directory}/sock.ttrpc\"\n"
    )
}

/// Starts a daemon in a directory that lives as long as this thread, and returns its socket, at which it answers.
pub async fn start(directory: &Path) -> PathBuf {
    let file = directory.join("config.toml");
    tokio::fs::write(&file, config(directory)).await.unwrap();
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let daemon = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "containerd", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("containerd cannot be started ({error}); install the package containerd"));
    // Its end is that of the test; nobody waits for it.
    drop(daemon);
    let socket = directory.join("sock");
    for _ in 0..600 {
        if UnixStream::connect(&socket).await.is_ok() {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("containerd does not answer: {}", tokio::fs::read_to_string(directory.join("log")).await.unwrap());
}
