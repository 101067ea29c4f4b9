//! Which of the places elsewhere that a descriptor names are asked: whoever made the image has written them, and they are asked from
//! this machine, which may reach what he cannot.
//!
//! A place is judged by what is written, because through a proxy nobody here looks names up: one whose name leads to an address
//! that would be refused is asked. What keeps that harmless is that it is asked without credentials, over TLS, by `GET`, and that
//! what it answers is shown to nobody and has to have the digest. Who minds it all the same has no place elsewhere asked.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use http::Uri;
use windlass_core::remote::{Body, ByteRange, Fetcher, Lane, Trouble};
use windlass_core::{Attempt, Descriptor, Digest, Error, Kind, Result};

use crate::error::printable;
use crate::hosts::is_loopback;
use crate::options::ForeignUrls;

/// How many places an error names.
const NAMED: usize = 3;

/// Fetches, and leaves out places elsewhere that are not to be asked.
pub(crate) struct Elsewhere {
    pub(crate) inner: Arc<dyn Fetcher>,
    pub(crate) wanted: ForeignUrls,
    /// Whether the registry is this machine, which may then be meant by an image of it.
    pub(crate) local: bool,
}

/// How far a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Anywhere, as far as can be seen.
    Far,
    /// This machine.
    Here,
    /// The wire that this machine is on, where clouds answer who asks who it is; everybody there at once; or an address in a spelling
    /// that hides which one it is.
    Never,
}

impl Elsewhere {
    /// Returns why a place is not asked, if it is not.
    fn refusal(&self, url: &str) -> Option<&'static str> {
        if self.wanted == ForeignUrls::Refused {
            return Some("content from elsewhere is not wanted");
        }
        // What is no URL is told by who would ask.
        let host = url.parse::<Uri>().ok()?.host()?.to_owned();
        match reach(&host) {
            Reach::Here if !self.local => Some("it is this machine, which the registry is not"),
            Reach::Never => Some("it is not an address that images are fetched from"),
            Reach::Far | Reach::Here => None,
        }
    }
}

/// Tells whether a host is one that nobody is sent to by somebody else.
pub(crate) fn is_never_asked(host: &str) -> bool {
    reach(host) == Reach::Never
}

/// Tells how far a host is, by what is written.
fn reach(host: &str) -> Reach {
    if is_loopback(host) {
        return Reach::Here;
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical(),
        // 2852039166 and 0xa9fe.0xa9fe are addresses to who looks names up: WHATWG URL, "ends in a number".
        Err(_) if bare.trim_end_matches('.').rsplit('.').next().is_some_and(is_number) => return Reach::Never,
        Err(_) => return Reach::Far,
    };
    let never = match address {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_multicast() || address.is_broadcast() || is_this_network(address)
        }
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast() || address.is_unspecified(),
    };
    if never {
        Reach::Never
    } else if address.is_loopback() {
        Reach::Here
    } else {
        Reach::Far
    }
}

/// Tells whether an address is of 0.0.0.0/8, which leads to this machine: RFC 1122 section 3.2.1.3.
fn is_this_network(address: Ipv4Addr) -> bool {
    address.octets().first() == Some(&0)
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

#[async_trait]
impl Fetcher for Elsewhere {
    async fn fetch(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if descriptor.urls.is_empty() {
            return self.inner.fetch(descriptor, range).await;
        }
        let mut refused: Vec<String> = Vec::new();
        let mut asked = descriptor.clone();
        asked.urls.retain(|url| match self.refusal(url) {
            None => true,
            Some(why) => {
                refused.push(format!("{} ({why})", printable(url)));
                false
            }
        });
        let fetched = self.inner.fetch(&asked, range).await;
        match fetched {
            Err(error) if error.is(Kind::NotFound) && asked.urls.is_empty() && !refused.is_empty() => {
                let more = if refused.len() > NAMED { ", …" } else { "" };
                refused.truncate(NAMED);
                Err(Error::failed_precondition(format!(
                    "{} is not in the registry, and is not fetched from {}{more}",
                    descriptor.digest,
                    refused.join(", ")
                ))
                .attempts(error.trace().iter().cloned())
                .source(error)
                .coded("foreign-url-refused")
                .hint("the descriptor of the layer says where it is to be had; ask who published the image"))
            }
            fetched => fetched,
        }
    }

    fn lane(&self) -> Option<Lane> {
        self.inner.lane()
    }

    fn origin(&self, digest: &Digest) -> Option<Attempt> {
        self.inner.origin(digest)
    }

    fn pass_over(&self, digest: &Digest, trouble: Trouble, error: Error) -> Result<()> {
        self.inner.pass_over(digest, trouble, error)
    }

    fn start_over(&self, digest: &Digest) {
        self.inner.start_over(digest);
    }

    fn distrust_parts(&self) {
        self.inner.distrust_parts();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_in_any_spelling() {
        for (host, expected) in [
            ("registry.test", Reach::Far),
            ("192.0.2.1", Reach::Far),
            ("10.1.2.3", Reach::Far),
            ("[2001:db8::1]", Reach::Far),
            ("1.2.3.test", Reach::Far),
            ("x86", Reach::Far),
            ("localhost", Reach::Here),
            ("LOCALHOST", Reach::Here),
            ("127.8.8.8", Reach::Here),
            ("[::1]", Reach::Here),
            ("[::ffff:127.0.0.1]", Reach::Here),
            ("169.254.169.254", Reach::Never),
            ("[::ffff:169.254.169.254]", Reach::Never),
            ("[fe80::1]", Reach::Never),
            ("0.0.0.0", Reach::Never),
            ("[::]", Reach::Never),
            ("224.0.0.1", Reach::Never),
            ("2852039166", Reach::Never),
            ("0xa9fea9fe", Reach::Never),
            ("0xA9.0xfe.43518", Reach::Never),
            ("169.254.43518", Reach::Never),
            ("0177.0.0.1", Reach::Never),
            ("169.254.169.254.", Reach::Never),
        ] {
            assert_eq!(reach(host), expected, "{host}");
        }
    }
}
