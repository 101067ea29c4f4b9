//! The names of entries, made safe: where in a layer an entry is, and whether it is a whiteout.
//!
//! Pure text; symbolic links are the business of [`crate::extract`].

use std::fmt;

use windlass_core::{Error, Result};

/// The longest name that a path may have, in bytes: Linux's `PATH_MAX` without its NUL.
pub const MAX_LEN: usize = 4095;

/// A place below the root of a layer: components that are neither empty nor `.` nor `..`, joined by single slashes.
/// The root itself is the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerPath(Vec<u8>);

impl LayerPath {
    /// Cleans the name of an entry, or the target of a hard link: leading slashes, `.` and doubled slashes go, and `..`
    /// takes back the component before it.
    ///
    /// ```
    /// use windlass_layer::path::LayerPath;
    ///
    /// assert_eq!(LayerPath::clean(b"./usr//lib/../bin/").unwrap().as_bytes(), b"usr/bin");
    /// assert!(LayerPath::clean(b"usr/../../etc/passwd").is_err());
    /// ```
    ///
    /// # Errors
    /// `FailedPrecondition` for a name that leads out of the root, or is longer than [`MAX_LEN`].
    pub fn clean(name: &[u8]) -> Result<Self> {
        let mut path = Self(Vec::with_capacity(name.len()));
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." if path.is_root() => {
                    return Err(Error::failed_precondition(format!("{} leads out of the root", shown(name)))
                        .hint("the layer is malicious or broken; do not use this image"));
                }
                b".." => path.0.truncate(path.parent_len()),
                _ => path.push(component),
            }
        }
        if path.0.len() > MAX_LEN {
            return Err(Error::failed_precondition(format!(
                "{} has {} bytes, more than the {MAX_LEN} of a path",
                shown(&path.0),
                path.0.len()
            )));
        }
        Ok(path)
    }

    /// Returns the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// Splits into the directory and the name in it; nothing for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        let cut = self.parent_len();
        let parent = Self(self.0.get(..cut).unwrap_or_default().to_vec());
        let name = self.0.get(if cut == 0 { 0 } else { cut + 1 }..).unwrap_or_default();
        Some((parent, name))
    }

    /// Returns the last component; nothing for the root.
    pub fn name(&self) -> &[u8] {
        self.0.get(self.parent_len()..).map(|name| name.strip_prefix(b"/").unwrap_or(name)).unwrap_or_default()
    }

    /// Returns the path of a child. The name must be one component.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = Self(Vec::with_capacity(self.0.len() + 1 + name.len()));
        path.0.extend_from_slice(&self.0);
        path.push(name);
        path
    }

    /// Tells whether this is `ancestor` or below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        let rest = self.0.strip_prefix(&ancestor.0[..]);
        ancestor.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    fn push(&mut self, component: &[u8]) {
        if !self.is_root() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(component);
    }

    fn parent_len(&self) -> usize {
        self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0)
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str("the root") } else { f.write_str(&shown(&self.0)) }
    }
}

/// What the last component of an entry's name says about what is below the layer. OCI image-spec, `layer.md`,
/// "Whiteouts".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker<'name> {
    /// Nothing: the entry is what it is.
    None,
    /// `.wh.NAME`: the file or directory NAME is deleted.
    Whiteout(&'name [u8]),
    /// `.wh..wh..opq`: whatever the directory had is deleted.
    Opaque,
    /// `.wh..wh.` and anything else: AUFS' own records, which are not part of the layer.
    Reserved,
}

impl<'name> Marker<'name> {
    /// What whiteouts begin with.
    pub const PREFIX: &'static [u8] = b".wh.";

    /// Reads the last component of a name.
    ///
    /// # Errors
    /// `FailedPrecondition` for a whiteout of nothing, `.` or `..`.
    pub fn of(name: &'name [u8]) -> Result<Self> {
        match name.strip_prefix(Self::PREFIX) {
            None => Ok(Self::None),
            Some(b".wh..opq") => Ok(Self::Opaque),
            Some(target) if target.starts_with(Self::PREFIX) => Ok(Self::Reserved),
            Some(b"" | b"." | b"..") => {
                Err(Error::failed_precondition(format!("{} is a whiteout of nothing", shown(name)))
                    .hint("the layer is malicious or broken; do not use this image"))
            }
            Some(target) => Ok(Self::Whiteout(target)),
        }
    }

    /// Tells whether a path lies in one of AUFS' own directories.
    pub fn is_reserved(path: &LayerPath) -> bool {
        path.components().any(|name| matches!(Marker::of(name), Ok(Marker::Reserved)))
    }
}

/// Returns a name as messages show it: quoted, control characters escaped, long ones cut.
pub fn shown(name: &[u8]) -> String {
    const LONGEST: usize = 200;
    match name.get(..LONGEST) {
        Some(start) => format!("{:?}…", String::from_utf8_lossy(start)),
        None => format!("{:?}", String::from_utf8_lossy(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(name: &str) -> Option<String> {
        LayerPath::clean(name.as_bytes()).ok().map(|path| String::from_utf8(path.0).unwrap())
    }

    #[test]
    fn names_are_cleaned_and_never_leave_the_root() {
        for (name, expected) in [
            ("a", Some("a")),
            ("/a/b", Some("a/b")),
            ("./a//b/.", Some("a/b")),
            ("a/../b", Some("b")),
            ("a/b/../../c", Some("c")),
            ("", Some("")),
            ("./", Some("")),
            ("/", Some("")),
            ("a/..", Some("")),
            ("..", None),
            ("../a", None),
            ("/../a", None),
            ("a/../../b", None),
            ("...", Some("...")),
        ] {
            assert_eq!(clean(name).as_deref(), expected, "{name}");
        }
        assert!(LayerPath::clean("d/".repeat(2048).as_bytes()).is_ok());
        assert!(LayerPath::clean("d/".repeat(2049).as_bytes()).is_err());
    }

    #[test]
    fn paths_split_and_join() {
        let path = LayerPath::clean(b"a/b/c").unwrap();
        let (parent, name) = path.split().unwrap();
        assert_eq!((parent.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(parent.join(name), path);
        assert_eq!((path.name(), LayerPath::default().name()), (&b"c"[..], &b""[..]));
        assert_eq!(LayerPath::clean(b"ab").unwrap().name(), b"ab");
        assert_eq!(LayerPath::default().join(b"x").split(), Some((LayerPath::default(), &b"x"[..])));
        assert!(path.is_within(&parent) && path.is_within(&path) && path.is_within(&LayerPath::default()));
        assert!(!LayerPath::clean(b"a/bc").unwrap().is_within(&parent));
    }

    #[test]
    fn markers_of_the_specification() {
        assert_eq!(Marker::of(b"file").unwrap(), Marker::None);
        assert_eq!(Marker::of(b".wh.file").unwrap(), Marker::Whiteout(b"file"));
        assert_eq!(Marker::of(b".wh..hidden").unwrap(), Marker::Whiteout(b".hidden"));
        assert_eq!(Marker::of(b".wh..wh..opq").unwrap(), Marker::Opaque);
        assert_eq!(Marker::of(b".wh..wh.plnk").unwrap(), Marker::Reserved);
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(Marker::of(name).is_err(), "{name:?}");
        }
        assert!(Marker::is_reserved(&LayerPath::clean(b".wh..wh.plnk/1.2").unwrap()));
        assert!(!Marker::is_reserved(&LayerPath::clean(b"a/.wh..wh..opq").unwrap()));
    }
}
