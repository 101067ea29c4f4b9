//! Findings of a check of what is kept: what is not as it should be, what that means, and what a repair does about it.
//!
//! Plain data, made by whoever looks (the store, the snapshotters, the engine) and printed by whoever asked. Not here: the
//! looking and the repairing.

use std::fmt;

use serde::Serialize;

use crate::error::Error;
use crate::image;
use crate::namespace::Namespace;

mod problem;

pub use problem::{Kept, Measured, Problem};

/// How closely to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// At every byte of every blob.
    #[default]
    Bytes,
    /// At the sizes.
    Sizes,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that was kept is damaged or lost.
    Damage,
    /// Records contradict each other; nothing is lost yet.
    Inconsistency,
    /// Something takes up space or a name, and nobody needs it.
    Leftover,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damage => "damage",
            Self::Inconsistency => "inconsistency",
            Self::Leftover => "leftover",
        })
    }
}

/// What a repair does about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Remedy {
    /// Fetches the blob again from where it came, and puts it in place when it is verified.
    Fetch,
    /// Unpacks the layer again from its blob.
    Unpack,
    /// Writes the record anew from what it is derived from.
    Rewrite,
    /// Sets the damaged database aside and makes a new one of what is on the disk.
    Rebuild,
    /// Removes it.
    Remove,
    /// Moves it to `lost+found` in the root.
    SetAside,
    /// Unmounts it.
    Unmount,
    /// Takes note of it, once everything else is repaired.
    Acknowledge,
    /// Nothing: why.
    Nothing {
        /// What stands in the way, and what the user can do.
        reason: String,
    },
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetch => "fetches it again from where it came",
            Self::Unpack => "unpacks it again from its blob",
            Self::Rewrite => "writes it anew from what it is derived from",
            Self::Rebuild => "sets it aside and makes a new one of what is on the disk",
            Self::Remove => "removes it",
            Self::SetAside => "moves it to lost+found in the root",
            Self::Unmount => "unmounts it",
            Self::Acknowledge => "takes note of it, once everything else is repaired",
            Self::Nothing { reason } => return write!(f, "leaves it: {reason}"),
        })
    }
}

/// An image that a finding affects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Affected {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: image::Name,
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == Namespace::default() {
            return self.name.fmt(f);
        }
        write!(f, "{} (namespace {})", self.name, self.namespace)
    }
}

/// What became of a finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Outcome {
    /// It was found, and nothing was done.
    #[default]
    Found,
    /// It has been repaired.
    Repaired,
    /// It could not be repaired.
    Remains {
        /// Why.
        reason: String,
    },
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "Document")]
pub struct Finding {
    /// What is wrong, with which object.
    pub problem: Problem,
    /// What a repair does about it.
    pub remedy: Remedy,
    /// How many bytes it is about: those that are damaged or missing, or that removing it frees.
    pub bytes: u64,
    /// The images that cannot be used, or not in full, because of it.
    pub images: Vec<Affected>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a finding looks like to a program.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    problem: Problem,
    severity: Severity,
    message: String,
    consequence: String,
    bytes: u64,
    images: Vec<Affected>,
    repair: Remedy,
    outcome: Outcome,
}

impl From<Finding> for Document {
    fn from(finding: Finding) -> Self {
        Self {
            severity: finding.severity(),
            message: finding.problem.to_string(),
            consequence: finding.consequence(),
            bytes: finding.bytes,
            repair: finding.remedy,
            outcome: finding.outcome,
            images: finding.images,
            problem: finding.problem,
        }
    }
}

impl Finding {
    /// Makes a finding with the remedy that its problem usually has.
    pub fn new(problem: Problem) -> Self {
        Self { remedy: problem.remedy(), bytes: problem.bytes(), images: Vec::new(), outcome: Outcome::Found, problem }
    }

    /// Replaces the remedy.
    pub fn remedied_by(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    /// Says how many bytes it is about.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        self.problem.severity()
    }

    /// Says in one sentence what it means for the user.
    pub fn consequence(&self) -> String {
        match self.images.as_slice() {
            [] => self.problem.consequence(),
            [one] => format!("{}; affected is {one}", self.problem.consequence()),
            [one, rest @ ..] => {
                format!("{}; affected are {one} and {} more", self.problem.consequence(), rest.len())
            }
        }
    }

    /// Notes that it remains after an attempt to repair it.
    pub fn remains(&mut self, error: &Error) {
        self.outcome = Outcome::Remains { reason: error.to_string() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_finding_serialises_flat_with_what_it_means() {
        let digest = Digest::sha256(b"x");
        let mut finding = Finding::new(Problem::BlobMissing { digest: digest.clone(), size: 7 });
        finding.images.push(Affected { namespace: Namespace::default(), name: "redis:7".parse().unwrap() });
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["problem"], "blob-missing");
        assert_eq!(json["digest"], digest.to_string());
        assert_eq!((&json["severity"], &json["bytes"]), (&"damage".into(), &7.into()));
        assert_eq!(json["repair"]["action"], "fetch");
        assert_eq!(json["images"][0]["name"], "redis:7");
        assert!(json["consequence"].as_str().unwrap().ends_with("affected is redis:7"), "{json}");
        assert_eq!(json["outcome"]["state"], "found");
    }
}
