//! The verifiers that need files or processes: a policy that is read anew for each image, and programs.
//!
//! What a policy says and when verifiers are asked is in [`crate::transfer::verify`].

mod programs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result, ResultExt as _};
use windlass_transfer::verify::policy::{MAX_POLICY, Policy};
use windlass_transfer::verify::{All, Documents, Subject, Verdict, Verifier};

pub use programs::{MAX_PROGRAMS, Programs, TIMEOUT};

/// The largest key that is read, in bytes.
const MAX_KEY: u64 = 64 << 10;

/// Who is asked whether an image may be here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// The file of the policy.
    pub policy: Option<PathBuf>,
    /// Programs.
    pub programs: Option<Programs>,
}

impl Verification {
    /// Returns the verifier; none when nobody is to be asked.
    ///
    /// # Errors
    /// Those of [`PolicyFile::open`].
    pub fn verifier(&self) -> Result<Option<Arc<dyn Verifier>>> {
        let mut all: Vec<Arc<dyn Verifier>> = Vec::new();
        if let Some(path) = &self.policy {
            all.push(Arc::new(PolicyFile::open(path)?));
        }
        if let Some(programs) = &self.programs {
            all.push(Arc::new(programs.clone()));
        }
        Ok(match all.len() {
            0 | 1 => all.pop(),
            _ => Some(Arc::new(All(all))),
        })
    }
}

/// The policy in a file. It is read for each image, so that a change of it, or of a key, holds from the next one on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    path: PathBuf,
}

impl PolicyFile {
    /// Takes a file, and reads it once to see that it can be.
    ///
    /// # Errors
    /// Those of the filesystem; `InvalidArgument` naming file, line and key. Keys are looked for beside the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        read(&path)?;
        Ok(Self { path })
    }
}

#[async_trait]
impl Verifier for PolicyFile {
    async fn verify(&self, subject: &Subject<'_>, documents: &dyn Documents) -> Result<Verdict> {
        let path = self.path.clone();
        let policy = tokio::task::spawn_blocking(move || read(&path)).await;
        policy
            .map_err(|error| Error::internal("reading the policy panicked").source(error))??
            .verify(subject, documents)
            .await
    }
}

fn read(path: &Path) -> Result<Policy> {
    let file = path.display().to_string();
    let text = bounded(path, MAX_POLICY as u64).context(|| format!("read policy {file}"))?;
    let text = String::from_utf8(text).map_err(|_| Error::invalid_argument(format!("policy {file} is no text")))?;
    let beside = path.parent().unwrap_or(Path::new(""));
    Policy::parse(&text, &file, &|name| bounded(&beside.join(name), MAX_KEY))
}

/// Reads a file that is not larger than it may be.
fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let attempt = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).attempt(attempt)?;
    let read = file.take(limit + 1).read_to_end(&mut bytes).attempt(attempt)?;
    if read as u64 > limit {
        return Err(Error::invalid_argument(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
