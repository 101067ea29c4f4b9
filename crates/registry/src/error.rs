//! What a registry says when it refuses, turned into errors: OCI distribution-spec, "Error Codes".

use std::fmt;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use windlass_core::{Attempt, Error, Kind};

use crate::auth::Standing;
use crate::balance::Balance;
use crate::body;
use crate::client::{Answer, From};
use crate::failure::tls_hint;
use crate::hosts::Repository;
use crate::retry::retry_after;
use crate::transport::Response;

/// The largest error body that is read, in bytes.
const MAX_COMPLAINT: u64 = 64 << 10;
/// How much of a server's own words is repeated, in characters.
const MAX_WORDS: usize = 200;

/// What the body of a refusal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The codes, such as `MANIFEST_UNKNOWN`.
    pub(crate) codes: Vec<String>,
    /// The server's words, if they are a registry's and not a web page.
    words: Option<String>,
    /// Whether it is that we have shown no certificate, or one that is not accepted.
    of_certificate: bool,
}

impl Complaint {
    /// Reads the body of a refusal; one that cannot be read says nothing.
    pub(crate) async fn read(response: Response, idle: Duration) -> Self {
        match body::read(response, "", "", MAX_COMPLAINT, idle).await {
            Ok(bytes) => Self::parse(&bytes),
            Err(error) => {
                tracing::debug!(%error, "the body of a refusal is not readable");
                Self::default()
            }
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
            // nginx has no status for it that others know: "400 No required SSL certificate was sent".
            let of_certificate = String::from_utf8_lossy(bytes).contains("SSL certificate");
            return Self { of_certificate, ..Self::default() };
        };
        let errors = value.get("errors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let texts = |name: &'static str| errors.iter().filter_map(move |error| error.get(name)?.as_str());
        let message = || texts("message").find(|text| !text.is_empty());
        // Token servers have forms of their own.
        let other = || ["details", "message", "error_description", "error"].iter().find_map(|n| value.get(n)?.as_str());
        Self {
            codes: texts("code").map(|code| code.trim().to_ascii_uppercase()).collect(),
            words: message().or_else(other).or_else(|| texts("code").next()).map(printable),
            of_certificate: false,
        }
    }

    /// Adds to an attempt what was said.
    pub(crate) fn add_to(&self, attempt: &mut Attempt) {
        attempt.code = self.codes.first().map(|code| printable(code));
        attempt.message.clone_from(&self.words);
    }

    /// Tells whether a registry wrote this.
    pub(crate) fn is_registrys(&self) -> bool {
        !self.codes.is_empty()
    }

    /// Tells whether the complaint has a code.
    pub(crate) fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|other| other == code)
    }
}

/// Prints as ` (WORDS)`, or as nothing.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.words {
            Some(words) => write!(f, " ({words})"),
            None => Ok(()),
        }
    }
}

/// What was tried before an answer, which led to who gave it: an extension of the answer.
#[derive(Debug, Clone)]
pub(crate) struct Earlier(pub(crate) Vec<Attempt>);

/// Returns what was tried until there was this answer.
pub(crate) fn attempt_of<B>(response: &http::Response<B>) -> Option<&Attempt> {
    response.extensions().get()
}

/// Makes a server's words fit for a terminal.
pub(crate) fn printable(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut words: String = clean.take(MAX_WORDS).collect();
    if text.chars().nth(MAX_WORDS).is_some() {
        words.push('…');
    }
    words
}

/// Returns a status as `404 Not Found`.
pub(crate) fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The stable code of [`certificate_wanted`].
pub(crate) const CERTIFICATE_WANTED: &str = "client-certificate-wanted";

/// Says that a host wants to know by a certificate who we are.
pub(crate) fn certificate_wanted(said: &str, host: &str) -> Error {
    Error::unauthenticated(format!("{said}: it wants a certificate of ours, and gets none that it accepts")).hint(format!(
        "name one with its key: `client` in the hosts.toml of {host}, or NAME.cert and NAME.key in the directory of it"
    ))
}

