//! What is attached to an image, brought along with it: signatures, lists of parts, and whatever else names it as its
//! subject.
//!
//! Each is an artifact: a manifest with blobs. The record of the manifest that it is attached to keeps it alive, by a label, so
//! that it goes when the image goes. What is attached to something attached is not looked for.

use windlass_core::content::Store;
use windlass_core::document::Root;
use windlass_core::field::FieldMask;
use windlass_core::media_type::Role;
use windlass_core::remote::{Resolved, Resolver};
use windlass_core::{Descriptor, Digest, Result, ResultExt as _, gc};

use crate::fetch::Fetch;
use crate::plan::{AttachedPlan, BlobPlan, Plan};

/// How many artifacts of one manifest are brought.
const MAX_ATTACHED: usize = 256;

/// Which artifacts are brought that are attached to an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Referrers {
    /// None.
    #[default]
    None,
    /// All of them.
    All,
    /// Those of these types.
    Of(Vec<String>),
}

impl Referrers {
    /// Lists what is wanted of what is attached to a manifest.
    async fn list(&self, resolver: &dyn Resolver, resolved: &Resolved, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut all = match self {
            Self::None => Vec::new(),
            Self::All => resolver.referrers(&resolved.name, subject, None).await?,
            // One question, whatever the number of types: few registries can filter by several.
            Self::Of(kinds) => match kinds.as_slice() {
                [kind] => resolver.referrers(&resolved.name, subject, Some(kind)).await?,
                kinds => {
                    let mut all = resolver.referrers(&resolved.name, subject, None).await?;
                    all.retain(|it| it.artifact_type.as_ref().is_some_and(|kind| kinds.contains(kind)));
                    all
                }
            },
        };
        if all.len() > MAX_ATTACHED {
            tracing::warn!(%subject, "{} artifacts are attached, and {MAX_ATTACHED} are brought", all.len());
            all.truncate(MAX_ATTACHED);
        }
        Ok(all)
    }
}

/// Adds what is attached to the target and to the images of a plan.
pub(crate) async fn add(
    plan: &mut Plan,
    fetch: &Fetch,
    resolver: &dyn Resolver,
    resolved: &Resolved,
    wanted: &Referrers,
) -> Result<()> {
    let mut subjects = vec![plan.target.digest.clone()];
    for image in &plan.images {
        if !subjects.contains(&image.manifest.digest) {
            subjects.push(image.manifest.digest.clone());
        }
    }
    for subject in subjects {
        let listed = wanted.list(resolver, resolved, &subject).await;
        for descriptor in listed.context(|| format!("list what is attached to {subject}"))? {
            if descriptor.media_type.role() != Role::Manifest {
                tracing::warn!(digest = %descriptor.digest, media_type = %descriptor.media_type, "left out: it is no artifact");
                continue;
            }
            let what = || format!("fetch what is attached to {subject}");
            if let Root::Manifest(manifest) = fetch.root(&descriptor).await.context(what)? {
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    if !plan.blobs.iter().any(|other| other.descriptor.digest == blob.digest) {
                        let present = fetch.has(&blob.digest).await?;
                        plan.blobs.push(BlobPlan { descriptor: blob.clone(), present });
                    }
                }
                plan.attached.push(AttachedPlan { subject: subject.clone(), manifest: descriptor });
            }
        }
    }
    Ok(())
}

/// Has each manifest keep alive what is attached to it.
pub(crate) async fn keep(content: &dyn Store, plan: &Plan) -> Result<()> {
    for AttachedPlan { subject, manifest } in &plan.attached {
        let label = gc::referrer_label(&manifest.digest);
        let mask = FieldMask::parse([format!("labels.{label}").as_str()])?;
        let mut info = content.info(subject).await?;
        info.labels.set(&label, manifest.digest.to_string());
        content.update(&info, &mask).await?;
    }
    Ok(())
}
