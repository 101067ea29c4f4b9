//! Blobs, brought again from where they came.

use std::collections::BTreeMap;

use windlass_core::content::Info;
use windlass_core::fsck::{Finding, Problem};
use windlass_core::progress::Tracker;
use windlass_core::remote::Resolver;
use windlass_core::{Descriptor, Digest, Host, Kind, Labels, Leased, Namespace, Result, lease};
use windlass_transfer::repair::{Inventory, fetch as fetch_again, opaque, sources};

use super::{Failed, note_failure};
use crate::Engine;
use crate::parts::Parts;

/// Fetches every blob that is damaged or missing. Documents come first: what they refer to says more of the others.
pub(super) async fn fetch(
    parts: &Parts,
    host: &Engine,
    findings: &[Finding],
    resolver: &dyn Resolver,
    progress: &Tracker,
    failed: &mut Failed,
) -> Result<()> {
    let mut wanted: Vec<(&Finding, Digest, u64)> = findings.iter().filter_map(wanted).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    for (finding, digest, _) in &wanted {
        if !matches!(finding.problem, Problem::TargetMissing { .. }) {
            parts.store.condemn(digest);
        }
    }
    let mut inventories = inventories(host).await?;
    // The nearer to the image, the smaller.
    wanted.sort_by_key(|(_, digest, size)| (rank(&inventories, digest), *size));
    for (finding, digest, size) in wanted {
        let is_document = rank(&inventories, &digest) == 0;
        let fetched = one(host, &inventories, finding, &digest, size, resolver, progress).await;
        let fetched = match fetched {
            Ok(()) => resize(parts, host, &inventories, &digest).await,
            failed => failed,
        };
        note_failure(failed, finding, fetched);
        if is_document {
            inventories = self::inventories(host).await?;
        }
    }
    Ok(())
}

fn wanted(finding: &Finding) -> Option<(&Finding, Digest, u64)> {
    match &finding.problem {
        Problem::BlobMissing { digest, size }
        | Problem::BlobSize { digest, size, .. }
        | Problem::BlobDigest { digest, size, .. }
        | Problem::BlobUnreadable { digest, size, .. }
        | Problem::TargetMissing { target: digest, size, .. } => Some((finding, digest.clone(), *size)),
        _ => None,
    }
}

type Inventories = BTreeMap<Namespace, Inventory>;

pub(super) async fn inventories(host: &Engine) -> Result<Inventories> {
    let mut inventories = Inventories::new();
    for namespace in host.store.namespaces().list().await? {
        let services = host.services(&namespace.clone().into()).await?;
        let inventory = match Inventory::of(&services).await {
            // A record that cannot be read is repaired by itself; there is no telling what its image leads to.
            Err(error) if error.is(Kind::DataLoss) => {
                tracing::warn!(%namespace, %error, "what the images of the namespace are made of is not known");
                Inventory::default()
            }
            inventory => inventory?,
        };
        inventories.insert(namespace, inventory);
    }
    Ok(inventories)
}

fn descriptor<'a>(inventories: &'a Inventories, digest: &Digest) -> Option<&'a Descriptor> {
    inventories.values().find_map(|inventory| inventory.descriptors.get(digest))
}

/// Documents before everything else.
fn rank(inventories: &Inventories, digest: &Digest) -> u8 {
    let document = descriptor(inventories, digest).is_some_and(|found| found.media_type.is_manifest_or_index());
    u8::from(!document)
}

/// Fetches one blob in each namespace that has it until one succeeds: the bytes are the same for all.
async fn one(
    host: &Engine,
    inventories: &Inventories,
    finding: &Finding,
    digest: &Digest,
    size: u64,
    resolver: &dyn Resolver,
    progress: &Tracker,
) -> Result<()> {
    // What was recorded of a damaged blob may be the size of its damaged file.
    let descriptor = descriptor(inventories, digest).cloned().unwrap_or_else(|| opaque(digest, size));
    let (records, _) = records(host, inventories, digest).await?;
    let namespace = match &finding.problem {
        Problem::TargetMissing { namespace, .. } => namespace.clone(),
        _ => records.first().map(|(namespace, _)| namespace.clone()).unwrap_or_default(),
    };
    let options = lease::Options { expiry: Some(lease::DEFAULT_EXPIRY), ..lease::Options::default() };
    let leased = Leased::acquire(host, &namespace, options).await?;
    let fetched = bring(host, inventories, &leased, &descriptor, resolver, progress).await;
    leased.release(windlass_core::gc::Deletion::Background).await?;
    fetched
}

/// Brings a blob from wherever it, or what it belongs to, is said to have come from.
pub(super) async fn bring(
    host: &Engine,
    inventories: &Inventories,
    leased: &Leased,
    descriptor: &Descriptor,
    resolver: &dyn Resolver,
    progress: &Tracker,
) -> Result<()> {
    let digest = &descriptor.digest;
    let (_, labels) = records(host, inventories, digest).await?;
    let images: Vec<_> = inventories.values().filter_map(|inventory| inventory.images.get(digest)).flatten().collect();
    fetch_again(leased, resolver, descriptor, &sources(digest, &labels, images), progress).await
}

/// Writes the size that a blob has into the records that have another one.
async fn resize(parts: &Parts, host: &Engine, inventories: &Inventories, digest: &Digest) -> Result<()> {
    let Some(Descriptor { size: found, .. }) = descriptor(inventories, digest) else { return Ok(()) };
    let (records, _) = records(host, inventories, digest).await?;
    for (namespace, info) in records.into_iter().filter(|(_, info)| info.size != *found) {
        let (digest, recorded, found) = (digest.clone(), info.size, *found);
        parts.store.mend(&Finding::new(Problem::RecordSize { namespace, digest, recorded, found })).await?;
    }
    Ok(())
}

/// Returns the records of a blob, and the labels that may say where it came from: its own, and those of what is in the same
/// images.
async fn records(
    host: &Engine,
    inventories: &Inventories,
    digest: &Digest,
) -> Result<(Vec<(Namespace, Info)>, Vec<Labels>)> {
    let (mut records, mut own, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (namespace, inventory) in inventories {
        let content = host.store.content(&namespace.clone().into());
        match content.info(digest).await {
            Ok(info) => {
                own.push(info.labels.clone());
                records.push((namespace.clone(), info));
            }
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
        let Some(of) = inventory.images.get(digest) else { continue };
        let related = inventory.images.iter().filter(|(_, images)| !images.is_disjoint(of)).map(|(digest, _)| digest);
        for related in related {
            if let Ok(info) = content.info(related).await {
                others.push(info.labels);
            }
        }
    }
    own.extend(others);
    Ok((records, own))
}
