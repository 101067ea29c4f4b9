//! `dist content edit`: a blob is changed in an editor, and what comes out is another blob.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use windlass_core::content::{Commit, Expected, IngestRef, Provider, Store, copy};
use windlass_core::error::IoResultExt;
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, MediaType, Result, gc};

use super::{Ingested, ingest};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::input;
use crate::interrupt::interruptible;

/// How much is read at once, in bytes.
const PART: usize = 1 << 20;
/// What is started when nobody says which editor.
const DEFAULT_EDITOR: &str = "vi";

/// Change a blob in an editor: what comes out is a new blob, whose digest is printed.
///
/// The blob itself stays as it is, and so do images that refer to it. The new one refers to the same blobs and snapshots
/// by its labels, and stays until `dist content rm` deletes it. When nothing is changed, nothing is stored.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist content edit sha256:…                         in $VISUAL, $EDITOR or vi
  dist content edit --editor 'sed -i s/a/b/' sha256:…
  dist content edit --validate json sha256:…         refuse what is no JSON")]
pub(crate) struct Args {
    /// Blob.
    #[arg(value_name = "DIGEST", value_parser = super::digest)]
    digest: Digest,
    /// Editor, as a shell would start it [default: $VISUAL, $EDITOR, vi].
    #[arg(long, value_name = "COMMAND")]
    editor: Option<String>,
    /// What the result must be.
    #[arg(long, value_name = "FORMAT", value_enum)]
    validate: Option<Validate>,
}

/// What a result can be checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Validate {
    Json,
}

/// Edits.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let editor = editor(args.editor.as_deref());
    if editor == DEFAULT_EDITOR && !std::io::stdin().is_terminal() {
        let error = Error::failed_precondition(format!("{editor} needs a terminal, and standard input is none"));
        return Err(error.hint("name another editor with --editor").into());
    }
    // The root is given up while somebody thinks.
    let content = context.services().await?.content;
    let labels = content.info(&args.digest).await?.labels;
    let draft = Draft::new(&args.digest)?;
    draft.fill(&*content, &args.digest).await?;
    drop(content);

    draft.edit(&editor).await?;
    let edited = draft.digest(&args)?;
    if edited == args.digest {
        return context.output().record(&draft.ingested(edited)?, |ingested| ingested.digest.to_string());
    }
    let stored = interruptible(async {
        let content = context.services().await?.content;
        Ok(store(&*content, &draft, edited, &labels).await?)
    });
    let ingested = match stored.await {
        Ok(ingested) => ingested,
        Err(Failure::Error(error)) => return Err(draft.keep(error).into()),
        Err(failure) => {
            tracing::warn!(path = %draft.keep_file().display(), "what was edited is kept");
            return Err(failure);
        }
    };
    context.output().record(&ingested, |ingested| ingested.digest.to_string())
}

/// Returns the command to start.
fn editor(named: Option<&str>) -> String {
    let environment = |name| std::env::var(name).ok();
    let candidates = [named.map(str::to_owned), environment("VISUAL"), environment("EDITOR")];
    let found = candidates.into_iter().flatten().find(|command| !command.trim().is_empty());
    found.unwrap_or_else(|| DEFAULT_EDITOR.to_owned())
}

/// Makes a blob of the draft.
async fn store(content: &dyn Store, draft: &Draft, digest: Digest, labels: &Labels) -> Result<Ingested> {
    let ingested = draft.ingested(digest.clone())?;
    let mut kept = ingest::root();
    kept.extend(&references(labels));
    let reference: IngestRef = format!("edit-{digest}").parse()?;
    let expected = Expected { digest: Some(digest), size: Some(ingested.size) };
    let mut writer = match content.writer(&reference, expected).await {
        Err(error) if error.is(Kind::AlreadyExists) => return Ok(ingested),
        opened => opened?,
    };
    copy(&mut *writer, &mut input::file(draft.open()?)?, None).await?;
    writer.commit(Commit { labels: kept, ..Commit::default() }).await?;
    Ok(ingested)
}

