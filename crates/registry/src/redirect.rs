//! Where a request may be sent on to: pure decisions about `Location` headers.
//!
//! RFC 9110 sections 10.2.2 and 15.4; relative references as in RFC 3986 section 5.2, without the removal of dot
//! segments, which a server can do itself.

use http::uri::Scheme;
use http::{Method, StatusCode, Uri};

use crate::elsewhere::is_never_asked;

/// How many redirects of one request are followed.
pub(crate) const MAX_HOPS: usize = 10;

/// Why a redirect is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no `Location`, or it is not a URL.
    Malformed,
    /// From HTTPS to plain HTTP.
    Downgrade,
    /// To something that is not HTTP.
    Scheme,
    /// To an address on the wire of this machine, where clouds tell who it is, or to one that is hidden in its spelling.
    Address,
}

/// Tells whether an answer sends a request on to somewhere else. What changes something is sent on only by the statuses
/// that keep its method: RFC 9110 section 15.4.
pub(crate) fn is_redirect(method: &Method, status: StatusCode) -> bool {
    match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        _ => false,
    }
}

/// Returns where `location`, in an answer from `from`, leads.
pub(crate) fn target(from: &Uri, location: &str) -> Result<Uri, Refused> {
    let location = location.split('#').next().unwrap_or(location).trim();
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let absolute = if location.is_empty() {
        return Err(Refused::Malformed);
    } else if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let target: Uri = absolute.parse().map_err(|_| Refused::Malformed)?;
    // A name and a password in a URL would be sent to whoever the URL says.
    let valid = target.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    match target.scheme() {
        _ if !valid => Err(Refused::Malformed),
        // A host that has such an address itself was named by the user.
        _ if target.host() != from.host() && target.host().is_some_and(is_never_asked) => Err(Refused::Address),
        Some(scheme) if scheme == &Scheme::HTTPS => Ok(target),
        Some(scheme) if scheme == &Scheme::HTTP && from.scheme() == Some(&Scheme::HTTP) => Ok(target),
        Some(scheme) if scheme == &Scheme::HTTP => Err(Refused::Downgrade),
        _ => Err(Refused::Scheme),
    }
}

/// RFC 3986 section 3.1: letters, digits, `+`, `-` and `.`, before the first colon.
fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// Tells whether two URLs are of one host: what is meant for one may be sent to the other.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        let usual = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
        uri.port_u16().unwrap_or(usual)
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_a_location_is_resolved() {
        let from: Uri = "https://a.test:444/v2/x/blobs/y?z=1".parse().unwrap();
        for (location, expected) in [
            ("https://b.test/c?d=e:f", "https://b.test/c?d=e:f"),
            ("//b.test/c", "https://b.test/c"),
            ("/c?d", "https://a.test:444/c?d"),
            ("?d", "https://a.test:444/v2/x/blobs/y?d"),
            ("c#fragment", "https://a.test:444/v2/x/blobs/c"),
        ] {
            assert_eq!(target(&from, location).unwrap().to_string(), expected, "{location}");
        }
    }

    #[test]
    fn unsafe_locations_are_refused() {
        let from: Uri = "https://a.test/".parse().unwrap();
        for (location, refused) in [
            ("http://a.test/", Refused::Downgrade),
            ("file:///etc/passwd", Refused::Malformed),
            ("ftp://a.test/", Refused::Scheme),
            ("https://user:password@b.test/", Refused::Malformed),
            ("", Refused::Malformed),
            ("https://b test/", Refused::Malformed),
            ("https://169.254.169.254/latest/meta-data", Refused::Address),
            ("https://[fe80::1]/", Refused::Address),
            ("https://2852039166/", Refused::Address),
        ] {
            assert_eq!(target(&from, location), Err(refused), "{location}");
        }
        let plain: Uri = "http://a.test/".parse().unwrap();
        assert!(target(&plain, "http://b.test/").is_ok());
        assert!(target(&plain, "https://b.test/").is_ok());
        assert_eq!(target(&plain, "http://169.254.169.254/"), Err(Refused::Address));
        let link: Uri = "http://169.254.1.1/".parse().unwrap();
        assert!(target(&link, "/v2").is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a.test/x", "https://A.test:443/y"));
        assert!(!same("https://a.test/", "http://a.test/"));
        assert!(!same("http://a.test/", "http://a.test:8080/"));
        assert!(!same("http://127.0.0.1:80/", "http://localhost:80/"));
    }

    proptest! {
        #[test]
        fn no_location_makes_the_parser_fail_or_leaves_tls(location in ".{0,80}") {
            let from: Uri = "https://a.test/v2/".parse().unwrap();
            if let Ok(target) = target(&from, &location) {
                prop_assert_eq!(target.scheme(), Some(&Scheme::HTTPS));
            }
        }
    }
}
