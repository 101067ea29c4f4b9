//! What is attached to a manifest by the name of a tag alone, as cosign does it where it keeps no list of referrers: the tag is
//! made of the digest and of what it is for. cosign, `specs/SIGNATURE_SPEC.md` and `specs/SBOM_SPEC.md`.

use futures::future::try_join_all;
use windlass_core::remote::Resolver;
use windlass_core::{Descriptor, Digest, Kind, Reference, Result, ResultExt as _};

/// The end of the tag that signatures are under.
pub(crate) const SIGNATURES: &str = "sig";
/// The ends of all of these tags: signatures, attestations, lists of parts.
const ENDS: [&str; 3] = [SIGNATURES, "att", "sbom"];

/// Returns the tag under which something of a manifest is.
pub(crate) fn tag(subject: &Digest, end: &str) -> String {
    format!("{}-{}.{end}", subject.algorithm(), subject.hex())
}

/// Looks which of the tags are there, beside the image that the reference is of, and at what they point.
///
/// # Errors
/// Those of the resolver, but that there is no such tag is none.
pub(crate) async fn tagged(
    resolver: &dyn Resolver,
    reference: &Reference,
    subject: &Digest,
) -> Result<Vec<(String, Descriptor)>> {
    let look = |end: &'static str| async move {
        let tag = tag(subject, end);
        // The digests of some algorithms are longer than a tag may be.
        let Ok(beside) = reference.with_tag(&tag) else { return Ok(None) };
        match resolver.resolve(&beside).await {
            Ok(resolved) => Ok(Some((tag, resolved.descriptor))),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error).context(|| format!("look for tag {tag}")),
        }
    };
    Ok(try_join_all(ENDS.map(look)).await?.into_iter().flatten().collect())
}
