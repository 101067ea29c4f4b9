//! A tunnel through an HTTP proxy: `CONNECT`, RFC 9110 section 9.3.6.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::NoWay;
use crate::error::printable;
use crate::proxy::Proxy;

/// The largest head of an answer that is read, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// Has the proxy connect to a host; from then on the stream is one to that.
pub(super) async fn through<S>(stream: &mut S, proxy: &Proxy, host: &str, port: u16) -> Result<(), NoWay>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    let authorization = proxy
        .authorization()
        .map_err(|error| NoWay::through(proxy, false, format_args!("cannot be asked: {error}")))?;
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|error| NoWay::broken(proxy, error))?;
    let head = head(stream, proxy).await?;
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    match words.next().and_then(|status| status.parse::<u16>().ok()) {
        Some(200..=299) if version.starts_with("HTTP/1.") => Ok(()),
        Some(407) => Err(NoWay::through(
            proxy,
            false,
            if proxy.credential.is_some() {
                "refuses the user and password that its URL has"
            } else {
                "wants a user and a password, which belong into its URL"
            },
        )),
        // It may be the host, as the proxy sees it, that does not answer.
        Some(status) => {
            let said = words.next().map(printable).unwrap_or_default();
            Err(NoWay::through(
                proxy,
                status >= 500,
                format_args!("answers {status} {said} when it is to connect to {host}:{port}"),
            ))
        }
        None => Err(NoWay::through(proxy, false, "does not answer in HTTP")),
    }
}

/// Reads the head of an answer, byte by byte: what follows it belongs to the host.
async fn head<S: AsyncRead + Unpin>(stream: &mut S, proxy: &Proxy) -> Result<String, NoWay> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(NoWay::through(
                proxy,
                false,
                format_args!("answers with more than {MAX_HEAD} bytes of headers"),
            ));
        }
        head.push(stream.read_u8().await.map_err(|error| NoWay::broken(proxy, error))?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn answered(proxy: &str, answer: &[u8]) -> (Result<(), NoWay>, String) {
        let proxy = Proxy::parse(proxy).unwrap();
        let (mut ours, mut theirs) = duplex(64 << 10);
        theirs.write_all(answer).await.unwrap();
        let done = through(&mut ours, &proxy, "a.test", 443).await;
        drop(ours);
        let mut asked = String::new();
        theirs.read_to_string(&mut asked).await.unwrap();
        (done, asked)
    }

    #[tokio::test]
    async fn a_proxy_is_told_where_to_and_who_we_are_and_nothing_of_the_host_is_taken() {
        let (done, asked) = answered("u:p@p.test", b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").await;
        done.unwrap();
        assert_eq!(asked, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n");
    }

    #[tokio::test]
    async fn whatever_a_proxy_answers_is_told_and_endless_headers_end() {
        let endless = vec![b'x'; MAX_HEAD + 1];
        for (proxy, answer, words, transient) in [
            ("p.test", &b"HTTP/1.1 407 Who?\r\n\r\n"[..], "wants a user", false),
            ("u:hunter2@p.test", b"HTTP/1.1 407 Who?\r\n\r\n", "refuses the user", false),
            ("p.test", b"HTTP/1.1 403 For\x1bbidden\r\n\r\n", "answers 403 For bidden when", false),
            ("p.test", b"HTTP/1.1 503 Down\r\n\r\n", "answers 503 Down", true),
            ("p.test", b"SSH-2.0-x\r\n\r\n", "does not answer in HTTP", false),
            ("p.test", endless.as_slice(), "bytes of headers", false),
        ] {
            let (done, _) = answered(proxy, answer).await;
            let error = done.unwrap_err();
            assert!(error.words.contains(words) && error.words.contains("p.test:80"), "{error:?}");
            assert_eq!(error.transient, transient, "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
