//! `dist snapshots tree`: which snapshots stand on which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use futures::TryStreamExt as _;
use serde::Serialize;
use windlass_core::snapshot::{Info, Key, Name, State};

use super::Of;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::printable;

/// Draw which snapshots stand on which.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    of: Of,
}

/// A snapshot, and those that stand on it.
#[derive(Debug, Serialize)]
struct Node {
    key: Key,
    state: State,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Node>,
}

/// Draws.
pub(super) async fn run(context: &Context, args: &Args) -> Outcome {
    let services = context.services().await?;
    let (_, snapshotter) = services.snapshotter(args.of.snapshotter.as_deref())?;
    let all: Vec<Info> = snapshotter.walk(&[]).try_collect().await?;
    let trees = trees(&all);
    context.output().record(&trees, |trees| {
        let mut text = String::new();
        for tree in trees {
            draw(&mut text, tree, "", "");
        }
        text
    })
}

/// Puts snapshots together. A parent that is not in sight is as none.
fn trees(all: &[Info]) -> Vec<Node> {
    let here: BTreeSet<&str> = all.iter().map(|info| info.key.as_str()).collect();
    let mut below: BTreeMap<Option<&str>, Vec<&Info>> = BTreeMap::new();
    for info in all {
        let parent = info.parent.as_ref().map(Name::as_str).filter(|parent| here.contains(parent));
        below.entry(parent).or_default().push(info);
    }
    nodes(&below, None)
}

fn nodes(below: &BTreeMap<Option<&str>, Vec<&Info>>, parent: Option<&str>) -> Vec<Node> {
    let children = below.get(&parent).map(Vec::as_slice).unwrap_or_default();
    let node = |info: &&Info| Node {
        key: info.key.clone(),
        state: info.state,
        children: nodes(below, Some(info.key.as_str())),
    };
    children.iter().map(node).collect()
}

fn draw(text: &mut String, node: &Node, first: &str, rest: &str) {
    let kind = if node.state == State::Committed { String::new() } else { format!("  ({})", node.state) };
    // Writing to a string does not fail.
    let _ = writeln!(text, "{first}{}{kind}", printable(node.key.as_str()));
    for (at, child) in node.children.iter().enumerate() {
        let last = at + 1 == node.children.len();
        let (branch, below) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        draw(text, child, &format!("{rest}{branch}"), &format!("{rest}{below}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_stands_on_something_is_below_it() {
        let info = |key: &str, parent: Option<&str>, state| Info {
            state,
            key: key.parse().unwrap(),
            parent: parent.map(|parent| parent.parse().unwrap()),
            labels: windlass_core::Labels::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        };
        let all = [
            info("base", None, State::Committed),
            info("one", Some("base"), State::Committed),
            info("two", Some("base"), State::Committed),
            info("work", Some("one"), State::Active),
            info("lost", Some("gone"), State::View),
        ];
        let mut text = String::new();
        for tree in &trees(&all) {
            draw(&mut text, tree, "", "");
        }
        assert_eq!(text, "base\n├── one\n│   └── work  (active)\n└── two\nlost  (view)\n");
    }
}
