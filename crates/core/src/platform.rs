//! Platforms: what an image can run on, and which of several images fits best.
//!
//! OCI image-index, `platform`; normalisation and the order of preference as containerd's `platforms` package has it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An operating system and an architecture, with their refinements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, as Go's `GOOS`.
    pub os: String,
    /// The architecture, as Go's `GOARCH`.
    pub architecture: String,
    /// The variant of the architecture, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system that are needed.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl Platform {
    /// Makes a platform, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: Vec::new(),
        }
        .normalized()
    }

    /// Returns the platform that this program was built for.
    pub fn host() -> Self {
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            os => os,
        };
        Self::new(os, std::env::consts::ARCH, None)
    }

    /// Returns the platform with aliases resolved and default variants filled in or dropped.
    pub fn normalized(mut self) -> Self {
        self.os = match self.os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let variant = self.variant.take().map(|variant| variant.to_lowercase()).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (self.architecture.to_lowercase().as_str(), variant.as_deref()) {
            ("i386" | "x86", _) => ("386".to_owned(), None),
            ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64".to_owned(), None),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64".to_owned(), variant.map(str::to_owned)),
            ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64".to_owned(), Some("v8".to_owned())),
            ("aarch64" | "arm64", variant) => ("arm64".to_owned(), variant.map(str::to_owned)),
            ("armhf", _) | ("arm", Some("" | "7") | None) => ("arm".to_owned(), Some("v7".to_owned())),
            ("armel", _) | ("arm", Some("6")) => ("arm".to_owned(), Some("v6".to_owned())),
            ("arm", Some(variant @ ("5" | "8"))) => ("arm".to_owned(), Some(format!("v{variant}"))),
            ("powerpc64le", variant) => ("ppc64le".to_owned(), variant.map(str::to_owned)),
            (other, variant) => (other.to_owned(), variant.map(str::to_owned)),
        };
        self.architecture = architecture;
        self.variant = variant;
        self
    }

    /// Returns the platforms that run here, best first: a machine runs the lesser variants of its architecture, and
    /// some run the 32-bit one too.
    fn runs(&self) -> Vec<Self> {
        let with = |architecture: &str, variant: Option<&str>| Self {
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            ..self.clone()
        };
        let level = |variant: &Option<String>, default: u8| {
            variant.as_deref().and_then(|v| v.strip_prefix('v')).and_then(|v| v.parse().ok()).unwrap_or(default)
        };
        let arm = |highest: u8| (5..=highest).rev().map(|v| with("arm", Some(&format!("v{v}")))).collect::<Vec<_>>();
        let mut all = vec![self.clone()];
        match self.architecture.as_str() {
            "amd64" => {
                let highest: u8 = level(&self.variant, 1);
                all.extend((2..highest).rev().map(|v| with("amd64", Some(&format!("v{v}")))));
                all.extend([with("amd64", None), with("386", None)]);
            }
            "arm64" => {
                all.push(with("arm64", Some("v8")));
                all.push(with("arm64", None));
                all.extend(arm(8));
            }
            "arm" => all.extend(arm(level(&self.variant, 7))),
            _ => {}
        }
        all
    }

    /// Returns how well `candidate` fits this platform: smaller is better, `None` when it does not run here.
    pub fn preference(&self, candidate: &Platform) -> Option<usize> {
        let wanted = self.clone().normalized();
        let candidate = candidate.clone().normalized();
        wanted.runs().iter().position(|platform| {
            platform.os == candidate.os
                && platform.architecture == candidate.architecture
                && platform.variant == candidate.variant
        })
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Parses `os/architecture[/variant]`, or an architecture or an operating system alone.
    fn from_str(text: &str) -> Result<Self> {
        const SYSTEMS: [&str; 8] = ["linux", "windows", "darwin", "macos", "freebsd", "netbsd", "openbsd", "solaris"];
        let valid = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let fail = || {
            Err(Error::invalid_argument(format!("{text:?} is not a platform"))
                .hint("a platform looks like linux/amd64 or linux/arm/v7"))
        };
        if !parts.iter().all(|part| valid(part)) {
            return fail();
        }
        let host = Self::host();
        match parts.as_slice() {
            [os] if SYSTEMS.contains(&os.to_lowercase().as_str()) => Ok(Self::new(os, &host.architecture, None)),
            [architecture] => Ok(Self::new(&host.os, architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => fail(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Which platforms of an image are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// For each of these, the one image that fits best.
    Best(Vec<Platform>),
    /// Every image.
    All,
}

impl Default for Selection {
    fn default() -> Self {
        Self::Best(vec![Platform::host()])
    }
}

impl Selection {
    /// Returns the positions of the candidates that are wanted, in the order of the candidates; a candidate without a
    /// platform is taken only by [`Selection::All`].
    ///
    /// # Errors
    /// `NotFound` naming the platform that no candidate fits, and those that are there.
    pub fn select(&self, candidates: &[Option<Platform>]) -> Result<Vec<usize>> {
        let Self::Best(wanted) = self else { return Ok((0..candidates.len()).collect()) };
        let mut chosen = Vec::new();
        for platform in wanted {
            let best = candidates
                .iter()
                .enumerate()
                .filter_map(|(at, candidate)| Some((platform.preference(candidate.as_ref()?)?, at)))
                .min();
            let Some((_, at)) = best else {
                let there: Vec<String> = candidates.iter().flatten().map(ToString::to_string).collect();
                return Err(Error::not_found(format!("no image for platform {platform}"))
                    .coded("platform-not-found")
                    .hint(format!(
                        "there are images for: {}; choose one with --platform",
                        if there.is_empty() { "no platform at all".to_owned() } else { there.join(", ") }
                    )));
            };
            chosen.push(at);
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn aliases_are_normalised() {
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("linux/aarch64").to_string(), "linux/arm64/v8");
        assert_eq!(platform("linux/arm").to_string(), "linux/arm/v7");
        assert_eq!(platform("linux/armel").to_string(), "linux/arm/v6");
        assert_eq!(platform("windows").os, "windows");
        for bad in ["", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_nearest_variant_is_taken() {
        let there = ["linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/386"].map(|text| Some(platform(text)));
        let best = |wanted: &str| Selection::Best(vec![platform(wanted)]).select(&there);
        assert_eq!(best("linux/arm/v7").unwrap(), [1]);
        assert_eq!(best("linux/arm/v8").unwrap(), [1]);
        assert_eq!(best("linux/arm/v6").unwrap(), [0]);
        assert_eq!(best("linux/arm64").unwrap(), [1]);
        assert_eq!(best("linux/amd64/v3").unwrap(), [2]);
        let error = best("linux/s390x").unwrap_err();
        assert!(error.hint_text().unwrap().contains("linux/arm/v6"), "{error:?}");
        assert_eq!(Selection::All.select(&there).unwrap(), [0, 1, 2, 3]);
    }
}
