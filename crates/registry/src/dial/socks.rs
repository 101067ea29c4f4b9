//! A way through a SOCKS proxy: RFC 1928, and RFC 1929 for user and password.

use std::net::{IpAddr, SocketAddr};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tower_service::Service as _;

use super::NoWay;
use crate::lookup::{Lookup, NotResolved};
use crate::proxy::Proxy;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Where a proxy is to connect to.
#[derive(Debug)]
pub(super) enum Target {
    Address(IpAddr),
    Name(String),
}

impl Target {
    /// Leaves it to the proxy to look a name up.
    pub(super) fn named(host: &str) -> Self {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().map_or_else(|_| Self::Name(bare.to_owned()), Self::Address)
    }

    /// Looks a name up.
    pub(super) async fn looked_up(host: &str, lookup: &mut Lookup) -> Result<Self, NotResolved> {
        let target = Self::named(host);
        let Self::Name(name) = &target else { return Ok(target) };
        let name: Name = name.parse().map_err(|_| NotResolved::nowhere())?;
        let found: Option<SocketAddr> = lookup.call(name).await?.next();
        found.map(|address| Self::Address(address.ip())).ok_or_else(NotResolved::nowhere)
    }
}

/// Has the proxy connect to a host; from then on the stream is one to that.
pub(super) async fn through<S>(stream: &mut S, proxy: &Proxy, target: &Target, port: u16) -> Result<(), NoWay>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: std::io::Error| NoWay::broken(proxy, error);
    let no = |words: &str| NoWay::through(proxy, false, words);
    let method = if proxy.credential.is_some() { USER_AND_PASSWORD } else { NO_AUTHENTICATION };
    stream.write_all(&[VERSION, 1, method]).await.map_err(broken)?;
    match read::<2, _>(stream).await.map_err(broken)? {
        [VERSION, chosen] if chosen == method => {}
        [VERSION, _] if proxy.credential.is_some() => return Err(no("takes no user and password")),
        [VERSION, _] => return Err(no("wants to know who we are: a user and a password belong into its URL")),
        _ => return Err(no("does not answer in SOCKS 5")),
    }
    identify(stream, proxy).await?;
    let mut request = vec![VERSION, CONNECT, 0];
    match target {
        Target::Address(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Target::Address(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Target::Name(name) => {
            request.push(NAME);
            request.push(u8::try_from(name.len()).map_err(|_| no("takes no name of more than 255 bytes"))?);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await.map_err(broken)?;
    let [version, reply, _, kind] = read::<4, _>(stream).await.map_err(broken)?;
    if version != VERSION {
        return Err(no("does not answer in SOCKS 5"));
    }
    if reply != 0 {
        let transient = matches!(reply, 1 | 3..=6);
        return Err(NoWay::through(proxy, transient, format_args!("does not connect us: {}", reason(reply))));
    }
    // Where it connects from is of no interest, but has to be read.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(stream.read_u8().await.map_err(broken)?),
        _ => return Err(no("does not answer in SOCKS 5")),
    };
    let mut bound = vec![0; length + 2];
    stream.read_exact(&mut bound).await.map_err(broken)?;
    Ok(())
}

/// Says who we are, to a proxy that wants to know: RFC 1929 section 2.
async fn identify<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, proxy: &Proxy) -> Result<(), NoWay> {
    let Some((user, password)) = &proxy.credential else { return Ok(()) };
    let broken = |error: std::io::Error| NoWay::broken(proxy, error);
    let mut message = vec![1];
    for text in [user, password] {
        let length = u8::try_from(text.expose().len())
            .map_err(|_| NoWay::through(proxy, false, "takes no user or password of more than 255 bytes"))?;
        message.push(length);
        message.extend_from_slice(text.expose().as_bytes());
    }
    stream.write_all(&message).await.map_err(broken)?;
    match read::<2, _>(stream).await.map_err(broken)? {
        [_, 0] => Ok(()),
        _ => Err(NoWay::through(proxy, false, "refuses the user and password that its URL has")),
    }
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// RFC 1928 section 6.
fn reason(reply: u8) -> &'static str {
    match reply {
        1 => "it has failed",
        2 => "its rules forbid it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the host refuses the connection",
        6 => "the time was up",
        7 => "it cannot connect",
        8 => "it does not know this kind of address",
        _ => "it does not say why",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answered(proxy: &str, target: &Target, answers: &[u8]) -> (Result<(), NoWay>, Vec<u8>) {
        let proxy = Proxy::parse(proxy).unwrap();
        let (mut ours, mut theirs) = duplex(64 << 10);
        theirs.write_all(answers).await.unwrap();
        let done = through(&mut ours, &proxy, target, 443).await;
        drop(ours);
        let mut asked = Vec::new();
        theirs.read_to_end(&mut asked).await.unwrap();
        (done, asked)
    }

    #[tokio::test]
    async fn the_messages_are_those_of_the_rfcs() {
        let (done, asked) =
            answered("socks5h://u:pw@p.test", &Target::named("a.test"), &[5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
                .await;
        done.unwrap();
        assert_eq!(asked, b"\x05\x01\x02\x01\x01u\x02pw\x05\x01\x00\x03\x06a.test\x01\xbb");
        let (done, asked) =
            answered("socks5://p.test", &Target::named("[::1]"), &[5, 0, 5, 0, 0, 3, 1, b'x', 0, 0]).await;
        done.unwrap();
        assert_eq!(asked[3..7], [5, 1, 0, IPV6]);
    }

    #[tokio::test]
    async fn whatever_a_proxy_answers_is_told() {
        for (url, answers, words) in [
            ("socks5://p.test", &b"HTTP/1.1 400"[..], "does not answer in SOCKS 5"),
            ("socks5://p.test", &[5, 0xff], "wants to know who we are"),
            ("socks5://u:hunter2@p.test", &[5, 0xff], "takes no user"),
            ("socks5://u:hunter2@p.test", &[5, 2, 1, 1], "refuses the user"),
            ("socks5://p.test", &[5, 0, 5, 2, 0, 1], "its rules forbid it"),
        ] {
            let (done, _) = answered(url, &Target::named("a.test"), answers).await;
            let error = done.unwrap_err();
            assert!(error.words.contains(words) && error.words.contains("p.test:1080"), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
