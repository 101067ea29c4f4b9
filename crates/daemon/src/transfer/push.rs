//! From the image store to a registry.

use std::sync::Arc;

use windlass::transfer::push::Object;
use windlass::transfer::{Push, push as carry_out};
use windlass_core::{Reference, Result};
use windlass_proto::containerd::types::transfer::{ImageStore, OciRegistry};

use super::Work;
use super::pull::{remote, selection};

/// Pushes an image: all of its platforms, or those that the source names.
pub(super) async fn push(work: &Work<'_>, from: ImageStore, to: OciRegistry) -> Result<()> {
    let reference: Reference = to.reference.parse()?;
    let remote = Arc::new(remote(work, &to.resolver.unwrap_or_default(), &to.reference)?);
    let services = work.host.services(&work.namespace.clone().into()).await?;
    let image = services.images.get(&from.name.parse()?).await?;
    work.reporter.step(format!("Pushing to {reference}"));
    work.reporter.image("pushing content", image.name.as_str(), &image.target);
    let options = Push {
        platforms: selection(&from.platforms)?,
        budget: work.pull.budget.clone(),
        priority: work.pull.priority,
        stop: work.stop.clone(),
        ..Push::default()
    };
    let object = Object::from(&image);
    carry_out(work.host, work.namespace, remote, &object, &reference, &options, work.tracker()).await?;
    work.reporter.ended("pushed content", image.name.as_str(), &image.target);
    work.reporter.totals(format!("Completed push to {reference}"));
    Ok(())
}
