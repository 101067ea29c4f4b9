//! `dist plugins`: the parts of a daemon, and what became of each.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::Serialize;
use windlass_core::filter::Filter;
use windlass_core::plugin::{Introspection as _, Outcome as Became, Plugin};

use crate::context::Context;
use crate::failure::Outcome;
use crate::render::{fields, line};

/// List the parts of a daemon.
#[derive(Debug, Subcommand)]
#[command(visible_alias = "plugin")]
pub(crate) enum Command {
    /// List plugins: what they are for, and whether they work.
    #[command(visible_alias = "list")]
    Ls {
        /// Tell what they need, export and can do, and why one does not work.
        #[arg(short, long)]
        detailed: bool,
        /// Filters, any of which must match: type==x, id==x.
        #[arg(value_name = "FILTER")]
        filters: Vec<Filter>,
    },
}

/// A plugin in JSON.
#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    requires: Vec<String>,
    platforms: Vec<String>,
    exports: BTreeMap<String, String>,
    capabilities: Vec<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Plugin> for Row {
    fn from(plugin: Plugin) -> Self {
        let (status, error) = match plugin.outcome {
            Became::Ready => ("ok", None),
            Became::Skipped { reason } => ("skip", Some(reason)),
            Became::Failed { error, .. } => ("error", Some(error)),
        };
        Self {
            kind: plugin.kind,
            id: plugin.id,
            requires: plugin.requires,
            platforms: plugin.platforms.iter().map(ToString::to_string).collect(),
            exports: plugin.exports,
            capabilities: plugin.capabilities,
            status,
            error,
        }
    }
}

/// Does what was asked for.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    let Command::Ls { detailed, filters } = command;
    let plugins = context.client().await?.introspection().plugins(&filters).await?;
    let rows = plugins.into_iter().map(Row::from);
    let output = context.output();
    if detailed && !output.is_json() {
        let blocks: Vec<String> = rows.map(|row| details(&row)).collect();
        return line(blocks.join("\n").trim_end());
    }
    let mut list = output.list(["TYPE", "ID", "PLATFORMS", "STATUS"]);
    for row in rows {
        list.push(&row, |row| [row.kind.clone(), row.id.clone(), or_none(&row.platforms), row.status.to_owned()])?;
    }
    list.finish()
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

fn details(row: &Row) -> String {
    let mut shown = vec![
        ("type", row.kind.clone()),
        ("id", row.id.clone()),
        ("requires", or_none(&row.requires)),
        ("platforms", or_none(&row.platforms)),
        ("capabilities", or_none(&row.capabilities)),
    ];
    shown.extend(row.exports.iter().map(|(name, value)| ("exports", format!("{name}={value}"))));
    shown.push(("status", row.status.to_owned()));
    shown.extend(row.error.iter().map(|error| ("error", error.clone())));
    fields(&shown)
}
