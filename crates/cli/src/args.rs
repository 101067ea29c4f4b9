//! The command line: the options that every command takes, and the tree of commands.
//!
//! What a command takes beyond that stands with the command, in `commands`. Values are parsed here into the types of the
//! contract; a value that cannot be parsed is an error of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use windlass::{Sharing, layer};
use windlass_core::{Error, Namespace, Result};

use crate::commands::{
    content, copy, daemon, delete, doctor, events, fetch, fetch_object, fsck, gc, images, inspect, leases, login,
    namespaces, plugins, pull, push, push_object, referrers, snapshots, tags, why,
};
use crate::log::Level;
use crate::render::Format;
use crate::version::VERSION;

/// Haul container images: from a registry to verified content, to a mounted root filesystem.
#[derive(Debug, Parser)]
#[command(
    name = "dist",
    bin_name = "dist",
    version = VERSION,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 120,
    after_help = EXAMPLES,
    after_long_help = LONG_EXAMPLES
)]
pub(crate) struct Cli {
    /// Print the version.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  dist pull redis                fetch, unpack and record docker.io/library/redis
  dist images ls                 what is here
  dist images mount redis /mnt   look into its root filesystem
  dist images unmount /mnt       and let go of it
  dist images rm redis           delete it, and everything only it needed

`dist --help` has more of them; `dist COMMAND --help` explains one command.";

const LONG_EXAMPLES: &str = "\
Examples:
  dist pull redis                fetch, unpack and record docker.io/library/redis
  dist pull --plan quay.io/x/y:1 what a pull would do
  dist pull --platform arm64 x   for another platform
  dist fetch oci:./layout:1      from a directory in OCI layout, no snapshots
  dist images ls                 what is here
  dist images inspect redis      manifests, layers, configuration, snapshots
  dist images mount redis /mnt   look into its root filesystem
  dist images unmount /mnt       and let go of it
  dist images rm redis           delete it, and everything only it needed
  dist fetch-object redis        the manifest as the registry has it
  dist push reg.test/x:1 redis   to another registry; `copy` needs nothing here
  dist tags redis                what a registry has; `inspect` looks into it
  dist referrers redis           signatures and other artifacts attached to it
  dist login HOST                keep credentials; `logout` forgets them
  dist content ls                blobs; `content active` has those on their way
  dist content get DIGEST        one of them, to standard output
  dist leases ls                 what is kept though nothing refers to it
  dist snapshots ls              unpacked layers
  dist snapshots diff KEY        what was changed in one, as a layer
  dist images import FILE        from an archive; `images export` makes one
  dist gc --plan                 what nothing needs any more
  dist why DIGEST                what keeps something
  dist doctor quay.io/x/y:1      what is wrong with this machine, or on the way there
  dist -n k8s.io images ls       in another namespace
  dist -a /run/containerd/containerd.sock images ls
                                 on a daemon, ours or containerd's
  dist --format json images ls   for programs
  dist --progress json pull x    progress for programs, on standard error

Names:
  redis is docker.io/library/redis:latest, user/app:1 is docker.io/user/app:1.
  Anything else is written in full: HOST[:PORT]/REPOSITORY[:TAG][@DIGEST],
  or oci:DIRECTORY[:TAG] for a directory in OCI layout.

Output:
  Data goes to standard output, everything else to standard error.

Exit code:
  0 success, 1 an error, 2 a command line that is wrong, 130 interrupted.
  An interrupted pull continues where it stopped when it is run again.

`dist COMMAND --help` explains one command.";

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Directory that holds everything [default: /var/lib/windlass as root, the user's data directory otherwise].
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
    /// Socket of the daemon to work on, ours or containerd's, instead of a root [env: CONTAINERD_ADDRESS=]. A root that a
    /// daemon has is worked on through it without being told so; --root goes before the variable.
    #[arg(short, long, value_name = "SOCKET", global = true)]
    pub(crate) address: Option<PathBuf>,
    /// Namespace to work in.
    #[arg(
        short,
        long,
        value_name = "NAME",
        env = "CONTAINERD_NAMESPACE",
        hide_env_values = true,
        default_value = "default",
        value_parser = namespace,
        global = true
    )]
    pub(crate) namespace: Namespace,
    /// How to show progress on standard error; auto is bars on a terminal, and plain lines elsewhere.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Progress::Auto, global = true)]
    pub(crate) progress: Progress,
    /// How to print data.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) format: Format,
    /// Which log messages go to standard error: off, error, warn, info, debug, trace, or TARGET=LEVEL,… [default: warn; info
    /// for a daemon].
    #[arg(long, value_name = "LEVEL", global = true)]
    pub(crate) log_level: Option<Level>,
    /// Wait for another process that has the root: this long (30s, 5m), or as long as it takes.
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "forever",
        value_parser = wait,
        global = true
    )]
    pub(crate) wait: Option<Wait>,
    /// Who gets what another namespace has: shared, by digest and size; isolated, only by bringing the bytes [default:
    /// shared].
    #[arg(
        long,
        value_name = "POLICY",
        env = "DIST_CONTENT_SHARING",
        hide_env_values = true,
        value_parser = sharing,
        global = true
    )]
    pub(crate) content_sharing: Option<Sharing>,
    /// Do not wait for the disk: faster, but a power cut may lose what was done and leave damaged images.
    #[arg(
        long,
        env = "DIST_NO_SYNC",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new(),
        action = clap::ArgAction::SetTrue,
        global = true
    )]
    pub(crate) no_sync: bool,
    /// What may come out of a layer: max-size=BYTES, max-ratio=N (times its compressed size, from 1 GiB on), max-entries=N,
    /// devices=create or refuse, with commas between them [default: max-ratio=1000,max-entries=16777216,devices=create].
    #[arg(
        long,
        value_name = "LIMITS",
        env = "DIST_LAYER_LIMITS",
        hide_env_values = true,
        value_parser = layer_limits,
        global = true
    )]
    pub(crate) layer_limits: Option<layer::Options>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    // Without doc comments, which would make a page of the help of every command.
    Auto,
    Bars,
    Plain,
    Json,
    None,
}

