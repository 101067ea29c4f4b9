//! `dist daemon`: serves the engine on a socket, until a signal ends it; and its configuration.

use std::path::{Path, PathBuf};

use windlass_core::{Result, ResultExt as _};
use windlass_daemon::config::{self, Loaded};
use windlass_daemon::{Config, Process};

use crate::allocator;
use crate::context::{Context, is_root};
use crate::failure::{Failure, Outcome};
use crate::log::{self, Level};
use crate::remote::proxies;
use crate::version::{REVISION, VERSION};

/// Where containerd keeps its configuration.
const CONTAINERDS_FILE: &str = "/etc/containerd/config.toml";

/// Serve containerd's API on a unix socket.
///
/// The first SIGTERM or SIGINT lets calls that run end and ends streams, within five seconds; the second one stops at once.
/// Whoever can connect to the socket can do what root can.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What goes before the configuration.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flags {
    /// Configuration; the files of the folder conf.d beside it are read too [default: /etc/windlass/config.toml, if it is there].
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of what does not outlive a restart of the machine [default: /run/windlass].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Socket to listen on [default: /run/windlass/windlass.sock].
    #[arg(long, short, value_name = "SOCKET")]
    address: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Print the configuration that holds when nothing is said, with what each key means.
    Default,
    /// Print the configuration that holds, of files and flags.
    Dump(Flags),
    /// Read a configuration, ours or containerd's, and say what is wrong with it or means nothing here.
    Check {
        /// The file [default: /etc/windlass/config.toml, if it is there].
        file: Option<PathBuf>,
    },
    /// Print what a configuration of containerd means here as one of ours; standard error says what was left out.
    Migrate {
        /// The file [default: /etc/containerd/config.toml].
        file: Option<PathBuf>,
    },
}

/// Runs it.
pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    match args.command {
        None => serve(context, &args.flags).await,
        Some(Command::Config(command)) => {
            log::show(context.globals.log_level.as_ref().unwrap_or(&Level::default()), &context.bars);
            configure(context, command)
        }
    }
}

async fn serve(context: &Context, flags: &Flags) -> Outcome {
    let loaded = load(context, flags)?;
    let level = match &context.globals.log_level {
        Some(level) => level.clone(),
        None => level(&loaded.config)?,
    };
    log::show(&level, &context.bars);
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    let process = Process {
        version: VERSION.to_owned(),
        revision: REVISION.to_owned(),
        notify: std::env::var_os("NOTIFY_SOCKET"),
        proxies: proxies()?,
        rest: Some(allocator::give_back),
        alone: true,
    };
    windlass_daemon::run(loaded.config, process).await?;
    Ok(())
}

/// Reads the configuration, and puts the flags before it.
fn load(context: &Context, flags: &Flags) -> Result<Loaded> {
    let mut loaded = config::load(flags.config.as_deref(), base(context)?)?;
    let config = &mut loaded.config;
    let globals = &context.globals;
    if let Some(root) = &globals.root {
        config.root.clone_from(root);
    }
    if let Some(state) = &flags.state {
        config.state.clone_from(state);
    }
    if let Some(address) = &flags.address {
        config.grpc.address.clone_from(address);
    }
    Ok(loaded)
}

/// Returns the configuration that holds when nothing is said: a user without privileges has directories of his own.
fn base(context: &Context) -> Result<Config> {
    let mut config = Config::default();
    if !is_root() {
        config.root = context.root()?;
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        config.state = runtime.map_or_else(|| config.root.join("state"), |runtime| runtime.join("windlass"));
        config.grpc.address = config.state.join("windlass.sock");
    }
    Ok(config)
}

fn level(config: &Config) -> Result<Level> {
    config.debug.level.parse().context(|| "read debug.level of the configuration".to_owned())
}

fn configure(context: &Context, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Default => print(&config::render(&base(context)?)),
        ConfigCommand::Dump(flags) => {
            let loaded = load(context, &flags)?;
            say(&loaded.notes);
            print(&config::render(&loaded.config))
        }
        ConfigCommand::Check { file } => {
            let loaded = config::load(file.as_deref(), base(context)?)?;
            level(&loaded.config)?;
            say(&loaded.notes);
            let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
            let files = if files.is_empty() { "no file: the defaults hold".to_owned() } else { files.join(", ") };
            print(&format!(
                "{files}: {}\n",
                match loaded.notes.len() {
                    0 => "nothing is wrong".to_owned(),
                    1 => "nothing is wrong; one thing was not taken over".to_owned(),
                    notes => format!("nothing is wrong; {notes} things were not taken over"),
                }
            ))
        }
        ConfigCommand::Migrate { file } => {
            let file = file.as_deref().unwrap_or(Path::new(CONTAINERDS_FILE));
            let loaded = config::load(Some(file), base(context)?)?;
            say(&loaded.notes);
            print(&config::render(&loaded.config))
        }
    }
}

/// Prints what was not taken over.
fn say(notes: &[String]) {
    for note in notes {
        anstream::eprintln!("{}", crate::render::printable(note));
    }
}

fn print(text: &str) -> Outcome {
    use std::io::Write as _;
    anstream::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}
