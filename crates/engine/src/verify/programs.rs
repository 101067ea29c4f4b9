//! Programs that decide whether an image may be here, as containerd's image verifier `bindir` starts them.
//!
//! Every program of a directory is started with `-name NAME -digest DIGEST -stdin-media-type TYPE` and the descriptor of the
//! image, JSON, on standard input. Exit code 0 allows the image, any other one refuses it; what the program prints is the
//! reason. All of them have to allow it. containerd, `docs/image-verification.md`.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result, ResultExt as _};
use windlass_transfer::verify::{Documents, Subject, Verdict, Verifier};

/// How many programs are started when nothing else is said, as with containerd.
pub const MAX_PROGRAMS: usize = 10;
/// How long each may take when nothing else is said, as with containerd.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The type of what a program reads. OCI image-spec, `descriptor.md`.
const DESCRIPTOR_TYPE: &str = "application/vnd.oci.descriptor.v1+json";
/// How much of what a program prints is taken, in bytes, as with containerd; the rest is read and dropped.
const MAX_OUTPUT: usize = 32 << 10;

/// The programs of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The directory. One that is not there, or is empty, refuses nothing.
    pub directory: PathBuf,
    /// How many are started, by their names; all of them when there is no limit. The rest is left out, with a warning.
    pub limit: Option<usize>,
    /// How long each may take.
    pub timeout: Duration,
}

impl Programs {
    /// Takes the programs of a directory, with containerd's limits.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), limit: Some(MAX_PROGRAMS), timeout: TIMEOUT }
    }

    /// Returns the programs to start, by name.
    async fn list(&self) -> Result<Vec<PathBuf>> {
        let attempt = || format!("list the verifiers in {}", self.directory.display());
        let mut entries = match tokio::fs::read_dir(&self.directory).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.attempt(attempt)?,
        };
        let mut programs = Vec::new();
        while let Some(entry) = entries.next_entry().await.attempt(attempt)? {
            programs.push(entry.path());
        }
        programs.sort_unstable();
        if let Some(limit) = self.limit
            && programs.len() > limit
        {
            let (all, directory) = (programs.len(), self.directory.display());
            tracing::warn!(
                "{directory} has {all} verifiers, and {limit} of them are asked: those that come first by name"
            );
            programs.truncate(limit);
        }
        Ok(programs)
    }

    async fn run(&self, program: &Path, subject: &Subject<'_>, input: &[u8]) -> Result<(ExitStatus, String)> {
        let mut command = Command::new(program);
        command.args(["-name", subject.name, "-digest", &subject.descriptor.digest.to_string()]);
        command.args(["-stdin-media-type", DESCRIPTOR_TYPE]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().attempt(|| format!("start verifier {}", program.display()))?;
        let mut running = Running { group: child.id() };
        let judged = tokio::time::timeout(self.timeout, running.judge(child, program, input)).await;
        judged.unwrap_or_else(|_| {
            let (name, time) = (program.display(), humantime(self.timeout));
            Err(Error::deadline_exceeded(format!("verifier {name} did not answer within {time}"))
                .hint("look why it takes so long; its time can be set where its directory is"))
        })
    }
}

fn humantime(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

#[async_trait]
impl Verifier for Programs {
    async fn verify(&self, subject: &Subject<'_>, _: &dyn Documents) -> Result<Verdict> {
        let input = serde_json::to_vec(subject.descriptor)
            .map_err(|error| Error::internal("a descriptor cannot be written as JSON").source(error))?;
        let mut reasons = Vec::new();
        for program in self.list().await? {
            let (status, reason) = self.run(&program, subject, &input).await?;
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match status.code() {
                Some(0) => reasons.push(format!("verifier {name}: {reason}")),
                Some(code) => {
                    let reason = if reason.is_empty() { "it says nothing".to_owned() } else { reason };
                    let by = format!("verifier {name} (exit code {code})");
                    return Ok(Verdict::Refused { by, reason });
                }
                None => {
                    let signal = status.signal().unwrap_or_default();
                    let problem = format!("verifier {} was ended by signal {signal}", program.display());
                    return Err(Error::unknown(problem).hint("it has to exit by itself, with 0 to allow the image"));
                }
            }
        }
        if reasons.is_empty() {
            reasons.push(format!("there are no verifiers in {}", self.directory.display()));
        }
        Ok(Verdict::Allowed { reason: reasons.join(", ") })
    }
}

/// A program and all that it has started. They are ended when this is dropped.
struct Running {
    group: Option<u32>,
}

impl Running {
    /// Returns how the program ended, and what it printed.
    async fn judge(&mut self, mut child: Child, program: &Path, input: &[u8]) -> Result<(ExitStatus, String)> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            let Some(mut stdin) = stdin else { return };
            // Who does not read what he is given is free to decide without.
            if let Err(error) = stdin.write_all(input).await {
                tracing::debug!(%error, "a verifier did not read the descriptor");
            }
        };
        let ended = async {
            let status = child.wait().await;
            // What it has left behind would keep its output open.
            self.end();
            status
        };
        let ((), reason, log, status) = tokio::join!(feed, output(stdout), output(stderr), ended);
        let attempt = || format!("read what verifier {} prints", program.display());
        for line in log.context(attempt)?.lines() {
            tracing::debug!(verifier = %program.display(), "{line}");
        }
        let status = status.attempt(|| format!("wait for verifier {}", program.display()))?;
        Ok((status, reason.context(attempt)?.replace('\n', " ")))
    }

    /// Ends what is left of them, once: another program may get the id when the last of them is gone.
    fn end(&mut self) {
        let group = self.group.take().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // Nobody may be left of it.
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::trace!(%error, "the processes of a verifier have ended");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads what is printed, to its end, and keeps the beginning, fit for a terminal.
async fn output(from: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let Some(mut from) = from else { return Ok(String::new()) };
    let mut kept = Vec::new();
    let mut cut = false;
    let mut part = vec![0; 8 << 10];
    loop {
        let read = from.read(&mut part).await.attempt(|| "read a pipe".to_owned())?;
        let Some(bytes) = part.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        let room = bytes.len().min(MAX_OUTPUT - kept.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        cut |= room < bytes.len();
    }
    let text = String::from_utf8_lossy(&kept);
    let mut text: String = text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    if cut {
        text.push_str(" (the rest is left out)");
    }
    Ok(text)
}
