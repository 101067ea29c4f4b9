//! What changed, as a layer says it. OCI image-spec, `layer.md`, "Change Types" and "Whiteouts".

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_core::media_type::Compression;
use windlass_core::{DiffId, Error, Kind, Result, ResultExt as _};

use super::entry::{Looked, Redirect, changed};
use super::links::Links;
use super::output::Output;
use super::stack::{Node, Trees};
use super::walk::{Pair, Walk};
use crate::path::{Marker, shown};
use crate::tar::{self, Entry, Timestamp, Writer};

/// What came of writing a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it is written, and has that digest uncompressed.
    Layer(DiffId),
    /// It cannot be read like this: an overlay has to be mounted.
    Redirected,
}

/// Writes what changed as a layer.
pub(super) fn write(
    trees: &Trees,
    compression: Compression,
    epoch: Option<i64>,
    sender: mpsc::Sender<Bytes>,
) -> Result<Written> {
    let Ok(relinked) = relinked(trees)? else { return Ok(Written::Redirected) };
    let tar = Writer::new(Output::new(compression, sender)?);
    let mut changes = Changes { tar, epoch, relinked, above: Vec::new(), names: HashMap::new() };
    let mut walk = Walk::of(trees)?;
    loop {
        let Ok(next) = walk.next()? else { return Ok(Written::Redirected) };
        let Some(pair) = next else { break };
        if changes.pair(pair)? == Some(Redirect) {
            return Ok(Written::Redirected);
        }
    }
    changes.tar.finish()?.finish().map(Written::Layer)
}

/// Returns the names of files that have not the names that they had.
fn relinked(trees: &Trees) -> Result<Result<HashSet<Vec<u8>>, Redirect>> {
    let (mut walk, mut links) = (Walk::of(trees)?, Links::default());
    loop {
        match walk.next()? {
            Ok(Some(pair)) if Links::concern(&pair) => match is_kept(&pair)? {
                Ok(kept) => links.see(pair, kept),
                Err(redirect) => return Ok(Err(redirect)),
            },
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Ok(links.changed())),
            Err(redirect) => return Ok(Err(redirect)),
        }
    }
}

/// Tells whether what has a name is what had it.
fn is_kept(Pair { path, lower, upper }: &Pair) -> Result<Result<bool, Redirect>> {
    let (Some(lower), Some(upper)) = (lower, upper) else { return Ok(Ok(false)) };
    let looked = Looked::at(upper, path)?;
    match looked.redirect {
        Some(redirect) => Ok(Err(redirect)),
        None => is_same(lower, upper, &looked, path),
    }
}

/// Tells whether two files are the same as far as a layer says what they are.
fn is_same(lower: &Node, upper: &Node, looked: &Looked<'_>, path: &[u8]) -> Result<Result<bool, Redirect>> {
    if lower.file() == upper.file() {
        return Ok(Ok(true));
    }
    if lower.kind() != upper.kind() {
        return Ok(Ok(false));
    }
    let below = Looked::at(lower, path)?;
    match below.redirect {
        Some(redirect) => Ok(Err(redirect)),
        None => looked.is_same(&below).map(Ok),
    }
}

/// The layer being written.
struct Changes {
    tar: Writer<Output>,
    epoch: Option<i64>,
    relinked: HashSet<Vec<u8>>,
    /// The directories around, as long as nothing in them was written.
    above: Vec<(Vec<u8>, Node)>,
    /// Under which name files are in the layer that have several.
    names: HashMap<(u64, u64), Vec<u8>>,
}

impl Changes {
    fn pair(&mut self, Pair { path, lower, upper }: Pair) -> Result<Option<Redirect>> {
        self.above.retain(|(directory, _)| is_within(&path, directory));
        let Some(upper) = upper else {
            return self.whiteout(&path);
        };
        if path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(Marker::PREFIX)) {
            return Err(Error::failed_precondition(format!(
                "{} cannot be in a layer: what begins so deletes",
                shown(&path)
            ))
            .hint("rename it, then compare again"));
        }
        let looked = Looked::at(&upper, &path)?;
        if looked.redirect.is_some() {
            return Ok(looked.redirect);
        }
        if let Some(lower) = &lower {
            let same = match is_same(lower, &upper, &looked, &path)? {
                Ok(same) => same,
                Err(redirect) => return Ok(Some(redirect)),
            };
            if same && !self.relinked.contains(&path) {
                if upper.is_directory() && !path.is_empty() {
                    self.above.push((path, upper));
                }
                return Ok(None);
            }
        }
        let redirect = self.directories_above()?;
        if redirect.is_some() {
            return Ok(redirect);
        }
        self.entry(&looked, &upper, &path).map(|()| None)
    }

    /// Writes the directories around what comes next: whoever applies the layer by itself knows what they are like.
    fn directories_above(&mut self) -> Result<Option<Redirect>> {
        for (path, node) in std::mem::take(&mut self.above) {
            let looked = Looked::at(&node, &path)?;
            if looked.redirect.is_some() {
                return Ok(looked.redirect);
            }
            self.entry(&looked, &node, &path)?;
        }
        Ok(None)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<Option<Redirect>> {
        let redirect = self.directories_above()?;
        if redirect.is_some() {
            return Ok(redirect);
        }
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (directory, name) = path.split_at_checked(cut).unwrap_or((b"", path));
        let path = [directory, Marker::PREFIX, name].concat();
        let mtime = Timestamp { seconds: self.epoch.unwrap_or(0), nanoseconds: 0 };
        let kind = tar::Kind::Regular { size: 0, sparse: false };
        self.tar.entry(&Entry { path, mtime, ..Entry::new(kind) })?;
        Ok(None)
    }

    fn entry(&mut self, looked: &Looked<'_>, node: &Node, path: &[u8]) -> Result<()> {
        let Some(mut entry) = looked.entry()? else {
            tracing::debug!(path = %shown(path), "left out: a socket is nothing that a layer can have");
            return Ok(());
        };
        if let Some(epoch) = self.epoch
            && entry.mtime.seconds >= epoch
        {
            entry.mtime = Timestamp { seconds: epoch, nanoseconds: 0 };
        }
        if !node.is_directory() && node.stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&node.file()) {
                let target = first.clone();
                entry.xattrs.clear();
                return self.tar.entry(&Entry { kind: tar::Kind::Link { target }, ..entry });
            }
            self.names.insert(node.file(), path.to_vec());
        }
        self.tar.entry(&entry)?;
        if matches!(entry.kind, tar::Kind::Regular { .. }) {
            let copied = self.tar.data_from(&mut looked.file()?);
            copied
                .map_err(
                    |error| if error.is(Kind::Aborted) && error.os_cause().is_none() { changed(path) } else { error },
                )
                .context(|| format!("read {}", shown(path)))?;
        }
        Ok(())
    }
}

/// Tells whether a path lies in a directory.
fn is_within(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}