/// How long to wait for the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// So long.
    UpTo(Duration),
    /// As long as it takes.
    Forever,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pull(pull::Args),
    Fetch(fetch::Args),
    FetchObject(fetch_object::Args),
    Push(push::Args),
    PushObject(push_object::Args),
    Copy(copy::Args),
    Tags(tags::Args),
    Inspect(inspect::Args),
    Delete(delete::Args),
    Referrers(referrers::Args),
    Login(login::Args),
    Logout(login::LogoutArgs),
    #[command(subcommand)]
    Images(images::Command),
    #[command(hide = true)]
    Import(images::import::Args),
    #[command(hide = true)]
    Export(images::export::Args),
    #[command(subcommand)]
    Content(content::Command),
    #[command(subcommand)]
    Snapshots(snapshots::Command),
    #[command(subcommand)]
    Leases(leases::Command),
    #[command(subcommand)]
    Namespaces(namespaces::Command),
    Gc(gc::Args),
    Why(why::Args),
    Fsck(fsck::Args),
    Doctor(doctor::Args),
    Events(events::Args),
    #[command(subcommand)]
    Plugins(plugins::Command),
    Daemon(daemon::Args),
}

/// An empty value, as an environment often has it, is the default namespace.
fn namespace(text: &str) -> Result<Namespace> {
    if text.is_empty() { Ok(Namespace::default()) } else { text.parse() }
}

/// An empty value, as an environment often has it, is the default.
fn sharing(text: &str) -> Result<Sharing> {
    match text {
        "" | "shared" => Ok(Sharing::Shared),
        "isolated" => Ok(Sharing::Isolated),
        _ => Err(Error::invalid_argument(format!("{text:?} is no policy of sharing content"))
            .hint("it is shared or isolated")),
    }
}

