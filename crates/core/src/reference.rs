//! References: what a user writes to name an image, opaque to everything but a resolver.
//!
//! A reference is a schema-less URI, a locator and an object: in `docker.io/library/redis:7` the locator is
//! `docker.io/library/redis` and the object is `7`. A registry is one interpreter of a locator; a directory in OCI
//! layout, written `oci:PATH` or `oci:PATH:TAG`, is another. Nothing is added to what was written: a short name
//! such as `redis` is refused here and is the business of a command line.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};

/// The scheme of a locator that is a directory in OCI layout.
const OCI_LAYOUT: &str = "oci:";

/// A parsed reference.
///
/// ```
/// use windlass_core::Reference;
///
/// let redis: Reference = "docker.io/library/redis:7".parse().unwrap();
/// assert_eq!(redis.locator(), "docker.io/library/redis");
/// assert_eq!(redis.host(), Some("docker.io"));
/// assert_eq!(redis.repository(), Some("library/redis"));
/// assert_eq!(redis.object().unwrap().tag(), Some("7"));
/// assert_eq!(redis.to_string(), "docker.io/library/redis:7");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    locator: String,
    object: Option<Object>,
}

/// What is meant within a locator: a tag, a digest, or a tag that must have a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object {
    tag: Option<String>,
    digest: Option<ObjectDigest>,
}

/// The digest of an object, which may have been cut short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectDigest {
    /// A whole digest.
    Full(Digest),
    /// The beginning of one, as written.
    Partial(String),
}

impl Reference {
    /// Returns where to look: host and repository, or `oci:` and a path.
    pub fn locator(&self) -> &str {
        &self.locator
    }

    /// Returns what to look for there.
    pub fn object(&self) -> Option<&Object> {
        self.object.as_ref()
    }

    /// Returns the tag of the object.
    pub fn tag(&self) -> Option<&str> {
        self.object.as_ref()?.tag()
    }

    /// Returns the whole digest of the object.
    pub fn digest(&self) -> Option<&Digest> {
        self.object.as_ref()?.digest()
    }

    /// Returns the host of a registry's locator, with its port.
    pub fn host(&self) -> Option<&str> {
        if self.layout_path().is_some() {
            return None;
        }
        self.locator.split_once('/').map(|(host, _)| host)
    }

    /// Returns the repository of a registry's locator.
    pub fn repository(&self) -> Option<&str> {
        if self.layout_path().is_some() {
            return None;
        }
        self.locator.split_once('/').map(|(_, repository)| repository)
    }

    /// Returns the directory of an OCI layout's locator.
    pub fn layout_path(&self) -> Option<&str> {
        self.locator.strip_prefix(OCI_LAYOUT)
    }

    /// Returns the same locator with another object.
    ///
    /// A directory whose name has a colon gets a slash at its end, without which the name's end would be read as a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        let object = Object { tag: None, digest: Some(ObjectDigest::Full(digest)) };
        let name = self.layout_path().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let slash = if name.contains(':') { "/" } else { "" };
        Self { locator: format!("{}{slash}", self.locator), object: Some(object) }
    }

    /// Returns the same locator with a tag as its object.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        Ok(Self { locator: self.locator.clone(), object: Some(Object::parse_tag(tag)?) })
    }
}

impl Object {
    /// Returns the tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, when it is whole.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.digest {
            Some(ObjectDigest::Full(digest)) => Some(digest),
            _ => None,
        }
    }

    /// Returns the digest as written, whole or not.
    pub fn object_digest(&self) -> Option<&ObjectDigest> {
        self.digest.as_ref()
    }

    /// Parses what follows the separator `:`: `tag` or `tag@digest`.
    fn parse_tagged(text: &str) -> Result<Self> {
        let (tag, digest) = match text.split_once('@') {
            Some((tag, digest)) => (tag, Some(ObjectDigest::parse(digest)?)),
            None => (text, None),
        };
        Ok(Self { digest, ..Self::parse_tag(tag)? })
    }

    /// OCI distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    fn parse_tag(tag: &str) -> Result<Self> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = tag.len() <= 128
            && tag.bytes().next().is_some_and(word)
            && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
        if !valid {
            return Err(Error::invalid_argument(format!("{tag:?} is not a tag"))
                .hint("a tag has up to 128 letters, digits, '_', '.' and '-', and begins with none of the last two"));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None })
    }
}

