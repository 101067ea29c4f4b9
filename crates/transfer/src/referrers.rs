//! What is attached to an image, brought along with it: signatures, lists of parts, and whatever else names it as its
//! subject, or is under a tag that is made of its digest (`tagged`).
//!
//! Each is an artifact: a manifest with blobs. The record of the manifest that it is attached to keeps it alive, by a label, so
//! that it goes when the image goes. What is attached to something attached, such as the signature of a list of parts, comes along
//! in the same way, as deep and as much as it may be.

mod tagged;

use std::collections::{BTreeSet, VecDeque};

use windlass_core::content::Store;
use windlass_core::document::{Manifest, Root};
use windlass_core::field::FieldMask;
use windlass_core::media_type::Role;
use windlass_core::remote::Resolver;
use windlass_core::{Descriptor, Digest, Reference, Result, ResultExt as _, gc, image};

use crate::fetch::{Fetch, read_document};
use crate::plan::{AttachedPlan, BlobPlan, Plan, artifact_type};
use tagged::tagged;

pub(crate) use tagged::{SIGNATURES, tag};

/// How many artifacts of one manifest are brought.
const MAX_ATTACHED: usize = 256;
/// How many artifacts are brought in all.
const MAX_IN_ALL: usize = 1024;
/// How many manifests are asked about, for each of which the registry gets some requests.
const MAX_ASKED: usize = 200;
/// How deep it is looked: a signature of a list of parts of an image is two.
pub const MAX_DEPTH: usize = 4;

/// Which artifacts are brought that are attached to an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Referrers {
    /// None.
    #[default]
    None,
    /// All of them.
    All,
    /// Those of these types, and those of these types that are attached to them.
    Of(Vec<String>),
}

impl Referrers {
    fn want(&self, artifact_type: Option<&str>) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Of(kinds) => artifact_type.is_some_and(|found| kinds.iter().any(|kind| kind == found)),
        }
    }

    /// Lists what is wanted of what a remote lists as attached to a manifest.
    async fn list(&self, resolver: &dyn Resolver, name: &image::Name, subject: &Digest) -> Result<Vec<Descriptor>> {
        // One question, whatever the number of types: few registries can filter by several.
        let kind = match self {
            Self::Of(kinds) => match kinds.as_slice() {
                [kind] => Some(kind.as_str()),
                _ => None,
            },
            Self::None | Self::All => None,
        };
        let mut all = resolver.referrers(name, subject, kind).await?;
        all.retain(|it| kind.is_some() || self.want(it.artifact_type.as_deref()));
        if all.len() > MAX_ATTACHED {
            tracing::warn!(%subject, "{} artifacts are attached, and {MAX_ATTACHED} are brought", all.len());
            all.truncate(MAX_ATTACHED);
        }
        Ok(all)
    }
}

/// Something that is attached to a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its manifest, with the type of the artifact.
    pub descriptor: Descriptor,
    /// The tag that it was found under; none when it is in the remote's list of referrers.
    pub tag: Option<String>,
}

/// Lists what is attached to a manifest of an image, by the remote's list and by tags; with a type, only artifacts of that. Nothing
/// is stored.
///
/// # Errors
/// Those of the resolver and the fetcher.
pub async fn attached(
    resolver: &dyn Resolver,
    reference: &Reference,
    name: &image::Name,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<Vec<Attached>> {
    let listed = resolver.referrers(name, subject, artifact_type).await?;
    let mut all: Vec<Attached> = listed.into_iter().map(|descriptor| Attached { descriptor, tag: None }).collect();
    for (tag, descriptor) in tagged(resolver, reference, subject).await? {
        if all.iter().any(|other| other.descriptor.digest == descriptor.digest) {
            continue;
        }
        let descriptor = typed(resolver, name, descriptor).await?;
        if artifact_type.is_none() || descriptor.artifact_type.as_deref() == artifact_type {
            all.push(Attached { descriptor, tag: Some(tag) });
        }
    }
    Ok(all)
}

/// Reads of a manifest which type of artifact it is.
async fn typed(resolver: &dyn Resolver, name: &image::Name, descriptor: Descriptor) -> Result<Descriptor> {
    if descriptor.media_type.role() != Role::Manifest {
        return Ok(descriptor);
    }
    let bytes = read_document(&*resolver.fetcher(name).await?, &descriptor).await?;
    let manifest = Manifest::parse(&descriptor, &bytes)?;
    Ok(Descriptor { artifact_type: Some(artifact_type(&manifest)), ..descriptor })
}

/// Adds what is attached to the target and to the images of a plan, and to that.
pub(crate) async fn add(
    plan: &mut Plan,
    fetch: &Fetch,
    resolver: &dyn Resolver,
    reference: &Reference,
    wanted: &Referrers,
) -> Result<()> {
    if *wanted == Referrers::None {
        return Ok(());
    }
    let images = plan.images.iter().map(|image| &image.manifest.digest);
    let mut subjects: VecDeque<(Digest, usize)> =
        std::iter::once(&plan.target.digest).chain(images).map(|digest| (digest.clone(), 1)).collect();
    let mut asked = BTreeSet::new();
    // What is attached to two manifests, or to itself in a circle, is asked about once.
    while let Some((subject, depth)) = subjects.pop_front() {
        if asked.contains(&subject) {
            continue;
        }
        if asked.len() == MAX_ASKED || plan.attached.len() >= MAX_IN_ALL {
            tracing::warn!(
                "so much is attached that the rest is left out: {MAX_ASKED} manifests are asked about, and {MAX_IN_ALL} artifacts \
                 brought, or a few more"
            );
            break;
        }
        asked.insert(subject.clone());
        let found = of(plan, fetch, resolver, reference, wanted, &subject).await;
        let found = found.context(|| format!("bring what is attached to {subject}"))?;
        if depth < MAX_DEPTH {
            subjects.extend(found.into_iter().map(|digest| (digest, depth + 1)));
        }
    }
    Ok(())
}

/// Adds what is attached to one manifest, and returns the manifests of that.
async fn of(
    plan: &mut Plan,
    fetch: &Fetch,
    resolver: &dyn Resolver,
    reference: &Reference,
    wanted: &Referrers,
    subject: &Digest,
) -> Result<Vec<Digest>> {
    let listed = wanted.list(resolver, &plan.name, subject).await?;
    let by_tag = tagged(resolver, reference, subject).await?;
    let by_tag = by_tag.into_iter().map(|(_, descriptor)| descriptor);
    let mut found: Vec<Digest> = Vec::new();
    // Of what a list has, the list has said the type.
    for (descriptor, has_type) in listed.into_iter().map(|it| (it, true)).chain(by_tag.map(|it| (it, false))) {
        if descriptor.media_type.role() != Role::Manifest {
            tracing::warn!(digest = %descriptor.digest, media_type = %descriptor.media_type, "left out: it is no artifact");
            continue;
        }
        if descriptor.digest == *subject || found.contains(&descriptor.digest) {
            continue;
        }
        let Root::Manifest(manifest) = fetch.root(&descriptor).await? else { continue };
        if !has_type && !wanted.want(Some(&artifact_type(&manifest))) {
            continue;
        }
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if !plan.blobs.iter().any(|other| other.descriptor.digest == blob.digest) {
                let present = fetch.has(&blob.digest).await?;
                plan.blobs.push(BlobPlan { descriptor: blob.clone(), present });
            }
        }
        found.push(descriptor.digest.clone());
        plan.attached.push(AttachedPlan { subject: subject.clone(), manifest: descriptor });
    }
    Ok(found)
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
