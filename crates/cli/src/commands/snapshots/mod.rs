//! `dist snapshots`: unpacked layers, and what stands on them.

mod begin;
mod diff;
mod tree;
mod unpack;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use futures::TryStreamExt;
use serde::Serialize;
use windlass_core::filter::Filter;
use windlass_core::snapshot::{EROFS_LOWER, Info, Key, Mount, Usage};

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{age, count, fields, labels, quoted, size};

/// List snapshots, make, compare, label and remove them.
#[derive(Debug, Subcommand)]
#[command(visible_aliases = ["snapshot", "snap"])]
pub(crate) enum Command {
    /// List snapshots: those of layers, under their chain ids, and those that stand on them.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        of: Of,
        /// Print keys only.
        #[arg(short, long)]
        quiet: bool,
        /// Filters, any of which must match: kind==view, name==x, parent==x, labels.x.
        #[arg(value_name = "FILTER")]
        filters: Vec<Filter>,
    },
    /// Print the mounts of an active snapshot or a view, as mount(8) commands or as JSON.
    #[command(visible_alias = "mount")]
    Mounts {
        #[command(flatten)]
        of: Of,
        /// Snapshot.
        #[arg(value_name = "KEY")]
        key: Key,
        /// Directory to mount on.
        #[arg(value_name = "DIR", default_value = "DIR")]
        directory: PathBuf,
    },
    Prepare(begin::Args),
    View(begin::ViewArgs),
    Commit(begin::CommitArgs),
    Diff(diff::Args),
    Unpack(unpack::Args),
    Tree(tree::Args),
    /// Show the record of a snapshot, and what it takes up.
    #[command(visible_alias = "usage")]
    Info {
        #[command(flatten)]
        of: Of,
        /// Snapshot.
        #[arg(value_name = "KEY")]
        key: Key,
    },
    Label(begin::LabelArgs),
    /// Remove snapshots; those that others stand on are refused.
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        #[command(flatten)]
        of: Of,
        /// Snapshots.
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<Key>,
    },
}

/// Which snapshotter.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    /// Snapshotter [default: overlayfs as root, native otherwise].
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
}

/// A snapshot in a list.
#[derive(Serialize)]
struct Row<'a> {
    snapshotter: &'a str,
    #[serde(flatten)]
    info: Info,
}

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Ls { of, quiet, filters } => list(context, &of, quiet, &filters).await,
        Command::Mounts { of, key, directory } => mounts(context, &of, &key, &directory).await,
        Command::Prepare(args) => begin::prepare(context, args).await,
        Command::View(args) => begin::view(context, args).await,
        Command::Commit(args) => begin::commit(context, args).await,
        Command::Diff(args) => diff::run(context, args).await,
        Command::Unpack(args) => unpack::run(context, args).await,
        Command::Tree(args) => tree::run(context, &args).await,
        Command::Info { of, key } => info(context, &of, &key).await,
        Command::Label(args) => begin::label(context, args).await,
        Command::Rm { of, keys } => remove(context, &of, &keys).await,
    }
}

async fn list(context: &Context, of: &Of, quiet: bool, filters: &[Filter]) -> Outcome {
    let services = context.services().await?;
    let (name, snapshotter) = services.snapshotter(of.snapshotter.as_deref())?;
    let mut snapshots = snapshotter.walk(filters);
    let output = context.output();
    if quiet {
        let mut list = output.names();
        while let Some(info) = snapshots.try_next().await? {
            list.push(&info.key)?;
        }
        return list.finish();
    }
    let mut list = output.list(["KEY", "KIND", "PARENT", "CREATED", "LABELS"]);
    while let Some(info) = snapshots.try_next().await? {
        list.push(&Row { snapshotter: name, info }, |Row { info, .. }| {
            let parent = info.parent.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            [info.key.to_string(), info.state.to_string(), parent, age(info.created_at), labels(&info.labels)]
        })?;
    }
    list.finish()
}