impl ObjectDigest {
    /// Keeps the beginning of a digest as such: the algorithm may be there without all of its digits.
    fn parse(text: &str) -> Result<Self> {
        if let Ok(digest) = text.parse() {
            return Ok(Self::Full(digest));
        }
        let (algorithm, hex) = text.split_once(':').unwrap_or((text, ""));
        let word = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let longest = algorithm.parse::<Algorithm>().map_or(usize::MAX, Algorithm::hex_len);
        let hexadecimal = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if algorithm.is_empty() || !word(algorithm) || !hexadecimal || hex.len() >= longest {
            return Err(Error::invalid_argument(format!("{text:?} is not a digest, nor the beginning of one"))
                .hint("a digest looks like sha256: and 64 hexadecimal digits"));
        }
        Ok(Self::Partial(text.to_owned()))
    }
}

impl fmt::Display for ObjectDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(digest) => digest.fmt(f),
            Self::Partial(text) => f.write_str(text),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|e| {
            e.context(format!("reference {text:?}")).hint(
                "a reference looks like docker.io/library/redis:7, HOST/REPOSITORY@sha256:…, or oci:DIRECTORY:TAG",
            )
        })
    }
}

fn parse(text: &str) -> Result<Reference> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid_argument("white space and control characters are not allowed"));
    }
    if let Some(rest) = text.strip_prefix(OCI_LAYOUT) {
        return parse_layout(rest);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(Error::invalid_argument(format!("a scheme ({scheme}://) is not part of a reference"))
            .hint(format!("write {rest} and, for a registry without TLS, --plain-http")));
    }
    let Some((host, path)) = text.split_once('/') else {
        return Err(Error::invalid_argument("a host is missing"));
    };
    validate_host(host)?;
    let (repository, object) = match path.find([':', '@']) {
        None => (path, None),
        Some(at) => (path.get(..at).unwrap_or_default(), Some(parse_object(path.get(at..).unwrap_or_default())?)),
    };
    validate_repository(repository)?;
    Ok(Reference { locator: format!("{host}/{repository}"), object })
}

/// The path may contain any character; a tag is what follows the last colon, if no slash follows it. What follows the
/// last `@` is a digest only if it begins with the name of an algorithm: directories have such names, too.
fn parse_layout(rest: &str) -> Result<Reference> {
    let is_digest = |text: &str| text.split(':').next().is_some_and(|name| name.parse::<Algorithm>().is_ok());
    let (rest, digest) = match rest.rsplit_once('@') {
        Some((rest, digest)) if is_digest(digest) && !digest.contains('/') => {
            (rest, Some(ObjectDigest::parse(digest)?))
        }
        _ => (rest, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if path.is_empty() {
        return Err(Error::invalid_argument("the directory is missing after oci:"));
    }
    let object = match tag {
        Some(tag) => Some(Object { digest, ..Object::parse_tag(tag)? }),
        None => digest.map(|digest| Object { tag: None, digest: Some(digest) }),
    };
    Ok(Reference { locator: format!("{OCI_LAYOUT}{path}"), object })
}

fn parse_object(text: &str) -> Result<Object> {
    if let Some(digest) = text.strip_prefix('@') {
        return Ok(Object { tag: None, digest: Some(ObjectDigest::parse(digest)?) });
    }
    Object::parse_tagged(text.strip_prefix(':').unwrap_or(text))
}

/// A DNS name, an IPv4 address or an IPv6 address in brackets, and perhaps a port.
fn validate_host(host: &str) -> Result<()> {
    let (valid, port) = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, "")) => (address.parse::<Ipv6Addr>().is_ok(), None),
            // What follows the bracket without a colon is no port, and the empty string is none either.
            Some((address, rest)) => {
                (address.parse::<Ipv6Addr>().is_ok(), Some(rest.strip_prefix(':').unwrap_or_default()))
            }
            None => (false, None),
        },
        None => match host.split_once(':') {
            Some((name, port)) => (is_dns_name(name), Some(port)),
            None => (is_dns_name(host), None),
        },
    };
    let valid_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if !valid || !port.is_none_or(valid_port) {
        return Err(Error::invalid_argument(format!("{host:?} is not a host")));
    }
    Ok(())
}

/// RFC 1123, section 2.1, and underscores, which exist in practice.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// OCI distribution-spec: lower-case path components with single separators. Not enforced on a backend beyond what
/// keeps a URL path well-formed, because registries with other rules exist.
fn validate_repository(repository: &str) -> Result<()> {
    let component = |component: &str| {
        !component.is_empty()
            && component != "."
            && component != ".."
            && component.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~'))
    };
    if repository.is_empty() {
        return Err(Error::invalid_argument("a repository is missing after the host"));
    }
    if !repository.split('/').all(component) {
        return Err(Error::invalid_argument(format!("{repository:?} is not a repository")));
    }
    Ok(())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.locator)?;
        let Some(object) = &self.object else { return Ok(()) };
        if let Some(tag) = &object.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &object.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}
