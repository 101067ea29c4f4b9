//! Where a host is: the URLs of a `hosts.toml`.

use std::path::PathBuf;

use http::Uri;
use http::uri::Scheme;

/// What begins the URL of a unix socket.
const UNIX: &str = "unix://";
/// The root of the API: OCI distribution-spec, "Endpoints".
pub(super) const API: &str = "/v2";

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    /// With the port when it is not the usual one of the scheme. For a socket it is the URL without path.
    pub(super) authority: String,
    /// The root of the API, without a slash at its end.
    pub(super) path: String,
    /// The socket to connect to.
    pub(super) socket: Option<PathBuf>,
}

impl Address {
    /// Reads `https://HOST[:PORT][/PATH]`, `http://…`, `HOST…`, which is HTTPS, or `unix:///PATH/OF/SOCKET`. The root of the API is the
    /// path, with `/v2` behind it unless it has that or is the whole path by itself.
    ///
    /// # Errors
    /// What is wrong, without the URL: it might have a password in it.
    pub(super) fn parse(url: &str, whole_path: bool) -> Result<Self, String> {
        if let Some(socket) = url.strip_prefix(UNIX) {
            if !socket.starts_with('/') || socket.ends_with('/') {
                return Err("is a unix URL without the whole path of a socket: unix:///PATH/OF/SOCKET".to_owned());
            }
            let path = if whole_path { String::new() } else { API.to_owned() };
            return Ok(Self { scheme: Scheme::HTTP, authority: url.to_owned(), path, socket: Some(socket.into()) });
        }
        let absolute = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let uri: Uri = absolute.parse().map_err(|_| "is not a URL: https://HOST[:PORT][/PATH]".to_owned())?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err("is not a URL: https://HOST[:PORT][/PATH]".to_owned());
        };
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err("is a URL of another scheme than https, http and unix".to_owned());
        }
        if authority.as_str().contains('@') {
            return Err("is a URL with a user in it; credentials belong into a file of credentials".to_owned());
        }
        if authority.host().is_empty() || uri.query().is_some() || absolute.contains('#') {
            return Err("is a URL of another form than https://HOST[:PORT][/PATH]".to_owned());
        }
        let usual = if *scheme == Scheme::HTTP { ":80" } else { ":443" };
        let authority = authority.as_str().strip_suffix(usual).unwrap_or(authority.as_str());
        Ok(Self {
            scheme: scheme.clone(),
            authority: authority.to_ascii_lowercase(),
            path: root(uri.path(), whole_path),
            socket: None,
        })
    }
}

/// Returns the root of the API, with single slashes and none at its end.
fn root(path: &str, whole: bool) -> String {
    let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
    let path: String = components.iter().flat_map(|component| ["/", component]).collect();
    if whole || path.ends_with(API) { path } else { path + API }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_the_api_is_where_containerd_has_it() {
        for (url, whole, scheme, authority, path) in [
            ("https://a.test", false, "https", "a.test", "/v2"),
            ("https://a.test/", false, "https", "a.test", "/v2"),
            ("a.test:5000", false, "https", "a.test:5000", "/v2"),
            ("http.test", false, "https", "http.test", "/v2"),
            ("http://A.test:80/x/", false, "http", "a.test", "/x/v2"),
            ("https://a.test:443/v2/proxy", false, "https", "a.test", "/v2/proxy/v2"),
            ("https://a.test/v2/proxy", true, "https", "a.test", "/v2/proxy"),
            ("https://a.test/x/v2", false, "https", "a.test", "/x/v2"),
            ("https://a.test", true, "https", "a.test", ""),
            ("https://[::1]:5000", false, "https", "[::1]:5000", "/v2"),
        ] {
            let address = Address::parse(url, whole).unwrap();
            assert_eq!(address.scheme.as_str(), scheme, "{url}");
            assert_eq!((address.authority.as_str(), address.path.as_str()), (authority, path), "{url}");
        }
        let socket = Address::parse("unix:///run/r.sock", false).unwrap();
        assert_eq!(socket.socket.as_deref(), Some("/run/r.sock".as_ref()));
        assert_eq!((socket.authority.as_str(), socket.path.as_str()), ("unix:///run/r.sock", "/v2"));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for url in [
            "",
            "https://",
            "ftp://a.test",
            "unix://run/r.sock",
            "unix:///run/",
            "https://user:hunter2@a.test",
            "https://a.test?hunter2",
            "https://a b/hunter2",
        ] {
            let what = Address::parse(url, false).unwrap_err();
            assert!(!what.contains("hunter2"), "{what}");
        }
    }
}