/// A refusal: an answer whose status is not success.
pub(crate) struct Refusal<'a> {
    pub(crate) repository: &'a Repository,
    /// What was asked for: `tag "7"`, `blob sha256:…`.
    pub(crate) object: &'a str,
    pub(crate) host: String,
    pub(crate) from: From,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) complaint: Complaint,
    /// What was tried.
    pub(crate) attempt: Option<Attempt>,
    /// What was tried before, which led there.
    earlier: Vec<Attempt>,
}

impl<'a> Refusal<'a> {
    /// Reads what the server says.
    pub(crate) async fn read(repository: &'a Repository, object: &'a str, answer: Answer, idle: Duration) -> Self {
        let Answer { host, response, from, .. } = answer;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut attempt = attempt_of(&response).cloned();
        let earlier = response.extensions().get::<Earlier>().map(|earlier| earlier.0.clone()).unwrap_or_default();
        let complaint = Complaint::read(response, idle).await;
        if let Some(attempt) = &mut attempt {
            complaint.add_to(attempt);
        }
        Self { repository, object, host, from, status, headers, complaint, attempt, earlier }
    }

    /// Says it; `standing` is how the registry sees us.
    pub(crate) fn into_error(self, standing: Standing) -> Error {
        let code = self.code(&standing);
        self.tried(self.explained(standing).coded(code))
    }

    /// Has an error that says it in other words know what was tried, and when it may be tried again.
    pub(crate) fn tried(&self, error: Error) -> Error {
        error.attempts(self.attempt.clone()).attempts(self.earlier.clone()).retry_after(retry_after(&self.headers))
    }