/// Limits that are not named are the usual ones; `none` takes one away.
fn layer_limits(text: &str) -> Result<layer::Options> {
    let mut limits = layer::Options::default();
    for limit in text.split(',').map(str::trim).filter(|limit| !limit.is_empty()) {
        let wrong = || {
            Error::invalid_argument(format!("{limit:?} is no limit of a layer"))
                .hint("limits look like max-size=20000000000, max-ratio=100, max-entries=none, devices=refuse")
        };
        let (key, value) = limit.split_once('=').ok_or_else(wrong)?;
        let number = || if value == "none" { Ok(None) } else { value.parse().map(Some).map_err(|_| wrong()) };
        match key {
            "max-size" => limits.max_size = number()?,
            "max-ratio" => limits.max_ratio = number()?,
            "max-entries" => limits.max_entries = number()?,
            "devices" if value == "create" => limits.devices = layer::Devices::Create,
            "devices" if value == "refuse" => limits.devices = layer::Devices::Refuse,
            _ => return Err(wrong()),
        }
    }
    Ok(limits)
}

fn wait(text: &str) -> Result<Wait> {
    if text == "forever" {
        return Ok(Wait::Forever);
    }
    humantime::parse_duration(text).map(Wait::UpTo).map_err(|error| {
        Error::invalid_argument(format!("{text:?} is not a duration: {error}"))
            .hint("a duration looks like 30s or 5m; --wait alone waits as long as it takes")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wait_is_a_duration_or_for_ever() {
        let parse = |flag: &str| Cli::try_parse_from(["dist", flag, "images", "ls"]).map(|cli| cli.globals.wait);
        assert_eq!(parse("--wait").unwrap(), Some(Wait::Forever));
        assert_eq!(parse("--wait=5s").unwrap(), Some(Wait::UpTo(Duration::from_secs(5))));
        assert!(parse("--wait=soon").is_err());
    }

    #[test]
    fn limits_of_layers_are_those_named_and_the_usual_ones() {
        let limits = layer_limits("max-ratio=100, devices=refuse,max-entries=none").unwrap();
        let expected = layer::Options {
            max_ratio: Some(100),
            max_entries: None,
            devices: layer::Devices::Refuse,
            ..layer::Options::default()
        };
        assert_eq!(limits, expected);
        assert_eq!(layer_limits("").unwrap(), layer::Options::default());
        for wrong in ["max-ratio", "max-ratio=", "max-ratio=-1", "ratio=5", "devices=perhaps"] {
            assert!(layer_limits(wrong).unwrap_err().hint_text().is_some(), "{wrong}");
        }
    }

    #[test]
    fn names_of_commands_that_users_of_ctr_expect() {
        for line in [
            "dist image list",
            "dist i ls",
            "dist images delete x",
            "dist images del x",
            "dist images remove x",
            "dist images umount /mnt",
            "dist ns c team",
            "dist namespace list",
            "dist snapshot list",
            "dist content list",
            "dist images import -",
            "dist image load x.tar",
            "dist images export - x",
            "dist save x.tar x y",
            "dist images convert --uncompress --oci a b",
            "dist images tag --force a b c",
            "dist images label -r a b=c",
            "dist images check -q",
            "dist images usage a",
            "dist images prune --all",
            "dist snapshots diff --keep a b",
            "dist snapshots commit a b",
            "dist snapshots prepare -t /mnt a b",
            "dist snapshots usage a",
            "dist image pull x",
            "dist content label sha256:0123456789012345678901234567890123456789012345678901234567890123 a=b",
            "dist content edit --editor vi sha256:0123456789012345678901234567890123456789012345678901234567890123",
            "dist leases list -q",
            "dist lease create --id x -x 1h a=b",
            "dist l delete --sync x",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
