//! From a registry to the image store.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use windlass::registry::{Options, PlainHttp, Remote};
use windlass::transfer::{Pull, Unpack, pull as carry_out};
use windlass_core::field::FieldMask;
use windlass_core::image::{Image, Name};
use windlass_core::platform::Selection;
use windlass_core::remote::{Fetcher, Pusher, Resolved, Resolver};
use windlass_core::{Error, Labels, Reference, Result};
use windlass_proto::containerd::types::Platform;
use windlass_proto::containerd::types::transfer::{HttpDebug, ImageStore, OciRegistry, RegistryResolver};

use super::Work;
use super::credentials::Asked;

/// Pulls an image, and records it under the name that the destination has.
pub(super) async fn pull(work: &Work<'_>, from: OciRegistry, to: ImageStore) -> Result<()> {
    let reference: Reference = from.reference.parse()?;
    let remote = remote(work, &from.resolver.unwrap_or_default(), &from.reference)?;
    let remote = Renamed { remote, name: name(&to)?, found: OnceLock::new() };
    work.reporter.step(format!("Resolving from {reference}"));
    let options = Pull { platforms: selection(&to.platforms)?, metadata_only: to.all_metadata, ..work.pull.clone() };
    let mut snapshotters: Vec<String> = Vec::new();
    for unpack in to.unpacks {
        if !snapshotters.contains(&unpack.snapshotter) {
            snapshotters.push(unpack.snapshotter);
        }
    }
    if snapshotters.is_empty() {
        let options = Pull { unpack: Unpack::No, ..options.clone() };
        carry_out(work.host, work.namespace, &remote, &reference, &options, work.tracker()).await?;
    }
    // What the first one brought, the others find here.
    for snapshotter in snapshotters {
        let snapshotter = Some(snapshotter).filter(|name| !name.is_empty());
        let options = Pull { unpack: Unpack::Yes, metadata_only: false, snapshotter, ..options.clone() };
        carry_out(work.host, work.namespace, &remote, &reference, &options, work.tracker()).await?;
    }
    label(work, remote.name.as_ref(), to.labels.into_iter().collect()).await?;
    work.reporter.totals(format!("Completed pull from {reference}"));
    Ok(())
}

/// Sets labels of an image.
async fn label(work: &Work<'_>, name: Option<&Name>, labels: Labels) -> Result<()> {
    let Some(name) = name.filter(|_| !labels.is_empty()) else { return Ok(()) };
    let services = work.host.services(&work.namespace.clone().into()).await?;
    let image = services.images.get(name).await?;
    let paths: Vec<String> = labels.iter().map(|(key, _)| format!("labels.{key}")).collect();
    let mask = FieldMask::parse(paths.iter().map(String::as_str))?;
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

fn remote(work: &Work<'_>, resolver: &RegistryResolver, reference: &str) -> Result<Remote> {
    if !resolver.host_dir.is_empty() {
        return Err(Error::unimplemented(format!("the hosts in {:?} cannot be read yet", resolver.host_dir))
            .hint("leave the directory of hosts out"));
    }
    if !resolver.headers.is_empty() {
        let names: Vec<&str> = resolver.headers.keys().map(String::as_str).collect();
        tracing::warn!("headers of the client are not sent to the registry: {}", names.join(", "));
    }
    if resolver.http_debug() != HttpDebug::Disabled {
        tracing::warn!("requests are not traced for a client; --log-level debug shows them");
    }
    let mut options = Options::default();
    match resolver.default_scheme.as_str() {
        "" => {}
        "http" => options.plain_http = PlainHttp::Always,
        "https" => options.plain_http = PlainHttp::Never,
        other => return Err(Error::invalid_argument(format!("scheme {other:?} is neither http nor https"))),
    }
    if !resolver.auth_stream.is_empty() {
        options.credentials = Arc::new(Asked::new(work.stream(&resolver.auth_stream)?, reference.to_owned()));
    }
    Remote::new(options)
}

/// A remote whose images are recorded under another name.
struct Renamed {
    remote: Remote,
    name: Option<Name>,
    /// What the remote calls the image that was resolved.
    found: OnceLock<Name>,
}

impl Renamed {
    /// Returns what the remote calls an image.
    fn of_remote<'a>(&'a self, name: &'a Name) -> &'a Name {
        if self.name.as_ref() == Some(name) { self.found.get().unwrap_or(name) } else { name }
    }
}

#[async_trait]
impl Resolver for Renamed {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let resolved = self.remote.resolve(reference).await?;
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
}
