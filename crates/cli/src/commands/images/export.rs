//! `dist images export`: recorded images become an archive.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use windlass::transfer::export::Docker;
use windlass::transfer::{Export, Exported, export};
use windlass_core::error::IoResultExt as _;
use windlass_core::progress::Tracker;
use windlass_core::{Error, Result};

use super::find;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::familiar;
use crate::interrupt::interruptible;
use crate::platforms::Platforms;
use crate::render::{count, fields, size};

/// Export images as one archive: an OCI layout that `docker load` reads as well.
///
/// The same images make the same bytes. An index that is exported for one platform still lists the others.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "save",
    after_help = "\
Examples:
  dist images export app.tar app:1
  dist images export - app:1 app:2 | zstd > apps.tar.zst
  dist images export --platform linux/arm64 app.tar app:1
  dist images export --all-platforms app.tar app:1"
)]
pub(crate) struct Args {
    /// File to write; `-` is standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Images, by their names.
    #[arg(value_name = "REF", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    platforms: Platforms,
    /// Leave Docker's manifest.json out.
    #[arg(long)]
    skip_manifest_json: bool,
    /// Leave out layers that may not be passed on.
    #[arg(long)]
    skip_non_distributable: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    #[serde(flatten)]
    exported: &'a Exported,
}

/// Exports.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let options = Export {
        platforms: args.platforms.selection(),
        docker: if args.skip_manifest_json { Docker::No } else { Docker::Yes },
        skip_non_distributable: args.skip_non_distributable,
        familiar: familiar::short,
        ..Export::default()
    };
    if args.file.as_os_str() == "-" {
        if std::io::stdout().is_terminal() {
            return Err(Error::invalid_argument("an archive is not written to a terminal")
                .hint("name a file, or redirect standard output")
                .into());
        }
        let output = std::io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from);
        let output = tokio::fs::File::from_std(output.attempt(|| "open standard output".to_owned())?);
        return match write(context, &args.names, &options, Box::new(output)).await {
            Err(Failure::Error(error)) if is_closed(&error) => Err(Failure::BrokenPipe),
            written => written.map(drop),
        };
    }
    let file = Destination::of(&args.file).await?;
    let written = write(context, &args.names, &options, file.open().await?).await;
    let exported = file.finish(written).await?;
    context.output().record(&Report { file: &args.file, exported: &exported }, |report| {
        let mut lines: Vec<_> = report.exported.names.iter().map(|name| ("exported", name.to_string())).collect();
        lines.push(("file", report.file.display().to_string()));
        lines.push(("size", format!("{} ({})", size(report.exported.size), count(report.exported.blobs, "blob"))));
        fields(&lines)
    })
}

/// Tells whether whoever read the archive is gone.
fn is_closed(error: &Error) -> bool {
    error.os_cause().is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What an archive is written to.
type Writer = Box<dyn tokio::io::AsyncWrite + Unpin + Send>;

async fn write(context: &Context, names: &[String], options: &Export, mut into: Writer) -> Outcome<Exported> {
    let tracker = Tracker::new();
    let work = Box::pin(async {
        let host = context.host().await?;
        let namespace = &context.globals.namespace;
        let services = host.services(&namespace.clone().into()).await?;
        let mut images = Vec::new();
        for name in names {
            let image = find(&services, name).await?;
            if !images.contains(&image) {
                images.push(image);
            }
        }
        let exported = export(&*host, namespace, &images, options, &mut *into, &tracker).await?;
        into.shutdown().await.attempt(|| "write the archive".to_owned())?;
        Ok(exported)
    });
    context.display().during(&tracker, interruptible(work)).await
}

/// A file that appears when it is whole; what is no plain file is written directly.
struct Destination {
    path: PathBuf,
    partial: Option<PathBuf>,
}

impl Destination {
    async fn of(path: &Path) -> Result<Self> {
        let plain = match tokio::fs::metadata(path).await {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Error::failed_precondition(format!("{} is a directory", path.display()))
                    .hint("name the file to write"));
            }
            Ok(metadata) => metadata.is_file(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(Error::io(format!("look at {}", path.display()), error)),
        };
        let partial = plain.then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}.partial", std::process::id()));
            PathBuf::from(name)
        });
        Ok(Self { path: path.to_owned(), partial })
    }

    async fn open(&self) -> Result<Writer> {
        let path = self.partial.as_ref().unwrap_or(&self.path);
        let file = tokio::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).await;
        let file = file.attempt(|| format!("create {}", path.display()))?;
        Ok(Box::new(tokio::io::BufWriter::with_capacity(1 << 20, file)))
    }

    /// Gives the file its name, or removes what there is of it.
    async fn finish<T>(&self, written: Outcome<T>) -> Outcome<T> {
        let Some(partial) = &self.partial else { return written };
        match written {
            Ok(written) => {
                let renamed = tokio::fs::rename(partial, &self.path).await;
                renamed.attempt(|| format!("rename {} to {}", partial.display(), self.path.display()))?;
                Ok(written)
            }
            Err(failure) => {
                if let Err(error) = tokio::fs::remove_file(partial).await {
                    tracing::warn!(%error, file = %partial.display(), "a part of an archive stays");
                }
                Err(failure)
            }
        }
    }
}
