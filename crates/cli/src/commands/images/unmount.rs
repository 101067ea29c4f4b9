//! `dist images unmount`: ends what `dist images mount` began.

use std::path::{Path, PathBuf};

use serde::Serialize;
use windlass::fsck::view_key;
use windlass::mount::{self, MountedAt};
use windlass_core::error::IoResultExt;
use windlass_core::snapshot::{Info, Key, Mount, VIEW_LABEL};
use windlass_core::{Error, Host, Kind, Namespace, Result, Services};

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
    let key = view_key(&directory)?;
    let host = context.host().await?;
    let namespace = &context.globals.namespace;
    let services = host.services(&namespace.clone().into()).await?;
    let Some((snapshotter, _)) = find_view(&services, &key).await? else {
        return Err(nothing_mounted(&*host, namespace, &directory.display().to_string(), &key).await?.into());
    };
    // 1. the mount  2. the view  3. the layers, if the image was removed in the meantime
    // A crash after 1 leaves a view, which running this again or the next mount on the directory removes; one after 2 leaves
    // layers for the next collection.
    if let Some(mounted) = mount::mounted_at(&directory)? {
        let mounts = services.snapshotter(Some(&snapshotter))?.1.mounts(&key).await?;
        if !shows(&mounted, &mounts) {
            let problem = format!("what is mounted on {} now is not the image", directory.display());
            return Err(Error::failed_precondition(problem).hint("unmount it with umount(8) first").into());
        }
        mount::unmount_all(&mounts, &directory)
            .map_err(|error| error.context(format!("unmount {}", directory.display())))?;
    }
    remove_view(&services, &key).await?;
    // Where nobody can be asked to, layers of an image that was removed meanwhile go by themselves.
    if let Some(collector) = &services.collector {
        collector.collect().await?;
    }
    context.output().record(&Report { directory }, |report| report.directory.display().to_string())
}

/// Tells whether what is mounted is what these mounts make: an overlay of the view's directories, or a bind mount or an
/// image of its only one. Anything else was mounted on the directory by somebody else, and is theirs to unmount.
fn shows(mounted: &MountedAt, mounts: &[Mount]) -> bool {
    let Some(mount) = mounts.last() else { return false };
    if let Some(image) = mounted.image() {
        return image == Path::new(&mount.source);
    }
    match mounted.layers() {
        Some(layers) => layers
            .lowers
            .first()
            .and_then(|lower| lower.to_str())
            .map_or(mount.kind == "overlay", |lower| mount.options.iter().any(|option| option.contains(lower))),
        None => mounted
            .root
            .strip_prefix("/")
            .is_ok_and(|root| root.components().next().is_some() && Path::new(&mount.source).ends_with(root)),
    }
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
    for (name, snapshotter) in services.snapshotters.iter() {
        match snapshotter.stat(key).await {
            Ok(info) if info.labels.get(VIEW_LABEL).is_some() => return Ok(Some((name.clone(), info))),
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
