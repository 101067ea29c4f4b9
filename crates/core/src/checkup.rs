//! Check-ups: what was looked at, what was found, and what to do about it.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, or may be meant so, and is worth a look.
    Warn,
    /// It does not work.
    Fail,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about: a stable word or two, such as `tls` or `room`.
    pub about: String,
    /// Whose it is, where there are several: a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// What it means.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    fn new(about: &str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { about: about.to_owned(), of: None, verdict, found: found.into(), hint: None }
    }

    /// Something is as it should be.
    pub fn ok(about: &str, found: impl Into<String>) -> Self {
        Self::new(about, Verdict::Ok, found)
    }

    /// Something is worth a look.
    pub fn warn(about: &str, found: impl Into<String>) -> Self {
        Self::new(about, Verdict::Warn, found)
    }

    /// Something does not work.
    pub fn fail(about: &str, found: impl Into<String>) -> Self {
        Self::new(about, Verdict::Fail, found)
    }

    /// Something does not work: the error says what and, if it knows, what to do next.
    pub fn failed(about: &str, error: &Error) -> Self {
        let hint = error.hint_text().map(ToOwned::to_owned);
        Self { hint, ..Self::fail(about, error.to_string()) }
    }

    /// Says whose it is.
    pub fn of(self, of: &str) -> Self {
        Self { of: Some(of.to_owned()), ..self }
    }

    /// Says what to do next.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Returns what a check-up means as a whole: the worst of it.
pub fn worst(checks: &[Check]) -> Verdict {
    checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_up_is_as_bad_as_the_worst_of_it() {
        assert_eq!(worst(&[]), Verdict::Ok);
        assert_eq!(worst(&[Check::warn("a", "b"), Check::ok("a", "b")]), Verdict::Warn);
        let failed = Check::failed("dns", &Error::not_found("there is no such name").hint("check its spelling"));
        assert_eq!(worst(&[Check::ok("a", "b"), failed.clone(), Check::warn("a", "b")]), Verdict::Fail);
        assert_eq!(failed.hint.as_deref(), Some("check its spelling"));
    }
}
