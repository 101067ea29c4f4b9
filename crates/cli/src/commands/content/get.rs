//! `dist content get`: a blob to standard output.

use bytes::Bytes;
use windlass_core::content::changed_at_rest;
use windlass_core::digest::Hasher;
use windlass_core::{Descriptor, Digest, Error, MediaType};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::render::write_bytes;

/// How much is read at once, in bytes.
const PART: usize = 4 << 20;

/// Write a blob to standard output.
///
/// The bytes are verified while they pass; when they have changed on the disk, the command fails after them.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "cat",
    after_help = "\
Examples:
  dist content get sha256:… | jq .             a manifest
  dist content get sha256:… | tar -tz          a layer"
)]
pub(crate) struct Args {
    /// Blob.
    #[arg(value_name = "DIGEST", value_parser = super::digest)]
    digest: Digest,
}

/// Writes it: while one part is hashed and written, the next one is read.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let size = services.content.info(&args.digest).await?.size;
    let descriptor = Descriptor::new(MediaType::OCTET_STREAM, args.digest, size);
    let reader = services.content.reader(&descriptor).await?;
    let mut hasher = descriptor.digest.algorithm().hasher();
    let (mut offset, mut part) = (0, reader.read_at(0, PART).await?);
    while offset < reader.size() {
        if part.is_empty() {
            let problem = format!("blob {} ends after {offset} of {} bytes", descriptor.digest, reader.size());
            return Err(Error::data_loss(problem).into());
        }
        offset += part.len() as u64;
        let next = async { reader.read_at(offset, PART).await.map_err(Failure::from) };
        (hasher, (), part) = tokio::try_join!(hash(hasher, part.clone()), write_bytes(part), next)?;
    }
    Ok(changed_at_rest(&descriptor.digest, &hasher.finish())?)
}

/// Goes on with a hash on a thread of its own.
async fn hash(mut hasher: Hasher, part: Bytes) -> Outcome<Hasher> {
    let hash = move || {
        hasher.update(&part);
        hasher
    };
    let hashed = tokio::task::spawn_blocking(hash).await;
    Ok(hashed.map_err(|error| Error::internal("hashing a blob panicked").source(error))?)
}
