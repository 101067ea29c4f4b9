//! `dist images`: what is recorded, what it consists of, and its root filesystem.

mod check;
mod convert;
pub(crate) mod export;
pub(crate) mod import;
mod inspect;
mod list;
mod mount;
mod prune;
mod remove;
mod tag;
mod unmount;
mod usage;

use clap::Subcommand;
use windlass_core::image::{Image, Name};
use windlass_core::{Error, Kind, Result, Services};

use super::pull;
use crate::context::Context;
use crate::failure::Outcome;
use crate::familiar;

/// List, mount, import, export, convert and remove images.
#[derive(Debug, Subcommand)]
#[command(visible_aliases = ["image", "i"])]
pub(crate) enum Command {
    Ls(list::Args),
    Inspect(inspect::Args),
    Rm(remove::Args),
    Mount(mount::Args),
    Unmount(unmount::Args),
    Import(import::Args),
    Export(export::Args),
    Convert(convert::Args),
    Tag(tag::Args),
    Label(tag::LabelArgs),
    Check(check::Args),
    Usage(usage::Args),
    Prune(prune::Args),
    #[command(hide = true)]
    Pull(pull::Args),
}

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Ls(args) => list::run(context, args).await,
        Command::Inspect(args) => inspect::run(context, args).await,
        Command::Rm(args) => remove::run(context, args).await,
        Command::Mount(args) => mount::run(context, args).await,
        Command::Unmount(args) => unmount::run(context, args).await,
        Command::Import(args) => import::run(context, args).await,
        Command::Export(args) => export::run(context, args).await,
        Command::Convert(args) => convert::run(context, args).await,
        Command::Tag(args) => tag::run(context, args).await,
        Command::Label(args) => tag::label(context, args).await,
        Command::Check(args) => check::run(context, args).await,
        Command::Usage(args) => usage::run(context, args).await,
        Command::Prune(args) => prune::run(context, args).await,
        Command::Pull(args) => pull::run(context, args).await,
    }
}

/// Returns an image by what a person calls it: its name as recorded, or a familiar form of it.
pub(crate) async fn find(services: &Services, text: &str) -> Result<Image> {
    let mut names: Vec<Name> = vec![text.parse()?];
    if let Ok(reference) = familiar::parse(text) {
        names.push(reference.to_string().parse()?);
    }
    for name in &names {
        match services.images.get(name).await {
            Err(error) if error.is(Kind::NotFound) => {}
            found => return found,
        }
    }
    let name = names.last().map_or(text, |name| name.as_str());
    let namespace = &services.scope.namespace;
    Err(Error::not_found(format!("image {name} is not in namespace {namespace}")).hint(format!(
        "`dist -n {namespace} images ls` lists those that are; `dist -n {namespace} pull {name}` brings it here"
    )))
}
