//! From a registry to the image store.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use windlass::registry::{Anonymous, Credentials, PassedOver, PlainHttp, Remote};
use windlass::transfer::{Content, Parts, Pull, Pulled, Unpack};
use windlass_core::field::FieldMask;
use windlass_core::image::{Image, Name};
use windlass_core::platform::Selection;
use windlass_core::remote::{Fetcher, Pusher, Resolved, Resolver};
use windlass_core::{Descriptor as Found, Digest, Error, Reference, Result};
use windlass_grpc::transfer::PullOptions;
use windlass_proto::containerd::types::Platform;
use windlass_proto::containerd::types::transfer::{HttpDebug, ImageStore, OciRegistry, RegistryResolver};
use windlass_proto::windlass::services::transfer::v1 as ours;

use super::Work;
use super::credentials::Asked;
use super::progress::{Reporter, descriptor};

/// The smallest part of a blob, in bytes: each is a request of its own.
const SMALLEST_PART: u64 = 1 << 10;

/// Pulls an image, and records it under the name that the destination has.
pub(super) async fn pull(work: &Work<'_>, from: OciRegistry, to: ImageStore) -> Result<()> {
    let reference: Reference = from.reference.parse()?;
    let remote = remote(work, &from.resolver.unwrap_or_default(), &from.reference)?;
    let remote = Renamed { remote, name: name(&to)?, reporter: work.reporter, found: OnceLock::new() };
    work.reporter.step(format!("Resolving from {reference}"));
    let stop = work.stop.clone();
    let wanted = Pull { platforms: selection(&to.platforms)?, stop, ..told(work.pull.clone(), work.told)? };
    let mut passes: Vec<Pull> = Vec::new();
    for unpack in to.unpacks {
        let snapshotter = Some(unpack.snapshotter).filter(|name| !name.is_empty());
        if passes.iter().all(|pass| pass.snapshotter != snapshotter) {
            passes.push(Pull { unpack: Unpack::Yes, snapshotter, ..wanted.clone() });
        }
    }
    if passes.is_empty() {
        passes.push(Pull { unpack: Unpack::No, ..wanted.clone() });
    }
    if to.all_metadata {
        // Of the platforms that are not wanted, too.
        passes.push(Pull { platforms: Selection::All, metadata_only: true, unpack: Unpack::No, ..wanted });
    }
    let mut first = None;
    // What the first one brings, the others find here.
    for pass in passes {
        let pulled = carry_out(work, &remote, &reference, &pass).await?;
        label(work, &pulled.name, &to.labels).await?;
        first.get_or_insert(pulled);
    }
    if let Some(pulled) = &first {
        work.hold(&pulled.target).await?;
        work.reporter.ended("saved", &reference.to_string(), &pulled.target);
    }
    work.reporter.totals(format!("Completed pull from {reference}"));
    if let Some(pulled) = first {
        work.reporter.pulled(message(&pulled, &remote.remote.passed_over()));
    }
    Ok(())
}

async fn carry_out(work: &Work<'_>, remote: &Renamed<'_>, reference: &Reference, pass: &Pull) -> Result<Pulled> {
    let Work { host, namespace, .. } = *work;
    if work.told.fetch {
        return windlass::transfer::fetch(host, namespace, remote, reference, pass, work.tracker()).await;
    }
    windlass::transfer::pull(host, namespace, remote, reference, pass, work.tracker()).await
}

fn message(pulled: &Pulled, passed_over: &[PassedOver]) -> ours::Pulled {
    let Pulled { name, target, snapshots, artifacts, .. } = pulled;
    ours::Pulled {
        name: name.to_string(),
        target: Some(descriptor(target)),
        snapshots: snapshots.iter().map(ToString::to_string).collect(),
        artifacts: artifacts.clone(),
        passed_over: passed_over
            .iter()
            .map(|failed| windlass_grpc::transfer::passed_over(&failed.attempt, &failed.reason, failed.times))
            .collect(),
    }
}

/// Returns a pull with what a client of ours says of it.
fn told(pull: Pull, told: &PullOptions) -> Result<Pull> {
    let PullOptions { keep_layers, concurrent_downloads, part_threshold, part_size, parts_at_once, .. } = told.clone();
    let at_once = |what: &str, number: Option<u32>, configured: usize| match number {
        None => Ok(configured),
        Some(0) => Err(Error::invalid_argument(format!("no {what} at once"))),
        Some(number) => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
    };
    if part_size.is_some_and(|size| size < SMALLEST_PART) {
        return Err(Error::invalid_argument("parts are too small").hint("1 KiB is the least"));
    }
    Ok(Pull {
        ignore_space: told.ignore_space,
        metadata_only: told.metadata_only,
        content: match keep_layers {
            None => pull.content,
            Some(true) => Content::Keep,
            Some(false) => Content::Drop,
        },
        concurrent_downloads: at_once("downloads", concurrent_downloads, pull.concurrent_downloads)?,
        parts: Parts {
            threshold: part_threshold.unwrap_or(pull.parts.threshold),
            size: part_size.unwrap_or(pull.parts.size),
            at_once: at_once("parts", parts_at_once, pull.parts.at_once)?,
        },
        limit_rate: told.limit_rate.map_or(pull.limit_rate, NonZeroU64::new),
        priority: told.priority.as_deref().map_or(Ok(pull.priority), str::parse)?,
        ..pull
    })
}

