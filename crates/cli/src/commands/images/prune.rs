//! `dist images prune`: images that nothing uses are deleted, and what only they needed is collected.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use windlass_core::image::{Image, Name};
use windlass_core::{Digest, Services};

use super::remove::delete;
use crate::context::Context;
use crate::failure::Outcome;

/// Delete images that no container uses, and everything only they needed.
///
/// Without --all, only those go that have no tag: under a digest, or without a name of their own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images prune                            what has no tag
  dist images prune --all                      everything that no container uses")]
pub(crate) struct Args {
    /// Delete images that have tags, too.
    #[arg(long)]
    all: bool,
}

/// Prunes.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let services = context.services().await?;
    let used = used(&services).await?;
    let mut images = services.images.list(&[]);
    let mut doomed: Vec<Name> = Vec::new();
    while let Some(image) = images.try_next().await? {
        if (args.all || is_dangling(&image)) && !used.contains(&image.name) {
            doomed.push(image.name);
        }
    }
    delete(context, &services, doomed).await
}

/// Returns the names of images that containers are made of.
async fn used(services: &Services) -> Outcome<BTreeSet<Name>> {
    let mut containers = services.containers.list(&[]);
    let mut used = BTreeSet::new();
    while let Some(container) = containers.try_next().await? {
        used.extend(container.image);
    }
    Ok(used)
}

/// Tells whether an image has no name that people would use.
fn is_dangling(image: &Image) -> bool {
    let name = image.name.as_str();
    match name.split_once('@') {
        // The name has a tag as well when there is a colon after the last slash.
        Some((before, digest)) if digest.parse::<Digest>().is_ok() => {
            !before.rsplit('/').next().is_some_and(|last| last.contains(':'))
        }
        _ => name.contains("<none>") || name.parse::<Digest>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Descriptor;

    use super::*;

    #[test]
    fn what_has_no_tag_is_dangling() {
        let digest = Descriptor::of("x", b"").digest;
        let dangling = |name: &str| is_dangling(&Image::new(name.parse().unwrap(), Descriptor::of("x", b"")));
        assert!(dangling(&format!("import-2026-11-29@{digest}")));
        assert!(dangling(&format!("quay.io/x/y@{digest}")));
        assert!(dangling(&digest.to_string()));
        assert!(!dangling("docker.io/library/redis:7"));
        assert!(!dangling(&format!("quay.io/x/y:1@{digest}")));
        assert!(!dangling("a name of my own"));
    }
}
