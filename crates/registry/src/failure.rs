//! Why there was no answer: connection failures, classified, and said so that one can act on them.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use windlass_core::{Error, Kind};

use crate::dial::NoWay;
use crate::error::{CERTIFICATE_WANTED, certificate_wanted};
use crate::hosts::is_loopback;
use crate::lookup::NotResolved;

/// What kept a request from being answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The host's name has no address.
    Lookup,
    /// Nothing listens there.
    Refused,
    /// There is no way there.
    Unreachable,
    /// A proxy or a socket is in the way; what to do about it, and whether trying again may help.
    Way { hint: String, transient: bool },
    /// The connection broke.
    Interrupted,
    /// Nothing came for so long.
    Timeout(Duration),
    /// TLS was spoken to a server that answers without.
    PlainServer,
    /// Plain HTTP was spoken, and what came back is not HTTP.
    NotHttp,
    /// The headers are more than is accepted.
    TooManyHeaders,
    /// The certificate is not accepted.
    Certificate(Problem),
    /// The server wants a certificate of ours, or another one.
    ClientCertificate,
    /// TLS failed in another way.
    Tls,
    /// Anything else.
    Other,
}

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The stable code.
    code: &'static str,
    /// What is wrong.
    words: String,
}

impl Problem {
    /// Says what to do about it.
    fn hint(&self) -> &'static str {
        match self.code {
            "certificate-expired" => "the operator of the server has to renew it, unless this machine's clock is wrong",
            "certificate-not-yet-valid" => {
                "set this machine's clock; when it is right, the operator has to look at the server"
            }
            "certificate-wrong-name" => {
                "ask the server by a name that the certificate is for; or something answers in its place, such as a proxy"
            }
            _ => {
                "for a private authority, add its certificate to those that this machine trusts, or name it: `ca` in a \
                 hosts.toml; on a machine that trusts none yet, install the package ca-certificates"
            }
        }
    }
}

/// A failure to get an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// The innermost cause in its own words.
    words: String,
}

/// Whom a request was for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// What the user calls it.
    pub(crate) name: &'a str,
    /// Where it is.
    pub(crate) authority: &'a str,
    /// Whether it has answered before.
    pub(crate) answered: bool,
}

