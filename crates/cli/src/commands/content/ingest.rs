//! `dist content ingest`: standard input becomes a blob.

use std::io::Read;
use std::time::SystemTime;

use bytes::Bytes;
use windlass_core::content::{Commit, Expected, IngestRef, Store, Writer};
use windlass_core::error::IoResultExt;
use windlass_core::field::FieldMask;
use windlass_core::{Digest, Error, Kind, Labels, Result, gc};

use super::Ingested;
use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::interruptible;

/// How much is read at once, in bytes.
const PART: usize = 1 << 20;

/// Make a blob of standard input, and print its digest.
///
/// With --expected-digest an ingest that was interrupted is continued: give the same input again, and what is here
/// already is skipped. The blob stays until `dist content rm` deletes it.
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
    #[arg(long, value_name = "DIGEST")]
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
    let root = Labels::new().with(gc::ROOT, humantime::format_rfc3339_seconds(SystemTime::now()).to_string());
    let mut writer = match content.writer(&args.ingest, expected.clone()).await {
        Err(error) if error.is(Kind::AlreadyExists) => return keep(content, args, root).await,
        opened => opened?,
    };
    if args.expected_digest.is_none() {
        // Nothing would tell whether what was left belongs to this input.
        writer.truncate(0).await?;
    }
    let skip = writer.status().await?.offset;
    copy(&mut *writer, skip).await?;
    let info = writer.commit(Commit { expected, labels: root }).await;
    let info = info.map_err(|error| error.context(format!("commit ingest {}", args.ingest)))?;
    Ok(Ingested { digest: info.digest, size: info.size })
}

/// Keeps a blob that is here already.
async fn keep(content: &dyn Store, args: &Args, root: Labels) -> Result<Ingested> {
    let Some(digest) = &args.expected_digest else {
        return Err(Error::already_exists(format!("the content of ingest {} is here already", args.ingest)));
    };
    let mut info = content.info(digest).await?;
    if info.labels.get(gc::ROOT).is_none() {
        info.labels.extend(&root);
        content.update(&info, &FieldMask::parse([format!("labels.{}", gc::ROOT).as_str()])?).await?;
    }
    Ok(Ingested { digest: info.digest, size: info.size })
}

/// Appends standard input, without the bytes that are here already.
async fn copy(writer: &mut dyn Writer, mut skip: u64) -> Result<()> {
    while let Some(mut part) = read().await? {
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(part.len());
        skip -= skipped as u64;
        let rest = part.split_off(skipped);
        if !rest.is_empty() {
            writer.write(rest).await?;
        }
    }
    if skip > 0 {
        return Err(Error::out_of_range(format!("standard input ended {skip} bytes before where the ingest stands"))
            .hint("give the same input as before"));
    }
    Ok(())
}

/// Reads a part of standard input, `None` at its end.
async fn read() -> Result<Option<Bytes>> {
    let read = tokio::task::spawn_blocking(|| {
        let mut part = Vec::with_capacity(PART);
        std::io::stdin().lock().take(PART as u64).read_to_end(&mut part).map(|_| part)
    });
    let part = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let part = part.attempt(|| "read standard input".to_owned())?;
    Ok((!part.is_empty()).then(|| part.into()))
}
