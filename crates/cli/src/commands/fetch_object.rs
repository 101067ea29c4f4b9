//! `dist fetch-object`: one object to standard output, past the store.

use futures::StreamExt;
use windlass_core::remote::{Body, ByteRange, Resolver};
use windlass_core::{Descriptor, Digest, Error, MediaType, Reference, Result, ResultExt, image};

use crate::failure::Outcome;
use crate::familiar;
use crate::remote::Registries;
use crate::render::write_bytes;

/// Print one object: the manifest of a tag, or a blob by its digest.
///
/// Nothing else is written to standard output, and nothing is stored. The bytes are verified while they pass: when they
/// are not what the digest says, the command fails at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist fetch-object redis | jq .                          the index or manifest of a tag
  dist fetch-object redis sha256:… | tar -tz              a layer
  dist fetch-object redis | jq -r '.layers[].digest' | xargs -P10 -n1 dist fetch-object redis > all
  dist fetch-object redis sha256:… --media-type application/vnd.oci.image.manifest.v1+json")]
pub(crate) struct Args {
    /// Where the object is.
    #[arg(help = "Where the object is: NAME[:TAG][@DIGEST], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "REF", value_parser = familiar::parse_locator)]
    reference: Reference,
    /// Object to print; without it, what the reference points at.
    #[arg(value_name = "DIGEST")]
    digest: Option<Digest>,
    /// What the object is; a manifest by its digest is looked for among the manifests.
    #[arg(long, value_name = "TYPE", requires = "digest", value_parser = |text: &str| Ok::<_, Error>(MediaType::new(text)))]
    media_type: Option<MediaType>,
    #[command(flatten)]
    registries: Registries,
}

/// Prints the object.
pub(crate) async fn run(args: Args) -> Outcome {
    let resolver = args.registries.resolver(&args.reference)?;
    let (descriptor, size, body) = open(&resolver, &args).await?;
    copy(&descriptor.digest, size, body).await
}

/// Finds the object. The size is known only of what a reference points at.
async fn open(resolver: &dyn Resolver, args: &Args) -> Result<(Descriptor, Option<u64>, Body)> {
    let (name, descriptor, size) = if let Some(digest) = &args.digest {
        let media_type = args.media_type.clone().unwrap_or_else(|| MediaType::OCTET_STREAM.into());
        let name: image::Name = args.reference.to_string().parse()?;
        (name, Descriptor { media_type, ..Descriptor::new("", digest.clone(), 0) }, None)
    } else {
        let reference = match (args.reference.object(), args.reference.layout_path()) {
            (None, None) => args.reference.with_tag("latest")?,
            _ => args.reference.clone(),
        };
        let resolved = resolver.resolve(&reference).await.context(|| format!("resolve {reference}"))?;
        let size = resolved.descriptor.size;
        (resolved.name, resolved.descriptor, Some(size))
    };
    let what = || format!("fetch {} from {}", descriptor.digest, args.reference.locator());
    let fetcher = resolver.fetcher(&name).await.context(what)?;
    let body = fetcher.fetch(&descriptor, ByteRange::default()).await.context(what)?;
    Ok((descriptor, size, body))
}

/// Copies the body to standard output and checks that it was the right one.
async fn copy(digest: &Digest, size: Option<u64>, mut body: Body) -> Outcome {
    let mut hasher = digest.algorithm().hasher();
    let mut read = 0;
    while let Some(part) = body.stream.next().await {
        let part = part.context(|| format!("fetch {digest}"))?;
        hasher.update(&part);
        read += part.len() as u64;
        write_bytes(part).await?;
    }
    let found = hasher.finish();
    if &found != digest {
        let sizes = size.map(|size| format!(" of {size}")).unwrap_or_default();
        let problem = format!("the {read} bytes{sizes} that came for {digest} have the digest {found}");
        return Err(Error::data_loss(problem)
            .hint("do not use what was printed; the registry or the network damaged it")
            .into());
    }
    Ok(())
}
