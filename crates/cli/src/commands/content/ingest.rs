//! `dist content ingest`: standard input becomes a blob.

use std::time::SystemTime;

use futures::StreamExt;
use windlass_core::content::{Commit, Expected, IngestRef, Source, Store, copy};
use windlass_core::digest::Algorithm;
use windlass_core::field::FieldMask;
use windlass_core::{Digest, Error, Kind, Labels, Result, gc};

use super::Ingested;
use crate::context::Context;
use crate::failure::Outcome;
use crate::input;
use crate::interrupt::interruptible;

/// Make a blob of standard input, and print its digest.
///
/// With --expected-digest an ingest that was interrupted is continued: give the same input again, and what is here
/// already is skipped; when the whole blob is here, nothing is read. The blob stays until `dist content rm` deletes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist content ingest my-file < FILE
  dist content ingest layer --expected-digest sha256:… --expected-size 31357624 < layer.tar.gz")]
pub(crate) struct Args {
    /// Key of the ingest, under which `content active` shows it.
    #[arg(value_name = "REFKEY")]
    ingest: IngestRef,
    /// Digest that the input must have.
    #[arg(long, value_name = "DIGEST", value_parser = super::digest)]
    expected_digest: Option<Digest>,
    /// Size in bytes that the input must have.
    #[arg(long, value_name = "BYTES")]
    expected_size: Option<u64>,
}

/// Ingests.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let ingested = interruptible(async {
        let services = context.services().await?;
        Ok(ingest(&*services.content, &args).await?)
    });
    context.output().record(&ingested.await?, |ingested| ingested.digest.to_string())
}

async fn ingest(content: &dyn Store, args: &Args) -> Result<Ingested> {
    let expected = Expected { digest: args.expected_digest.clone(), size: args.expected_size };
    let root = root();
    let mut writer = match content.writer(&args.ingest, expected.clone()).await {
        Err(error) if error.is(Kind::AlreadyExists) => {
            let here = args.expected_digest.as_ref();
            return keep(content, here.ok_or_else(|| lost(&args.ingest))?, root).await;
        }
        opened => opened?,
    };
    if args.expected_digest.is_none() {
        // Nothing would tell whether what was left belongs to this input.
        writer.truncate(0).await?;
    }
    let mut input = input::standard()?;
    let copied = copy(&mut *writer, &mut *input, None).await;
    if let Err(error) = copied {
        // What was on its way to a daemon has arrived when it says where the ingest stands.
        if let Err(error) = writer.status().await {
            tracing::debug!(%error, "how much of the ingest is here is not known");
        }
        drop(writer);
        if args.expected_digest.is_none() {
            // The next one begins anew, so what there is of this one is of no use.
            content.abort(&args.ingest).await?;
        }
        return Err(error.hint("give the same input as before").context(format!("ingest {}", args.ingest)));
    }
    match writer.commit(Commit { expected, labels: root.clone() }).await {
        Ok(info) => Ok(Ingested { digest: info.digest, size: info.size }),
        // The same bytes came another way: an image's, or those of an earlier ingest.
        Err(error) if error.is(Kind::AlreadyExists) => {
            let digest = match &args.expected_digest {
                Some(digest) => digest.clone(),
                None => digest_of(&mut *input).await.map_err(|_| {
                    error.hint(
                        "give the input as a file, or its digest with --expected-digest, and what is here is kept",
                    )
                })?,
            };
            keep(content, &digest, root).await
        }
        Err(error) => Err(error),
    }
}

fn lost(ingest: &IngestRef) -> Error {
    Error::internal(format!("ingest {ingest} is said to be here, and nobody asked for a digest"))
}

/// Reads input again that was read to its end, and returns its digest.
///
/// # Errors
/// `FailedPrecondition` when it cannot be read again.
async fn digest_of(input: &mut dyn Source) -> Result<Digest> {
    let mut stream = input.open(0).await?.stream;
    let mut hasher = Algorithm::Sha256.hasher();
    while let Some(part) = stream.next().await {
        hasher.update(&part?);
    }
    Ok(hasher.finish())
}

/// Returns the label of what stays until it is deleted.
pub(crate) fn root() -> Labels {
    Labels::new().with(gc::ROOT, humantime::format_rfc3339_seconds(SystemTime::now()).to_string())
}

/// Keeps a blob that is here already.
async fn keep(content: &dyn Store, digest: &Digest, root: Labels) -> Result<Ingested> {
    let mut info = content.info(digest).await?;
    if info.labels.get(gc::ROOT).is_none() {
        info.labels.extend(&root);
        content.update(&info, &FieldMask::parse([format!("labels.{}", gc::ROOT).as_str()])?).await?;
    }
    Ok(Ingested { digest: info.digest, size: info.size })
}