/// Returns the labels that say what a blob refers to.
fn references(labels: &Labels) -> Labels {
    let refers = |key: &str| key.starts_with(gc::REF_CONTENT) || key.starts_with(gc::REF_SNAPSHOT);
    labels.clone().into_iter().filter(|(key, _)| refers(key)).collect()
}

/// A copy of a blob in a file of its own, removed in the end.
struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Makes an empty one that only this user can read.
    fn new(digest: &Digest) -> Result<Self> {
        let name = format!("dist-edit-{}-{}", digest.short(), std::process::id());
        let path = std::env::temp_dir().join(name);
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        created.attempt(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).attempt(|| format!("open {}", self.path.display()))
    }

    async fn fill(&self, content: &dyn Provider, digest: &Digest) -> Result<()> {
        let descriptor = Descriptor::new(MediaType::OCTET_STREAM, digest.clone(), 0);
        let reader = content.reader(&descriptor).await?;
        let writing = || format!("write {}", self.path.display());
        let mut file = OpenOptions::new().write(true).open(&self.path).attempt(writing)?;
        let mut at = 0;
        while at < reader.size() {
            let part = reader.read_at(at, PART).await?;
            at += part.len() as u64;
            if part.is_empty() {
                return Err(Error::data_loss(format!("blob {digest} ends after {at} of {} bytes", reader.size())));
            }
            file.write_all(&part).attempt(writing)?;
        }
        Ok(())
    }

    /// Runs the editor on it, with the terminal.
    async fn edit(&self, editor: &str) -> Result<()> {
        // Ctrl-C is for the editor meanwhile.
        let _ours = signal(SignalKind::interrupt()).attempt(|| "listen for signals".to_owned())?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{editor} \"$1\"")).arg(editor).arg(&self.path);
        let ended = tokio::task::spawn_blocking(move || command.status()).await;
        let ended = ended.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let status = ended.attempt(|| format!("start the editor {editor:?}"))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::failed_precondition(format!("the editor {editor:?} failed: {status}"))
            .hint("nothing was stored; --editor, VISUAL or EDITOR name another editor"))
    }

    /// Returns the digest of what it has become, by the algorithm of the blob it was, if that is what was asked for.
    fn digest(&self, args: &Args) -> Result<Digest> {
        let reading = || format!("read {}", self.path.display());
        if args.validate == Some(Validate::Json) {
            let json = std::fs::read(&self.path).attempt(reading)?;
            if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&json) {
                return Err(self.keep(Error::invalid_argument(format!("the result is no JSON: {error}"))));
            }
        }
        let mut hasher = args.digest.algorithm().hasher();
        let mut file = std::io::BufReader::with_capacity(PART, self.open()?);
        std::io::copy(&mut file, &mut HashWriter(&mut hasher)).attempt(reading)?;
        Ok(hasher.finish())
    }

    fn ingested(&self, digest: Digest) -> Result<Ingested> {
        let metadata = std::fs::metadata(&self.path).attempt(|| format!("look at {}", self.path.display()))?;
        Ok(Ingested { digest, size: metadata.len() })
    }

    /// Keeps the file for the user of a failed command, whose work is in it, and says so in the error.
    fn keep(&self, error: Error) -> Error {
        let kept = self.keep_file();
        error
            .hint(format!("`dist content ingest edit < {}` stores it", kept.display()))
            .context(format!("store what was edited, which is kept in {}", kept.display()))
    }

    /// Moves the file to where it is not removed.
    fn keep_file(&self) -> PathBuf {
        let kept = self.path.with_extension("kept");
        match std::fs::rename(&self.path, &kept) {
            Ok(()) => kept,
            // It goes with the directory of temporary files, if that is what became of it.
            Err(_) => self.path.clone(),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // One that is gone already was kept, or removed by the editor.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A hasher as something to write to.
struct HashWriter<'a>(&'a mut windlass_core::digest::Hasher);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