async fn mounts(context: &Context, of: &Of, key: &Key, directory: &Path) -> Outcome {
    let services = context.services().await?;
    let (_, snapshotter) = services.snapshotter(of.snapshotter.as_deref())?;
    print_mounts(context, &snapshotter.mounts(key).await?, directory)
}

fn print_mounts(context: &Context, mounts: &Vec<Mount>, directory: &Path) -> Outcome {
    let commands = |mounts: &Vec<Mount>| mounts.iter().map(|mount| command(mount, directory)).collect::<Vec<_>>();
    context.output().record(mounts, |mounts| commands(mounts).join("\n"))
}

/// A snapshot with what it takes up.
#[derive(Serialize)]
struct Measured<'a> {
    snapshotter: &'a str,
    #[serde(flatten)]
    info: Info,
    usage: Usage,
}

async fn info(context: &Context, of: &Of, key: &Key) -> Outcome {
    let services = context.services().await?;
    let (name, snapshotter) = services.snapshotter(of.snapshotter.as_deref())?;
    let info = snapshotter.stat(key).await?;
    let usage = snapshotter.usage(key).await?;
    context.output().record(&Measured { snapshotter: name, info, usage }, |Measured { snapshotter, info, usage }| {
        fields(&[
            ("key", info.key.to_string()),
            ("snapshotter", (*snapshotter).to_owned()),
            ("kind", info.state.to_string()),
            ("parent", info.parent.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
            ("size", format!("{} ({})", size(usage.bytes), count(usage.inodes, "inode"))),
            ("created", age(info.created_at)),
            ("updated", age(info.updated_at)),
            ("labels", labels(&info.labels)),
        ])
    })
}

/// Writes a mount as a command for a shell.
fn command(mount: &Mount, directory: &Path) -> String {
    let target = directory.join(mount.target.trim_start_matches('/')).display().to_string();
    let mut target = target.strip_suffix('/').filter(|target| !target.is_empty()).unwrap_or(&target);
    let (mut kind, mut options) = (mount.kind.as_str(), mount.options.clone());
    if kind == EROFS_LOWER {
        // A shell cannot hide it, and it works as well where everybody sees it.
        kind = "erofs";
        target = mount.options.iter().find_map(|option| option.strip_prefix("at=")).unwrap_or(target);
        options.retain(|option| !option.starts_with("at="));
    }
    let mut words = vec!["mount".to_owned(), "-t".to_owned(), quoted(kind), quoted(&mount.source), quoted(target)];
    if !options.is_empty() {
        words.extend(["-o".to_owned(), quoted(&options.join(","))]);
    }
    words.join(" ")
}

async fn remove(context: &Context, of: &Of, keys: &[Key]) -> Outcome {
    let services = context.services().await?;
    let (_, snapshotter) = services.snapshotter(of.snapshotter.as_deref())?;
    let mut removed = context.output().names();
    for key in keys {
        snapshotter.remove(key).await?;
        removed.push(key)?;
    }
    removed.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_a_command_that_a_shell_understands() {
        let mount = Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec!["ro".into(), "lowerdir=/a b:/it's".into()],
        };
        assert_eq!(command(&mount, Path::new("/mnt")), r"mount -t overlay overlay /mnt -o 'ro,lowerdir=/a b:/it'\''s'");
        let lower = Mount {
            kind: EROFS_LOWER.into(),
            source: "/s/1/layer.erofs".into(),
            target: String::new(),
            options: ["ro", "device=/s/1/layer.data", "at=/s/1/fs"].map(str::to_owned).into(),
        };
        assert_eq!(
            command(&lower, Path::new("/mnt")),
            "mount -t erofs /s/1/layer.erofs /s/1/fs -o ro,device=/s/1/layer.data"
        );
        let below = Mount { target: "/sub".into(), options: vec!["rbind".into()], ..mount };
        assert_eq!(command(&below, Path::new("/mnt")), "mount -t overlay overlay /mnt/sub -o rbind");
    }
}
