//! Servers that are programs, on ports that they do not choose themselves.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);
/// How many ports are tried: another process may take one between our looking and the server's.
const TRIES: usize = 5;

/// A running server in a temporary directory. It is stopped when this is dropped; its log is printed when a test panics.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    pub(super) directory: TempDir,
    pub(super) port: u16,
}

impl Server {
    /// Starts a server: `command` makes what runs in a directory and listens on a port of the loopback.
    pub(super) fn start(command: impl Fn(&TempDir, u16) -> Command) -> Self {
        let mut said = String::new();
        for _ in 0..TRIES {
            let directory = TempDir::new().unwrap();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = command(&directory, port);
            let log = fs::File::create(directory.path().join("stderr")).unwrap();
            let name = command.get_program().to_string_lossy().into_owned();
            let process = command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| panic!("{name} cannot be started ({error}); install its package"));
            let mut server = Self { process, directory, port };
            if server.listens() {
                return server;
            }
            said = server.log();
        }
        panic!("the server does not start:\n{said}");
    }

    /// Waits until it listens; false when it has ended.
    fn listens(&mut self) -> bool {
        let started = Instant::now();
        loop {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            assert!(started.elapsed() < START, "the server does not listen after {START:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns what it has printed.
    pub(super) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("stderr") + &read("error.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _gone = self.process.kill();
        let _status = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of the server at port {}:\n{}", self.port, self.log());
        }
    }
}
