//! `dist namespaces`: what cuts across everything else.

use clap::Subcommand;
use serde::Serialize;
use windlass_core::{Kind, Labels, Namespace};

use crate::context::Context;
use crate::failure::Outcome;
use crate::label;
use crate::render::labels;

/// List, create, label and remove namespaces.
///
/// A namespace has its own images, content, snapshots and leases; bytes are stored once. It also comes into being when
/// something is created in it.
#[derive(Debug, Subcommand)]
#[command(visible_aliases = ["namespace", "ns"])]
pub(crate) enum Command {
    /// List namespaces.
    #[command(visible_alias = "list")]
    Ls {
        /// Print names only.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Create a namespace.
    #[command(visible_alias = "c")]
    Create {
        /// Namespace.
        #[arg(value_name = "NAME")]
        name: Namespace,
        /// Labels.
        #[arg(value_name = "KEY=VALUE", value_parser = label::parse)]
        labels: Vec<(String, String)>,
    },
    /// Set labels of a namespace; an empty value removes one.
    Label {
        /// Namespace.
        #[arg(value_name = "NAME")]
        name: Namespace,
        /// Labels.
        #[arg(value_name = "KEY=VALUE", value_parser = label::parse, required = true)]
        labels: Vec<(String, String)>,
    },
    /// Remove empty namespaces.
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Namespaces.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<Namespace>,
    },
}

/// A namespace in a list.
#[derive(Serialize)]
struct Row {
    name: Namespace,
    labels: Labels,
}

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    let namespaces = context.services().await?.namespaces;
    let output = context.output();
    match command {
        Command::Ls { quiet: true } => {
            let mut list = output.names();
            namespaces.list().await?.iter().try_for_each(|name| list.push(name))?;
            list.finish()
        }
        Command::Ls { quiet: false } => {
            let mut list = output.list(["NAME", "LABELS"]);
            for name in namespaces.list().await? {
                let of = match namespaces.labels(&name).await {
                    // Somebody has removed it meanwhile.
                    Err(error) if error.is(Kind::NotFound) => continue,
                    of => of?,
                };
                list.push(&Row { name, labels: of }, |row| [row.name.to_string(), labels(&row.labels)])?;
            }
            list.finish()
        }
        Command::Create { name, labels } => {
            namespaces.create(&name, label::all(labels)).await?;
            output.name(&name)
        }
        Command::Label { name, labels } => {
            for (key, value) in labels {
                namespaces.set_label(&name, &key, &value).await?;
            }
            output.name(&name)
        }
        Command::Rm { names } => {
            let mut removed = output.names();
            for name in &names {
                namespaces.delete(name).await?;
                removed.push(name)?;
            }
            removed.finish()
        }
    }
}
