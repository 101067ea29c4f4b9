//! What was tried before an operation failed: which hosts, chosen by which rule, and what each said.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many attempts a trace keeps: those that were made last.
pub(super) const MAX_ATTEMPTS: usize = 32;

/// One host that was asked for something, and what came of it.
///
/// Whoever fills it in sees to it that the texts are fit for a terminal and hold no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// The host, as the user calls it or as a redirect names it.
    pub host: String,
    /// What chose the host: `named by the reference`, `/etc/windlass/hosts/_default/hosts.toml:4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What it was asked: `HEAD tag "7" of library/redis`.
    pub operation: String,
    /// The status of its last answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of the error in its own words: `MANIFEST_UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The scope of the token that was asked for: `repository:library/redis:pull`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope_asked: Option<String>,
    /// The scope that the token server says it gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope_granted: Option<String>,
    /// How many times it was asked again.
    pub retries: u32,
    /// What came of it, in a few words: `404 Not Found`, `the connection was refused`.
    pub outcome: String,
}

impl Attempt {
    /// Makes an attempt at a host, with what came of it.
    pub fn new(host: impl Into<String>, operation: impl Into<String>, outcome: impl Into<String>) -> Self {
        Self { host: host.into(), operation: operation.into(), outcome: outcome.into(), ..Self::default() }
    }
}

/// One line: who was asked, why, for what, and the answer.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if let Some(rule) = &self.rule {
            write!(f, " ({rule})")?;
        }
        write!(f, ": {}: {}", self.operation, self.outcome)?;
        match (&self.code, &self.message) {
            (Some(code), Some(message)) if code != message => write!(f, ", {code}: {message}")?,
            (Some(words), _) | (None, Some(words)) => write!(f, ", {words}")?,
            (None, None) => {}
        }
        if let Some(asked) = &self.scope_asked {
            write!(f, "; asked for {asked}")?;
        }
        if let Some(granted) = &self.scope_granted {
            let granted = if granted.is_empty() { "nothing" } else { granted };
            write!(f, ", granted {granted}")?;
        }
        match self.retries {
            0 => Ok(()),
            1 => f.write_str("; tried again once"),
            times => write!(f, "; tried again {times} times"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_one_line_that_says_what_is_known() {
        let bare = Attempt::new("a.test", "GET blob sha256:…", "refused the connection");
        assert_eq!(bare.to_string(), "a.test: GET blob sha256:…: refused the connection");
        let full = Attempt {
            rule: Some("hosts.toml:4".to_owned()),
            status: Some(401),
            code: Some("UNAUTHORIZED".to_owned()),
            message: Some("authentication required".to_owned()),
            scope_asked: Some("repository:x:pull".to_owned()),
            scope_granted: Some(String::new()),
            retries: 2,
            ..Attempt::new("a.test", "HEAD tag \"7\"", "401 Unauthorized")
        };
        assert_eq!(
            full.to_string(),
            "a.test (hosts.toml:4): HEAD tag \"7\": 401 Unauthorized, UNAUTHORIZED: authentication required; asked for \
             repository:x:pull, granted nothing; tried again 2 times"
        );
    }

    #[test]
    fn as_data_it_has_what_is_known_and_nothing_else() {
        let attempt = Attempt { status: Some(404), ..Attempt::new("a.test", "HEAD tag", "404 Not Found") };
        let json = serde_json::to_string(&attempt).unwrap();
        assert_eq!(
            json,
            r#"{"host":"a.test","operation":"HEAD tag","status":404,"retries":0,"outcome":"404 Not Found"}"#
        );
        assert_eq!(serde_json::from_str::<Attempt>(&json).unwrap(), attempt);
    }
}
