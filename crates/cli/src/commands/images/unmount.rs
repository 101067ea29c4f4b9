//! `dist images unmount`: ends what `dist images mount` began.

use std::path::PathBuf;

use serde::Serialize;
use windlass::mount;
use windlass_core::error::IoResultExt;
use windlass_core::snapshot::{Info, Key};
use windlass_core::{Error, Host, Kind, Namespace, Result, Services};

use super::mount::{IMAGE_LABEL, is_mount_point, key};
use crate::context::{Context, is_root};
use crate::failure::Outcome;

/// Unmount an image from a directory. The directory stays.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "umount",
    after_help = "\
Examples:
  dist images unmount /mnt"
)]
pub(crate) struct Args {
    /// Directory that the image is mounted on.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Serialize)]
struct Report {
    directory: PathBuf,
}

/// Unmounts.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    if !is_root() {
        return Err(Error::permission_denied(format!("unmounting {} needs root", args.directory.display()))
            .hint("run it as root")
            .into());
    }
    let directory = args.directory.canonicalize().attempt(|| format!("open {}", args.directory.display()))?;
    let key = key(&directory)?;
    let engine = context.engine().await?;
    let namespace = &context.globals.namespace;
    let services = engine.services(&namespace.clone().into()).await?;
    if find_view(&services, &key).await?.is_none() {
        return Err(nothing_mounted(&engine, namespace, &directory.display().to_string(), &key).await?.into());
    }
    // 1. the mount  2. the view
    // A crash between them leaves a view, which running this again or the next mount on the directory removes.
    if is_mount_point(&directory)? {
        mount::unmount(&directory).map_err(|error| error.context(format!("unmount {}", directory.display())))?;
    }
    remove_view(&services, &key).await?;
    context.output().record(&Report { directory }, |report| report.directory.display().to_string())
}

/// Removes the view of a key, if there is one.
pub(super) async fn remove_view(services: &Services, key: &Key) -> Result<()> {
    match find_view(services, key).await? {
        Some((snapshotter, _)) => services.snapshotter(Some(&snapshotter))?.1.remove(key).await,
        None => Ok(()),
    }
}

/// Finds the view of a key in whichever snapshotter has it.
async fn find_view(services: &Services, key: &Key) -> Result<Option<(String, Info)>> {
    for (name, snapshotter) in &services.snapshotters {
        match snapshotter.stat(key).await {
            Ok(info) if info.labels.get(IMAGE_LABEL).is_some() => return Ok(Some((name.clone(), info))),
            Ok(_) => {}
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Explains that the directory shows no image of this namespace.
async fn nothing_mounted(host: &dyn Host, namespace: &Namespace, directory: &str, key: &Key) -> Result<Error> {
    let error = Error::not_found(format!("no image of namespace {namespace} is mounted on {directory}"));
    for other in host.services(&namespace.clone().into()).await?.namespaces.list().await? {
        if &other != namespace && find_view(&host.services(&other.clone().into()).await?, key).await?.is_some() {
            return Ok(error.hint(format!("one of namespace {other} is: `dist -n {other} images unmount {directory}`")));
        }
    }
    Ok(error.hint("`dist images mount` mounts one; anything else is unmounted by umount(8)"))
}
