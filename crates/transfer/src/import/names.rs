//! What imported images are called.

use windlass_core::{Digest, Error, Result, ResultExt as _, image};

/// Whether images are recorded under their digests as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Digests {
    /// They are not.
    #[default]
    No,
    /// All are.
    All,
    /// Those are that have no other name.
    Unnamed,
}

/// Says what images are called, as containerd's `ctr images import` does.
///
/// An archive has whole names or tags. A tag is put behind the base. With [`Naming::only_base`] whole names that do not
/// begin with the base are left out.
#[derive(Debug, Clone)]
pub struct Naming {
    /// What tags and digests are put behind.
    pub base: String,
    /// Whether other names than those of the base are left out.
    pub only_base: bool,
    /// Whether images are recorded under their digests as well.
    pub digests: Digests,
    /// What the index of the archive is recorded as, with everything in it.
    pub index: Option<image::Name>,
    /// Makes a whole name of one as people write it.
    pub complete: fn(&str) -> Result<String>,
}

impl Naming {
    /// Takes whole names as they are, and puts tags behind a base.
    pub fn new(base: impl Into<String>) -> Self {
        let complete = |name: &str| Ok(name.to_owned());
        Self { base: base.into(), only_base: false, digests: Digests::No, index: None, complete }
    }

    /// Returns what an image is called that an archive gives those names.
    pub(super) fn names<'a>(
        &self,
        given: impl IntoIterator<Item = &'a str>,
        digest: &Digest,
    ) -> Result<Vec<image::Name>> {
        let mut names = Vec::new();
        for text in given.into_iter().filter(|text| !text.is_empty()) {
            let Some(name) = self.whole(text).context(|| format!("name {text:?} of the archive"))? else { continue };
            names.push(name);
        }
        let by_digest = match self.digests {
            Digests::No => false,
            Digests::All => true,
            Digests::Unnamed => names.is_empty(),
        };
        if by_digest {
            names.push(format!("{}@{digest}", self.base).parse()?);
        }
        Ok(names)
    }

    fn whole(&self, text: &str) -> Result<Option<image::Name>> {
        if !text.contains(['/', ':', '@']) {
            return format!("{}:{text}", self.base).parse().map(Some);
        }
        let name = (self.complete)(text).map_err(|error| {
            error
                .hint("--base-name leaves out what does not begin with it; --index-name NAME records all images as one")
        })?;
        if self.only_base && !begins(&name, &self.base) {
            return Ok(None);
        }
        name.parse().map(Some)
    }
}

/// Tells whether a name is of a repository, or of one below it.
fn begins(name: &str, base: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
}

/// Says that something in an archive is not what it should be.
pub(super) fn malformed(file: &str, problem: impl std::fmt::Display) -> Error {
    Error::failed_precondition(format!("{file} of the archive: {problem}"))
        .hint("write the archive again with a current tool: `skopeo copy … oci-archive:FILE`, `docker save`, `dist images export`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(naming: &Naming, given: &[&str]) -> Vec<String> {
        let names = naming.names(given.iter().copied(), &Digest::sha256(b"x")).unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tags_are_put_behind_the_base_and_whole_names_stay() {
        let naming = Naming::new("example.org/app");
        assert_eq!(names(&naming, &["latest", "quay.io/x:1", ""]), ["example.org/app:latest", "quay.io/x:1"]);
        let only = Naming { only_base: true, ..naming };
        let given = ["example.org/app:1", "example.org/app/part:2", "example.org/apple:1", "quay.io/x:1", "2"];
        assert_eq!(names(&only, &given), ["example.org/app:1", "example.org/app/part:2", "example.org/app:2"]);
    }

    #[test]
    fn digests_are_names_where_they_are_wanted() {
        let by_digest = format!("base@{}", Digest::sha256(b"x"));
        let naming = |digests| Naming { digests, ..Naming::new("base") };
        assert_eq!(names(&naming(Digests::All), &["1"]), ["base:1".to_owned(), by_digest.clone()]);
        assert_eq!(names(&naming(Digests::Unnamed), &["1"]), ["base:1"]);
        assert_eq!(names(&naming(Digests::Unnamed), &[]), [by_digest]);
        assert!(names(&naming(Digests::No), &[]).is_empty());
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let naming = Naming { complete: |_| Err(Error::invalid_argument("no name")), ..Naming::new("base") };
        assert!(naming.names(["a:b"], &Digest::sha256(b"x")).is_err());
        assert!(Naming::new("base").names(["a:\u{1b}"], &Digest::sha256(b"x")).is_err());
    }
}
