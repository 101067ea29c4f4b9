//! Familiar names: what people type for an image on Docker Hub, made into whole references.
//!
//! Only a command line and Docker's archives, which have such names, need this. Docker's rules: the first part is a host when it contains a dot or a colon or is
//! `localhost`; without a host it is `docker.io`, where a repository of one part is in `library/`; without a tag or a
//! digest it is `latest`.

use windlass_core::{Error, Reference, Result, image};

/// The host that a name without one is on.
const DEFAULT_HOST: &str = "docker.io";
/// What the default host used to be called.
const OLD_DEFAULT_HOST: &str = "index.docker.io";
/// Where the default host keeps repositories of one part.
const DEFAULT_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// Parses a reference as a person writes it.
///
/// # Errors
/// `InvalidArgument`, about the text as it was written.
pub fn parse(text: &str) -> Result<Reference> {
    let reference = parse_locator(text)?;
    match (reference.object(), reference.layout_path()) {
        (None, None) => reference.with_tag(DEFAULT_TAG),
        _ => Ok(reference),
    }
}

/// Parses a reference whose object does not matter, and adds none.
pub fn parse_locator(text: &str) -> Result<Reference> {
    let reference: Reference = normalized(text).parse()?;
    let upper = |repository: &str| repository.contains(|c: char| c.is_ascii_uppercase());
    if reference.host() == Some(DEFAULT_HOST) && reference.repository().is_some_and(upper) {
        return Err(Error::invalid_argument(format!(
            "reference {text:?}: a repository of {DEFAULT_HOST} is in lower case"
        ))
        .hint(format!("{:?} may be meant", reference.to_string().to_lowercase())));
    }
    Ok(reference)
}

/// Parses a name that an image is to be recorded under.
pub fn name(text: &str) -> Result<image::Name> {
    parse(text)?.to_string().parse()
}

/// Parses what tags are put behind.
pub fn base(text: &str) -> Result<String> {
    let reference = parse_locator(text)?;
    if reference.object().is_some() {
        return Err(Error::invalid_argument(format!("{text:?} has a tag or a digest")).hint("leave it out"));
    }
    Ok(reference.to_string())
}

/// Returns a name as Docker writes it; nothing for one that is none of Docker's.
pub fn short(name: &str) -> Option<String> {
    let reference: Reference = name.parse().ok()?;
    reference.tag()?;
    let rest = name.strip_prefix(DEFAULT_HOST).and_then(|rest| rest.strip_prefix('/'));
    let short = rest.map_or(name, |rest| rest.strip_prefix(DEFAULT_PREFIX).unwrap_or(rest));
    Some(short.to_owned())
}

fn normalized(text: &str) -> String {
    if text.is_empty() || text.starts_with("oci:") || text.contains("://") {
        return text.to_owned();
    }
    let (host, rest) = match text.split_once('/') {
        Some((OLD_DEFAULT_HOST, rest)) => (DEFAULT_HOST, rest),
        Some((host, rest)) if is_host(host) => (host, rest),
        _ => (DEFAULT_HOST, text),
    };
    let repository = rest.split([':', '@']).next().unwrap_or(rest);
    let official = host == DEFAULT_HOST && !repository.is_empty() && !repository.contains('/');
    format!("{host}/{}{rest}", if official { DEFAULT_PREFIX } else { "" })
}

/// Docker takes a part with capital letters for a host too, because a repository has none.
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.chars().any(|c| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn names_are_completed_as_docker_does() {
        let by_digest = format!("redis@{DIGEST}");
        let by_both = format!("localhost:5000/x:1@{DIGEST}");
        let expected_by_digest = format!("docker.io/library/redis@{DIGEST}");
        for (typed, whole) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:7", "docker.io/library/redis:7"),
            ("library/redis", "docker.io/library/redis:latest"),
            ("user/app:tag", "docker.io/user/app:tag"),
            ("user/app/part", "docker.io/user/app/part:latest"),
            ("docker.io/redis", "docker.io/library/redis:latest"),
            ("docker.io/library/redis:7", "docker.io/library/redis:7"),
            ("index.docker.io/redis", "docker.io/library/redis:latest"),
            ("index.docker.io/user/app:1", "docker.io/user/app:1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("quay.io/a/b", "quay.io/a/b:latest"),
            ("HOST/a", "HOST/a:latest"),
            (by_digest.as_str(), expected_by_digest.as_str()),
            (by_both.as_str(), by_both.as_str()),
            ("oci:./layout", "oci:./layout"),
            ("oci:/a/b:tag", "oci:/a/b:tag"),
        ] {
            assert_eq!(parse(typed).unwrap().to_string(), whole, "{typed}");
        }
    }

    #[test]
    fn a_locator_gets_no_tag() {
        assert_eq!(parse_locator("redis").unwrap().to_string(), "docker.io/library/redis");
        assert_eq!(parse_locator("redis:7").unwrap().to_string(), "docker.io/library/redis:7");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":",
            "/",
            "redis:",
            "redis:a b",
            "redis@sha256:xyz!",
            "http://quay.io/a",
            "a//b",
            "quay.io/",
            "Redis",
            "a/B",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
