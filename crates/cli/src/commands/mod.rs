//! The commands: a file each, with what it takes and what it does.
//!
//! A command asks the host for services and the workflows of the library for anything longer; what is left here is
//! questions and answers.

pub(crate) mod content;
pub(crate) mod copy;
pub(crate) mod daemon;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod fetch;
pub(crate) mod fetch_object;
pub(crate) mod fsck;
pub(crate) mod gc;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod leases;
pub(crate) mod login;
pub(crate) mod namespaces;
pub(crate) mod plugins;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod push_object;
pub(crate) mod referrers;
pub(crate) mod snapshots;
pub(crate) mod tags;
pub(crate) mod why;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Outcome;

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Pull(args) => pull::run(context, args).await,
        Command::Fetch(args) => fetch::run(context, args).await,
        Command::FetchObject(args) => fetch_object::run(args).await,
        Command::Push(args) => push::run(context, args).await,
        Command::PushObject(args) => push_object::run(context, args).await,
        Command::Copy(args) => copy::run(context, args).await,
        Command::Tags(args) => tags::run(context, args).await,
        Command::Inspect(args) => inspect::run(context, args).await,
        Command::Delete(args) => delete::run(context, args).await,
        Command::Referrers(args) => referrers::run(context, args).await,
        Command::Images(command) => images::run(context, command).await,
        Command::Import(args) => images::import::run(context, args).await,
        Command::Export(args) => images::export::run(context, args).await,
        Command::Content(command) => content::run(context, command).await,
        Command::Snapshots(command) => snapshots::run(context, command).await,
        Command::Leases(command) => leases::run(context, command).await,
        Command::Login(args) => login::run(context, args).await,
        Command::Logout(args) => login::logout(context, args).await,
        Command::Namespaces(command) => namespaces::run(context, command).await,
        Command::Gc(args) => gc::run(context, args).await,
        Command::Why(args) => why::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Fsck(args) => fsck::run(context, args).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Plugins(command) => plugins::run(context, command).await,
        Command::Daemon(args) => daemon::run(context, args).await,
    }
}
