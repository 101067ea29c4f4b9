//! The command as a user runs it: the real binary, on a root of its own, without the user's environment.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A directory with everything that a test leaves behind.
pub(crate) struct Dist {
    directory: tempfile::TempDir,
    root: &'static str,
}

/// What a run of the command did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Dist {
    pub(crate) fn new() -> Self {
        Self::with_root("root")
    }

    /// Has the engine's root at a path within the test's directory.
    pub(crate) fn with_root(root: &'static str) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), root }
    }

    /// Returns a path within the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the root directory of the engine.
    pub(crate) fn root(&self) -> PathBuf {
        self.path(self.root)
    }

    /// Makes a command that has not been started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = bare();
        command
            .env("HOME", self.directory.path())
            .env("TMPDIR", self.directory.path())
            .arg("--root")
            .arg(self.root())
            .args(arguments);
        command
    }

    /// Runs a command line, split at spaces.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_with(line.split(' '))
    }

    /// Runs a command with these arguments.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs a command line that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }

    /// Runs a command line that must succeed, with `--format json`.
    pub(crate) fn json(&self, line: &str) -> Value {
        let printed = self.ok(&format!("--format json {line}"));
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{line}: {error} in {printed}"))
    }

    /// Runs a command line with something on its standard input.
    pub(crate) fn feed(&self, line: &str, input: &[u8]) -> Run {
        let mut child = self.start(line);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that fails early closes its end.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Run::of(output)
    }

    /// Starts a command line, with pipes on all sides.
    pub(crate) fn start(&self, line: &str) -> Child {
        self.command(line.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Returns a way to run command lines as a user who is not root, whose data directory is [`Dist::root`].
    pub(crate) fn as_nobody(&self) -> impl Fn(&str) -> Run {
        const NOBODY: u32 = 65534;
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(self.directory.path(), open).unwrap();
        // The one that was built may lie where only root goes.
        let program = self.path("dist");
        std::fs::copy(env!("CARGO_BIN_EXE_dist"), &program).unwrap();
        let (home, root) = (self.directory.path().to_owned(), self.root());
        move |line| {
            let mut command = Command::new(&program);
            command.env_clear().env("HOME", &home).env("XDG_DATA_HOME", &root).args(line.split(' '));
            Run::of(command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output().unwrap())
        }
    }

    /// Asserts that neither images nor content nor snapshots nor leases are left of anything.
    pub(crate) fn assert_empty(&self) {
        for line in ["images ls", "content ls", "content active", "snapshots ls"] {
            assert_eq!(self.json(line), Value::Array(Vec::new()), "{line}");
        }
        let blobs = self.root().join("content/blobs");
        assert_eq!(files_below(&blobs), Vec::<PathBuf>::new());
    }
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        Self { code: status.code(), stdout, stderr: String::from_utf8(stderr).unwrap() }
    }

    /// Returns standard output of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        let printed = String::from_utf8(self.stdout).unwrap();
        assert_eq!(self.code, Some(0), "{}{printed}", self.stderr);
        printed
    }

    /// Returns standard error of a run that must have failed as an error does, printing nothing else.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        let printed = String::from_utf8_lossy(&self.stdout);
        assert_eq!((self.code, &*printed), (Some(1), ""), "{}", self.stderr);
        self.stderr
    }

    /// Returns standard error of a run that was refused as a wrong command line.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!((self.code, self.stdout.as_slice()), (Some(2), [].as_slice()), "{}", self.stderr);
        self.stderr
    }
}

/// Returns the command without any environment but the path.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dist"));
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Lists the regular files below a directory that may not exist.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let entry = entry.unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
