//! What is measured, and the commands that it is.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::limit;
use crate::bench::measure::{self, Cost};
use crate::bench::store::containerd::Containerd;
use crate::peer::Layout;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// `dist pull` as it is by default: overlayfs, durable.
    Pull,
    /// `dist pull --snapshotter erofs`.
    PullErofs,
    /// `dist fetch`.
    Fetch,
    /// `skopeo copy` to an OCI layout.
    Copy,
    /// The programs that do what must be done, one after the other.
    Limit,
    /// `skopeo copy` to an OCI layout, then `umoci unpack`.
    CopyAndUnpack,
    /// `ctr images pull`, from a containerd of its own. What the daemon uses is not its own, so that only the time counts.
    Containerd,
}

impl Subject {
    /// Those of every run, in the order of a round.
    pub(super) const ALWAYS: &[Self] = &[Self::Pull, Self::PullErofs, Self::Fetch, Self::Copy, Self::Limit];
    /// The peers.
    pub(super) const PEERS: &[Self] = &[Self::CopyAndUnpack, Self::Containerd];

    /// Returns what it is called in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pull => "dist pull",
            Self::PullErofs => "dist pull, erofs",
            Self::Fetch => "dist fetch",
            Self::Copy => "skopeo copy",
            Self::Limit => "limit: tools in turn",
            Self::CopyAndUnpack => "skopeo copy + umoci",
            Self::Containerd => "containerd",
        }
    }
}

/// What every run of an image needs.
pub(super) struct Site<'a> {
    /// The command that is measured.
    pub(super) dist: &'a Path,
    /// The image in the registry.
    pub(super) reference: String,
    /// The image.
    pub(super) layout: Layout,
    /// Where the reports of costs go.
    pub(super) scratch: &'a Path,
}

impl Site<'_> {
    /// Runs a subject once, cold, in an empty directory.
    pub(super) fn run(&self, subject: Subject, place: &Path) -> Result<Cost> {
        measure::cold()?;
        let cost = |command: &Command| measure::cost(command, self.scratch, None);
        match subject {
            Subject::Pull => cost(self.dist(place).args(["pull", &self.reference])),
            Subject::PullErofs => cost(self.dist(place).args(["pull", "--snapshotter", "erofs", &self.reference])),
            Subject::Fetch => cost(self.dist(place).args(["fetch", &self.reference])),
            Subject::Copy => cost(&self.copy(place)),
            Subject::Limit => limit::cost(&self.layout, place, self.scratch),
            Subject::CopyAndUnpack => {
                let copied = cost(&self.copy(place))?;
                let mut umoci = Command::new("umoci");
                umoci.args(["unpack", "--image"]).arg(format!("{}:bench", place.join("layout").display()));
                Ok(copied + cost(umoci.arg(place.join("bundle")))?)
            }
            Subject::Containerd => {
                let containerd = Containerd::start(place).context("start containerd")?;
                cost(containerd.ctr().args(["images", "pull", "--plain-http", &self.reference]))
            }
        }
    }

    fn dist(&self, place: &Path) -> Command {
        let mut dist = Command::new(self.dist);
        dist.arg("--root").arg(place.join("root")).args(["--progress", "none"]);
        dist
    }

    fn copy(&self, place: &Path) -> Command {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        skopeo.arg(format!("docker://{}", self.reference)).arg(format!("oci:{}:bench", place.join("layout").display()));
        skopeo
    }
}
