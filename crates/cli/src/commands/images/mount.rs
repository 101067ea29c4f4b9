//! `dist images mount`: an image's root filesystem, to look into.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use windlass::fsck::view_key;
use windlass::mount;
use windlass::transfer::rootfs;
use windlass_core::error::IoResultExt;
use windlass_core::image::Name;
use windlass_core::snapshot::{Mount, VIEW_LABEL};
use windlass_core::{Error, Labels, Platform, Result, Services, gc};

use super::find;
use crate::context::{Context, is_root};
use crate::failure::Outcome;

/// Mount the root filesystem of an image on a directory, read-only.
///
/// The directory is created when it is missing. The mount keeps what it shows: removing the image does not take it away.
/// `dist images unmount` ends it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dist images mount redis /mnt
  ls /mnt/etc
  dist images unmount /mnt")]
pub(crate) struct Args {
    /// Image, by its name; it must have been pulled.
    #[arg(value_name = "REF")]
    name: String,
    /// Directory to mount on.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Platform, such as linux/arm64 [default: this machine's].
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Snapshotter that it is unpacked in.
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
}

#[derive(Serialize)]
struct Report {
    name: Name,
    directory: PathBuf,
    mounts: Vec<Mount>,
}

/// Mounts.
pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    if !is_root() {
        return Err(Error::permission_denied(format!("mounting on {} needs root", args.directory.display()))
            .hint("run it as root")
            .into());
    }
    let services = context.services().await?;
    let image = find(&services, &args.name).await?;
    let created = create(&args.directory)?;
    let mounted = mount_on(&services, &args, &image.name).await;
    if let (Err(_), Some(created)) = (&mounted, &created) {
        // Fails only when something has appeared in it since, which is a reason to leave it.
        let _ = std::fs::remove_dir(created);
    }
    let (directory, mounts) = mounted?;
    let report = Report { name: image.name, directory, mounts };
    context.output().record(&report, |report| report.directory.display().to_string())
}

async fn mount_on(services: &Services, args: &Args, name: &Name) -> Result<(PathBuf, Vec<Mount>)> {
    let directory = args.directory.canonicalize().attempt(|| format!("open {}", args.directory.display()))?;
    let key = view_key(&directory)?;
    if mount::mounted_at(&directory)?.is_some() {
        return Err(Error::already_exists(format!("{} is a mount point already", directory.display())).hint(format!(
            "`dist images unmount {}` unmounts an image, umount(8) anything else",
            directory.display()
        )));
    }
    // A view that nothing shows was left by a mount that died or by a restart of the machine.
    super::unmount::remove_view(services, &key).await?;
    // 1. the view, which keeps what it shows from being collected  2. the mount
    // A crash between them leaves a view, which the next mount on the directory or its unmount removes.
    let labels = Labels::new()
        .with(gc::ROOT, humantime::format_rfc3339_seconds(SystemTime::now()).to_string())
        .with(VIEW_LABEL, name.to_string());
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let mounts = rootfs::view(services, name, &platform, args.snapshotter.as_deref(), &key, labels).await?;
    if let Err(error) = mount::mount_all(&mounts, &directory) {
        super::unmount::remove_view(services, &key).await?;
        return Err(error.context(format!("mount {name} on {}", directory.display())));
    }
    Ok((directory, mounts))
}

/// Creates the directory if it is missing, and returns it if so. Its parent has to be there.
fn create(directory: &Path) -> Result<Option<PathBuf>> {
    match std::fs::create_dir(directory) {
        Ok(()) => Ok(Some(directory.to_owned())),
        Err(_) if directory.is_dir() => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::failed_precondition(format!("{} is not a directory", directory.display())))
        }
        Err(error) => Err(Error::io(format!("create directory {}", directory.display()), error)),
    }
}