impl Failure {
    /// Classifies an error of the HTTP stack.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut failure = Self { cause: Cause::Other, words: error.to_string() };
        let mut next = Some(error);
        while let Some(error) = next {
            failure.words = error.to_string();
            if let Some(cause) = cause_of(error) {
                failure.cause = cause;
            }
            next = inner(error);
        }
        failure
    }

    /// Makes the failure of an answer that did not come in time.
    pub(crate) fn timeout(limit: Duration) -> Self {
        Self { cause: Cause::Timeout(limit), words: String::new() }
    }

    /// Takes the failure for a connection that broke, whatever it looked like.
    pub(crate) fn interrupted(self) -> Self {
        Self { cause: Cause::Interrupted, ..self }
    }

    /// Tells whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self.cause,
            Cause::Way { transient: true, .. }
                | Cause::Refused
                | Cause::Unreachable
                | Cause::Interrupted
                | Cause::Timeout(_)
                | Cause::Other
        )
    }

    /// Says it in a few words, for a list of what was tried.
    pub(crate) fn in_short(&self) -> String {
        match &self.cause {
            Cause::Lookup => "the name has no address".to_owned(),
            Cause::Refused => "the connection was refused".to_owned(),
            Cause::Unreachable => "it cannot be reached".to_owned(),
            Cause::Way { .. } => self.words.clone(),
            Cause::Interrupted => "the connection broke".to_owned(),
            Cause::Timeout(limit) => format!("nothing came for {} s", limit.as_secs_f64()),
            Cause::PlainServer => "the server speaks no TLS".to_owned(),
            Cause::NotHttp => "the answer is not HTTP".to_owned(),
            Cause::TooManyHeaders => "the answer has too many headers".to_owned(),
            Cause::Certificate(problem) => format!("the certificate is not accepted: {}", problem.words),
            Cause::ClientCertificate => format!("it wants a certificate of ours: {}", self.words),
            Cause::Tls => format!("TLS failed: {}", self.words),
            Cause::Other => format!("no answer: {}", self.words),
        }
    }

    /// Returns the stable code.
    fn code(&self) -> &'static str {
        match &self.cause {
            Cause::Lookup => "host-not-found",
            Cause::Refused => "connection-refused",
            Cause::Unreachable => "host-unreachable",
            Cause::Way { .. } => "no-way-to-host",
            Cause::Interrupted => "connection-broken",
            Cause::Timeout(_) => "no-answer-in-time",
            Cause::PlainServer => "tls-expected",
            Cause::NotHttp => "http-expected",
            Cause::TooManyHeaders => "headers-too-large",
            Cause::Certificate(problem) => problem.code,
            Cause::ClientCertificate => CERTIFICATE_WANTED,
            Cause::Tls => "tls-failed",
            Cause::Other => "no-answer",
        }
    }

    /// Says it.
    pub(crate) fn into_error(self, peer: Peer<'_>) -> Error {
        let code = self.code();
        self.explained(peer).coded(code)
    }

    fn explained(self, peer: Peer<'_>) -> Error {
        let Peer { name: host, authority, answered } = peer;
        let words = &self.words;
        match self.cause {
            // A host that has answered has a name; what fails now is the lookup.
            Cause::Lookup if answered => {
                Error::unavailable(format!("the name of host {host} is not resolved any more"))
                    .hint("look at this machine's network and name server")
            }
            Cause::Lookup => Error::not_found(format!("host {authority} is not found"))
                .hint(format!("check the spelling of {host}, and that this machine has a name server that knows it")),
            Cause::Refused => Error::unavailable(format!("{host} refuses the connection"))
                .hint(format!("nothing listens at {authority}: check host and port, and that the registry runs")),
            Cause::Unreachable => Error::unavailable(format!("{host} cannot be reached: {words}"))
                .hint("look at this machine's network, routes and firewall"),
            Cause::Way { hint, .. } => Error::unavailable(format!("{host} cannot be reached: {words}")).hint(hint),
            Cause::Interrupted => Error::unavailable(format!("the connection to {host} broke: {words}"))
                .hint("run the command again: it continues"),
            Cause::Timeout(limit) => {
                Error::deadline_exceeded(format!("{host} sent nothing for {} s", limit.as_secs_f64()))
                    .hint(format!("{authority} is overloaded, or something between it and this machine drops packets"))
            }
            Cause::PlainServer => {
                Error::failed_precondition(format!("the server at {host} speaks plain HTTP, not TLS"))
                    .hint("if that is meant to be so, use --plain-http")
            }
            Cause::NotHttp => {
                Error::failed_precondition(format!("the server at {host} does not answer plain HTTP with HTTP"))
                    .hint(tls_hint(authority))
            }
            Cause::TooManyHeaders => {
                Error::failed_precondition(format!("{host} answers with more headers than are accepted"))
                    .hint("no registry does that: check that this is the address of one, and what is before it")
            }
            Cause::Certificate(problem) => {
                Error::failed_precondition(format!("the certificate of {host} is not accepted: {}", problem.words))
                    .hint(problem.hint())
            }
            Cause::ClientCertificate => certificate_wanted(&format!("no TLS connection to {host}: {words}"), host),
            Cause::Tls => Error::failed_precondition(format!("no TLS connection to {host}: {words}"))
                .hint(format!("look at the TLS settings of the server at {authority}")),
            Cause::Other => {
                Error::new(Kind::Unavailable, format!("no answer from {host}: {words}")).hint("run the command again")
            }
        }
    }
}

/// Says what to do about a server that seems to speak TLS where plain HTTP was spoken.
pub(crate) fn tls_hint(authority: &str) -> String {
    if is_loopback(authority) {
        "if it speaks TLS, address it by another name than a loopback one: those are spoken to in plain HTTP".to_owned()
    } else {
        "if it speaks TLS, leave out --plain-http".to_owned()
    }
}

/// Returns the next inner error. An `io::Error` that wraps another one says in `source` only what is inside of that.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(wrapped) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return Some(wrapped);
    }
    error.source()
}