    /// Returns the stable code.
    fn code(&self, standing: &Standing) -> &'static str {
        match (self.status.as_u16(), standing) {
            (401, _) if self.from == From::Elsewhere => "credentials-wanted-elsewhere",
            (401, Standing::Identified) => "credentials-refused",
            (401, Standing::Anonymous) => "credentials-needed",
            (401, Standing::Unusable { .. }) => "credentials-unusable",
            (403, _) => "access-denied",
            (404, _) => "object-not-found",
            (416, _) => "object-too-short",
            (400, _) if self.complaint.of_certificate => CERTIFICATE_WANTED,
            (429, _) => "rate-limited",
            (405 | 501, _) => "not-offered",
            (500..=599, _) => "registry-failed",
            _ => "unexpected-answer",
        }
    }

    fn explained(&self, standing: Standing) -> Error {
        let Self { repository, object, host, complaint, .. } = self;
        let name = &repository.name;
        let status = status_text(self.status);
        match self.status.as_u16() {
            401 => self.unauthenticated(standing),
            403 => Error::permission_denied(format!("{host} forbids reading {object} of {name}{complaint}"))
                .hint(self.forbidden_hint(&standing)),
            404 => Error::not_found(format!("{object} is not in repository {name} of {host}{complaint}"))
                .hint("what refers to it is older or newer than the repository; resolve the tag again"),
            416 => Error::out_of_range(format!("{object} of {name} at {host} ends before the part that was asked for"))
                .hint("its size differs from what its manifest says"),
            429 => {
                let wait = retry_after(&self.headers)
                    .map_or_else(String::new, |wait| format!(", and asks to come back in {} s", wait.as_secs()));
                let quota = Balance::of(&self.headers).and_then(|balance| balance.exhausted_for());
                let wait = match quota {
                    Some(quota) if wait.is_empty() => {
                        format!(": none are left of its quota for {}", humantime::format_duration(quota))
                    }
                    _ => wait,
                };
                Error::resource_exhausted(format!(
                    "{host} limits the rate of requests for {object} of {name}{wait}{complaint}"
                ))
                .hint("wait, or use credentials that have a higher limit")
            }
            400 if complaint.of_certificate => {
                certificate_wanted(&format!("{host} answers {status} to {object} of {name}"), &repository.host.name)
            }
            400 if repository.host.scheme == Scheme::HTTP && !complaint.is_registrys() => {
                Error::failed_precondition(format!("{host} answers {status} to plain HTTP for {object} of {name}"))
                    .hint(tls_hint(&repository.host.authority))
            }
            405 | 501 => Error::unimplemented(format!("{host} does not offer {object} of {name}: {status}{complaint}"))
                .hint("check that this is the address of a registry"),
            500..=599 => Error::unavailable(format!("{host} answers {status} to {object} of {name}{complaint}"))
                .hint("the registry, or a proxy before it, has a problem; run the command again later"),
            code => {
                let kind = if code == 400 { Kind::InvalidArgument } else { Kind::Unknown };
                Error::new(kind, format!("{host} answers {status} to {object} of {name}{complaint}"))
                    .hint("check that this is the address of a registry")
            }
        }
    }

    fn unauthenticated(&self, standing: Standing) -> Error {
        let Self { repository, object, host, complaint, .. } = self;
        let (name, registry) = (&repository.name, &repository.host.name);
        if self.from == From::Elsewhere {
            return Error::unauthenticated(format!(
                "{host}, to which {registry} redirects, wants credentials for {object} of {name}{complaint}"
            ))
            .hint(format!("credentials for {registry} are sent to nobody else; the operator has to look at it"));
        }
        match standing {
            Standing::Identified => Error::unauthenticated(format!(
                "{host} refuses the credentials for {object} of {name}{complaint}"
            ))
            .hint(format!("`dist login {registry}` replaces them; they may lack the right to read")),
            Standing::Anonymous => Error::unauthenticated(format!(
                "{host} wants credentials for {object} of {name}{complaint}"
            ))
            .hint(format!(
                "`dist login {registry}` takes them; some registries answer the same for a repository that does not exist"
            )),
            Standing::Unusable { hint } => Error::unauthenticated(format!(
                "{host} wants credentials for {object} of {name}, and those there are cannot be used{complaint}"
            ))
            .hint(hint),
        }
    }

    fn forbidden_hint(&self, standing: &Standing) -> String {
        let registry = &self.repository.host.name;
        match standing {
            Standing::Unusable { hint } => hint.clone(),
            Standing::Identified => {
                format!("the user whose credentials for {registry} are used needs the right to read")
            }
            Standing::Anonymous => {
                format!("`dist login {registry}` takes credentials")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaints_of_registries_and_token_servers_are_read() {
        let complaint = Complaint::parse(
            br#"{"errors":[{"code":"manifest_unknown","message":"manifest unknown","detail":{"Tag":"8"}}]}"#,
        );
        assert!(complaint.has("MANIFEST_UNKNOWN"));
        assert_eq!(complaint.to_string(), " (manifest unknown)");
        assert_eq!(Complaint::parse(br#"{"details":"incorrect username"}"#).to_string(), " (incorrect username)");
        assert_eq!(Complaint::parse(br#"{"errors":[{"code":"DENIED"}]}"#).to_string(), " (DENIED)");
        assert!(Complaint::parse(b"<html>400 No required SSL certificate was sent</html>").of_certificate);
        for nothing in ["<html>502</html>", "", "[]", "null", r#"{"errors":null}"#, r#"{"errors":[1]}"#] {
            assert_eq!(Complaint::parse(nothing.as_bytes()), Complaint::default(), "{nothing}");
        }
    }

    #[test]
    fn the_words_of_a_server_cannot_write_to_the_terminal() {
        let long = format!("\u{1b}[31m{}", "x".repeat(500));
        let words = printable(&long);
        assert!(!words.contains('\u{1b}'));
        assert_eq!(words.chars().count(), MAX_WORDS + 1);
    }
}
