//! Proxies: which one is between us and a host, by the words of the environment or of a `hosts.toml`.
//!
//! The variables mean what they mean to Go's and curl's programs: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, each also in lower
//! case. Who reads them hands them in.

use std::fmt;
use std::net::IpAddr;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use windlass_core::{Error, Result};

use crate::auth::Authorization;
use crate::credentials::Secret;
use crate::hosts::is_loopback;

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) protocol: Protocol,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credential: Option<(Secret, Secret)>,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP: a whole URL for plain HTTP, a tunnel by `CONNECT` for TLS. RFC 9110 sections 7.2 and 9.3.6.
    Http,
    /// SOCKS 5, with addresses that are looked up here. RFC 1928.
    Socks5,
    /// SOCKS 5, with names.
    Socks5WithNames,
}

impl Proxy {
    /// Reads `[http|socks5|socks5h://][USER:PASSWORD@]HOST[:PORT]`.
    ///
    /// # Errors
    /// What is wrong, without the URL: it might have a password in it.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let form = || "is not the URL of a proxy: [http|socks5|socks5h]://[USER:PASSWORD@]HOST[:PORT]".to_owned();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (protocol, usual) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http, 80),
            "socks5" => (Protocol::Socks5, 1080),
            "socks5h" => (Protocol::Socks5WithNames, 1080),
            "https" => {
                return Err("is a proxy that is spoken to over TLS, which is not built; http, socks5 and socks5h are"
                    .to_owned());
            }
            _ => return Err("is a proxy of another kind than http, socks5 and socks5h".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credential, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        let uri: Uri = format!("http://{authority}").parse().map_err(|_| form())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(form)?;
        if uri.path() != "/" || uri.query().is_some() || authority.ends_with(':') {
            return Err(form());
        }
        let credential = match credential {
            None => None,
            Some(text) => {
                let (user, password) = text.split_once(':').unwrap_or((text, ""));
                let decode = |text| decoded(text).map(Secret::new).ok_or_else(form);
                Some((decode(user)?, decode(password)?))
            }
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { protocol, host, port: uri.port_u16().unwrap_or(usual), credential })
    }

    /// Returns what the proxy is told about who we are, in `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>> {
        let Some((user, password)) = &self.credential else { return Ok(None) };
        Ok(Some(Authorization::basic(user.expose(), password.expose())?.header()))
    }
}

/// `HOST:PORT`, without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({:?} {self})", self.protocol)
    }
}

/// RFC 3986 section 2.1.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The proxies between us and hosts. The default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

impl Proxies {
    /// Takes the proxies that variables name; `variable` returns the value of one. An upper-case name goes before a lower-case one,
    /// and an empty value is none.
    ///
    /// # Errors
    /// `InvalidArgument` naming the variable, but not its value, which may have a password in it.
    pub fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let value = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_lowercase()];
            names
                .into_iter()
                .find_map(|name| variable(&name).filter(|value| !value.is_empty()).map(|value| (name, value)))
        };
        let proxy = |name: &str| match value(name) {
            None => Ok(None),
            Some((name, url)) => Proxy::parse(url.trim()).map(Some).map_err(|what| {
                Error::invalid_argument(format!("the variable {name} {what}"))
                    .hint("it looks like http://proxy.example.com:3128")
            }),
        };
        let all = proxy("ALL_PROXY")?;
        Ok(Self {
            http: proxy("HTTP_PROXY")?.or_else(|| all.clone()),
            https: proxy("HTTPS_PROXY")?.or(all),
            exceptions: value("NO_PROXY").map_or_else(Vec::new, |(_, list)| exceptions(&list)),
        })
    }

    /// Returns the proxy between us and a URL. There is none between us and this machine.
    pub(crate) fn of(&self, uri: &Uri) -> Option<&Proxy> {
        let plain = uri.scheme() == Some(&Scheme::HTTP);
        let proxy = if plain { self.http.as_ref() } else { self.https.as_ref() }?;
        let host = uri.host()?;
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let excepted = is_loopback(host) || self.exceptions.iter().any(|exception| exception.fits(host, port));
        (!excepted).then_some(proxy)
    }
}

/// What no proxy is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    /// `*`
    Everything,
    /// `NAME[:PORT]` is the name and what is below, `.NAME` and `*.NAME` only what is below.
    Name { name: String, itself: bool, port: Option<u16> },
    /// `ADDRESS[:PORT]` or `ADDRESS/BITS`
    Network { address: IpAddr, bits: u8, port: Option<u16> },
}

/// Reads a list with commas or spaces. What is malformed fits nothing, as everywhere.
fn exceptions(list: &str) -> Vec<Exception> {
    let words = list.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
    words.filter_map(|word| Exception::parse(&word.to_ascii_lowercase())).collect()
}