fn cause_of(error: &(dyn StdError + 'static)) -> Option<Cause> {
    if error.is::<NotResolved>() {
        return Some(Cause::Lookup);
    }
    if let Some(NoWay { hint, transient, .. }) = error.downcast_ref() {
        return Some(Cause::Way { hint: hint.clone(), transient: *transient });
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(tls_cause(error));
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return match () {
            () if error.is_parse_too_large() => Some(Cause::TooManyHeaders),
            () if error.is_parse() => Some(Cause::NotHttp),
            () if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => Some(Cause::Interrupted),
            () => None,
        };
    }
    match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some(Cause::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
            Some(Cause::Unreachable)
        }
        io::ErrorKind::TimedOut => Some(Cause::Unreachable),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => Some(Cause::Interrupted),
        _ => None,
    }
}

fn tls_cause(error: &rustls::Error) -> Cause {
    let problem = match error {
        // What comes back does not even begin like a TLS record.
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => return Cause::PlainServer,
        rustls::Error::InvalidCertificate(problem) => problem,
        // Before TLS 1.3 there is no word of its own for none: RFC 5246 section 7.4.6.
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => return Cause::ClientCertificate,
        _ => return Cause::Tls,
    };
    let (code, words) = match problem {
        CertificateError::UnknownIssuer => {
            ("certificate-unknown-authority", "it was issued by an authority that is not trusted here".to_owned())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("certificate-expired", "it has expired".to_owned())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("certificate-not-yet-valid", "it is not valid yet; is this machine's clock right?".to_owned())
        }
        CertificateError::NotValidForName => ("certificate-wrong-name", "it is for another name".to_owned()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            ("certificate-wrong-name", format!("it is for other names ({})", names.join(", ")))
        }
        other => ("certificate-invalid", other.to_string()),
    };
    Cause::Certificate(Problem { code, words })
}

/// Returns a name of a certificate without what the library that reads it writes around: `DnsName("a.test")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer<'_> = Peer { name: "a.test", authority: "a.test:444", answered: false };

    #[test]
    fn an_error_wrapped_in_io_errors_is_found() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        let failure = Failure::of(&wrapped);
        assert!(matches!(failure.cause, Cause::Certificate(_)), "{failure:?}");
        assert!(!failure.is_transient());
    }

    #[test]
    fn a_host_that_has_answered_is_not_missing() {
        let failure = Failure { cause: Cause::Lookup, words: String::new() };
        assert_eq!(failure.clone().into_error(PEER).kind(), Kind::NotFound);
        assert_eq!(failure.into_error(Peer { answered: true, ..PEER }).kind(), Kind::Unavailable);
    }

    #[test]
    fn a_server_that_wants_a_certificate_of_ours_is_told_from_one_that_fails() {
        for (alert, code) in [
            (AlertDescription::CertificateRequired, CERTIFICATE_WANTED),
            (AlertDescription::BadCertificate, CERTIFICATE_WANTED),
            (AlertDescription::HandshakeFailure, "tls-failed"),
        ] {
            let failure = Failure::of(&io::Error::other(rustls::Error::AlertReceived(alert)));
            assert!(!failure.is_transient(), "{failure:?}");
            assert_eq!(failure.into_error(PEER).code(), code);
        }
    }

    #[test]
    fn the_names_of_a_certificate_are_written_as_they_are() {
        for (name, expected) in
            [("DnsName(\"a.test\")", "a.test"), ("IpAddress(127.0.0.1)", "127.0.0.1"), ("a.test", "a.test")]
        {
            assert_eq!(bare(name), expected);
        }
    }

    #[test]
    fn every_failure_names_the_host_and_has_a_hint() {
        let causes = [
            Cause::Lookup,
            Cause::Refused,
            Cause::Unreachable,
            Cause::Way { hint: "look".to_owned(), transient: false },
            Cause::Interrupted,
            Cause::Timeout(Duration::from_secs(1)),
            Cause::PlainServer,
            Cause::NotHttp,
            Cause::TooManyHeaders,
            Cause::Certificate(Problem { code: "certificate-expired", words: "it has expired".to_owned() }),
            Cause::ClientCertificate,
            Cause::Tls,
            Cause::Other,
        ];
        for cause in causes {
            let error = Failure { cause: cause.clone(), words: "words".to_owned() }.into_error(PEER);
            assert!(error.to_string().contains("a.test"), "{cause:?}: {error}");
            assert!(error.hint_text().is_some(), "{cause:?}");
        }
    }
}
