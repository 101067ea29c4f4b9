//! `dist referrers`: what is attached to an image, and to that.

use std::collections::BTreeSet;

use futures::future::{BoxFuture, FutureExt as _};
use serde::Serialize;
use windlass::transfer::referrers::{Attached, MAX_DEPTH, attached};
use windlass_core::remote::Resolver;
use windlass_core::{Descriptor, Digest, Error, Reference, Result, ResultExt as _, image};

use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;
use crate::remote::Registries;
use crate::render::{digest, printable, size};

/// How many manifests are asked about, for each of which the registry gets some requests.
const MAX_ASKED: usize = 200;

/// List what is attached to an image: signatures, lists of parts, and what is attached to these.
///
/// Nothing is stored. The registry's own list is asked for, or, where a registry has none, the tag that stands for it; and the tags
/// are looked at that cosign puts signatures, attestations and lists of parts under.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist referrers redis                              everything, as a tree
  dist referrers --type application/spdx+json redis one type of artifact
  dist referrers redis@sha256:…                     of the manifest of one platform
  dist pull --with-referrers redis                  bring all of it along")]
pub(crate) struct Args {
    /// Image.
    #[arg(help = "Image: NAME[:TAG][@DIGEST], HOST/REPOSITORY…, or oci:DIRECTORY[:TAG]")]
    #[arg(value_name = "REF", value_parser = familiar::parse)]
    reference: Reference,
    /// Type of artifact; what is attached to one is not listed then.
    #[arg(long = "type", value_name = "TYPE")]
    artifact_type: Option<String>,
    #[command(flatten)]
    registries: Registries,
}

/// An image and what is attached to it.
#[derive(Serialize)]
struct Tree {
    name: image::Name,
    digest: Digest,
    referrers: Vec<Branch>,
}

/// An artifact and what is attached to it.
#[derive(Serialize)]
struct Branch {
    #[serde(flatten)]
    descriptor: Descriptor,
    /// The tag that it was found under, unless it is in the list of referrers.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    referrers: Vec<Branch>,
}

/// Lists.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let resolver = args.registries.resolver(&args.reference)?;
    let reference = &args.reference;
    let resolved = resolver.resolve(reference).await.context(|| format!("resolve {reference}"))?;
    let digest = resolved.descriptor.digest;
    let mut asked = Asked { resolver: &resolver, reference, name: &resolved.name, about: BTreeSet::new() };
    let referrers = match &args.artifact_type {
        Some(kind) => asked.list(&digest, Some(kind)).await.map(leaves),
        None => asked.below(&digest, 1).await,
    };
    let referrers = referrers.context(|| format!("list what is attached to {reference}"))?;
    context.output().record(&Tree { name: resolved.name, digest, referrers }, table)
}

fn leaves(attached: Vec<Attached>) -> Vec<Branch> {
    attached.into_iter().map(|Attached { descriptor, tag }| Branch { descriptor, tag, referrers: Vec::new() }).collect()
}

/// Asks, and remembers about what.
struct Asked<'a> {
    resolver: &'a dyn Resolver,
    reference: &'a Reference,
    name: &'a image::Name,
    about: BTreeSet<Digest>,
}

impl Asked<'_> {
    async fn list(&mut self, subject: &Digest, kind: Option<&str>) -> Result<Vec<Attached>> {
        // What is attached to itself in a circle has been told once.
        if !self.about.insert(subject.clone()) {
            return Ok(Vec::new());
        }
        if self.about.len() > MAX_ASKED {
            return Err(Error::resource_exhausted(format!("more than {MAX_ASKED} artifacts are attached"))
                .hint("ask for one type with --type"));
        }
        attached(self.resolver, self.reference, self.name, subject, kind).await
    }

    fn below<'b>(&'b mut self, subject: &'b Digest, depth: usize) -> BoxFuture<'b, Result<Vec<Branch>>> {
        async move {
            let mut branches = leaves(self.list(subject, None).await?);
            if depth < MAX_DEPTH {
                for branch in &mut branches {
                    branch.referrers = self.below(&branch.descriptor.digest.clone(), depth + 1).await?;
                }
            }
            Ok(branches)
        }
        .boxed()
    }
}

fn table(tree: &Tree) -> String {
    let mut lines = vec![format!("{}  {}", printable(tree.name.as_str()), digest(&tree.digest))];
    if tree.referrers.is_empty() {
        lines.push("nothing is attached to it".to_owned());
    }
    draw(&mut lines, &tree.referrers, "");
    lines.join("\n")
}

fn draw(lines: &mut Vec<String>, branches: &[Branch], before: &str) {
    for (at, Branch { descriptor, tag, referrers }) in branches.iter().enumerate() {
        let (fork, below) = if at + 1 == branches.len() { ("└── ", "    ") } else { ("├── ", "│   ") };
        let kind = descriptor.artifact_type.as_deref().unwrap_or(descriptor.media_type.as_str());
        let (kind, bytes) = (printable(kind), size(descriptor.size));
        let found = tag.as_ref().map(|tag| format!("  tag {}", printable(tag))).unwrap_or_default();
        lines.push(format!("{before}{fork}{kind}  {}  {bytes}{found}", descriptor.digest));
        draw(lines, referrers, &format!("{before}{below}"));
    }
}