impl Exception {
    fn parse(word: &str) -> Option<Self> {
        if word == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, bits)) = word.split_once('/') {
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            return (bits <= most).then_some(Self::Network { address, bits, port: None });
        }
        let whole =
            |address: IpAddr, port| Self::Network { address, bits: if address.is_ipv4() { 32 } else { 128 }, port };
        if let Ok(address) = word.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(whole(address, None));
        }
        let (name, port) = match word.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (word, None),
        };
        if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(whole(address, port));
        }
        let below = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        Some(Self::Name { name: below.unwrap_or(name).to_owned(), itself: below.is_none(), port })
    }

    fn fits(&self, host: &str, at: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Name { name, itself, port } => {
                let host = host.to_ascii_lowercase();
                let below = || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
                port.is_none_or(|port| port == at) && ((*itself && host == *name) || below())
            }
            Self::Network { address, bits, port } => {
                let host = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                port.is_none_or(|port| port == at) && host.is_ok_and(|host| same_network(host, *address, *bits))
            }
        }
    }
}

fn same_network(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let (a, b, length) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    // A shift by all of the bits leaves nothing to compare.
    bits == 0 || (a ^ b).checked_shr(length - u32::from(bits)).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::of_variables(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
    }

    fn of(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(&url.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_proxy_and_all_proxy_is_for_the_rest() {
        let both = proxies(&[
            ("HTTP_PROXY", "p1.test:3128"),
            ("https_proxy", "http://p2.test"),
            ("all_proxy", "socks5://p3.test"),
        ]);
        assert_eq!(of(&both, "http://a.test/").as_deref(), Some("p1.test:3128"));
        assert_eq!(of(&both, "https://a.test/").as_deref(), Some("p2.test:80"));
        let all = proxies(&[("ALL_PROXY", "socks5h://[::1]"), ("all_proxy", "p4.test"), ("HTTP_PROXY", "")]);
        assert_eq!(of(&all, "http://a.test/").as_deref(), Some("[::1]:1080"));
        for here in ["http://localhost:5000/", "https://127.0.0.1/", "http://[::1]/"] {
            assert_eq!(of(&all, here), None, "{here}");
        }
        assert_eq!(of(&proxies(&[]), "http://a.test/"), None);
    }

    #[test]
    fn no_proxy_knows_names_ports_networks_and_everything() {
        let excepted =
            |list: &str, url: &str| of(&proxies(&[("ALL_PROXY", "p.test"), ("NO_PROXY", list)]), url).is_none();
        for (list, url, expected) in [
            ("a.test", "https://a.test/", true),
            ("a.test", "https://A.test:5000/", true),
            ("a.test", "https://x.a.test/", true),
            ("a.test", "https://xa.test/", false),
            (".a.test", "https://a.test/", false),
            (".a.test", "https://x.a.test/", true),
            ("*.a.test", "https://x.y.a.test/", true),
            ("a.test:5000", "https://a.test/", false),
            ("a.test:443", "https://a.test/", true),
            ("b.test, a.test", "https://a.test/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("10.0.0.0/8", "http://a.test/", false),
            ("0.0.0.0/0", "http://8.8.8.8/", true),
            ("fd00::/8", "http://[fd12::1]:5000/", true),
            ("::/0", "http://[fd12::1]/", true),
            ("10.1.2.3", "http://10.1.2.3:5000/", true),
            ("10.1.2.3:80", "http://10.1.2.3:5000/", false),
            ("[fd12::1]:5000", "http://[fd12::1]:5000/", true),
            ("10.0.0.0/99", "http://10.0.0.0/", false),
            ("*", "https://a.test/", true),
            ("", "https://a.test/", false),
        ] {
            assert_eq!(excepted(list, url), expected, "{list} {url}");
        }
    }

    #[test]
    fn a_proxy_may_want_a_password_and_it_is_never_printed() {
        let proxy = Proxy::parse("http://us%40er:hunter%3A2@p.test:3128/").unwrap();
        let (user, password) = proxy.credential.as_ref().unwrap();
        assert_eq!((user.expose(), password.expose()), ("us@er", "hunter:2"));
        assert_eq!(proxy.authorization().unwrap().unwrap(), "Basic dXNAZXI6aHVudGVyOjI=");
        let printed = format!("{proxy} {proxy:?} {:?}", proxies(&[("HTTP_PROXY", "http://u:hunter2@p.test")]));
        assert!(!printed.contains("hunter"), "{printed}");
        for url in [
            "http://u:hunter2@",
            "ftp://u:hunter2@p.test",
            "https://u:hunter2@p",
            "http://u:hunter2@p/x",
            "u:%zhunter2@p",
        ] {
            let error = Proxies::of_variables(|name| (name == "http_proxy").then(|| url.to_owned())).unwrap_err();
            assert!(error.to_string().contains("variable http_proxy"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