/// Sets labels of an image.
async fn label(work: &Work<'_>, name: &Name, labels: &HashMap<String, String>) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let services = work.host.services(&work.namespace.clone().into()).await?;
    let image = services.images.get(name).await?;
    let paths: Vec<String> = labels.keys().map(|key| format!("labels.{key}")).collect();
    let mask = FieldMask::parse(paths.iter().map(String::as_str))?;
    let labels = labels.clone().into_iter().collect();
    services.images.update(&Image { labels, ..image }, &mask).await?;
    Ok(())
}

fn name(to: &ImageStore) -> Result<Option<Name>> {
    Some(to.name.as_str()).filter(|name| !name.is_empty()).map(str::parse).transpose()
}

/// Returns the platforms that are wanted: all of them when none is named, as containerd has it.
pub(super) fn selection(platforms: &[Platform]) -> Result<Selection> {
    if platforms.is_empty() {
        return Ok(Selection::All);
    }
    let named = platforms.iter().map(|it| {
        if it.os.is_empty() || it.architecture.is_empty() {
            return Err(Error::invalid_argument("a platform has an operating system and an architecture"));
        }
        Ok(windlass_core::Platform::new(&it.os, &it.architecture, Some(&it.variant)))
    });
    named.collect::<Result<Vec<_>>>().map(Selection::Best)
}

/// Returns the remote that a client asks for.
pub(super) fn remote(work: &Work<'_>, resolver: &RegistryResolver, reference: &str) -> Result<Remote> {
    if !resolver.headers.is_empty() {
        let names: Vec<&str> = resolver.headers.keys().map(String::as_str).collect();
        tracing::warn!("headers of the client are not sent to the registry: {}", names.join(", "));
    }
    if resolver.http_debug() != HttpDebug::Disabled {
        tracing::warn!("requests are not traced for a client; --log-level debug shows them");
    }
    let mut remote = work.remote.clone();
    if !resolver.host_dir.is_empty() {
        let directory = Path::new(&resolver.host_dir);
        // The client's working directory is not ours, and a name that is wrong would mean other hosts than were wanted.
        if !directory.is_absolute() || !directory.is_dir() {
            return Err(Error::invalid_argument(format!(
                "{} is not a directory of hosts on this machine",
                directory.display()
            ))
            .hint("name the whole path of one that the daemon sees"));
        }
        remote = remote.with_hosts_dirs(vec![directory.to_owned()]);
    }
    match resolver.default_scheme.as_str() {
        "" => {}
        "http" => remote = remote.with_plain_http(PlainHttp::Always),
        "https" => remote = remote.with_plain_http(PlainHttp::Never),
        other => return Err(Error::invalid_argument(format!("scheme {other:?} is neither http nor https"))),
    }
    // Each transfer has credentials and tokens of its own, if only none: nobody pulls with what another client brought.
    let credentials: Arc<dyn Credentials> = match resolver.auth_stream.as_str() {
        "" => Arc::new(Anonymous),
        stream => Arc::new(Asked::new(work.stream(stream)?, reference.to_owned())),
    };
    Ok(remote.with_credentials(credentials))
}

/// A remote whose images are recorded under another name.
struct Renamed<'a> {
    remote: Remote,
    name: Option<Name>,
    /// Who is told what was resolved.
    reporter: &'a Reporter,
    /// What the remote calls the image that was resolved.
    found: OnceLock<Name>,
}

impl Renamed<'_> {
    /// Returns what the remote calls an image.
    fn of_remote<'a>(&'a self, name: &'a Name) -> &'a Name {
        if self.name.as_ref() == Some(name) { self.found.get().unwrap_or(name) } else { name }
    }
}

#[async_trait]
impl Resolver for Renamed<'_> {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let resolved = self.remote.resolve(reference).await?;
        self.reporter.step(format!("Pulling from {reference}"));
        self.reporter.image("fetching image content", &reference.to_string(), &resolved.descriptor);
        let Some(name) = &self.name else { return Ok(resolved) };
        let Resolved { name: found, descriptor } = resolved;
        self.found.get_or_init(|| found);
        Ok(Resolved { name: name.clone(), descriptor })
    }

    async fn fetcher(&self, name: &Name) -> Result<Arc<dyn Fetcher>> {
        self.remote.fetcher(self.of_remote(name)).await
    }

    async fn pusher(&self, name: &Name) -> Result<Arc<dyn Pusher>> {
        self.remote.pusher(self.of_remote(name)).await
    }

    async fn referrers(&self, name: &Name, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Found>> {
        self.remote.referrers(self.of_remote(name), subject, artifact_type).await
    }
}
