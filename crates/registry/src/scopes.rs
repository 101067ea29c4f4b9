//! What a token was asked for and is good for, for whoever has to explain why it is refused.
//!
//! What was granted is what the token server says, or what the token itself says: distribution's documentation, "Token
//! Authentication Implementation", a JWT (RFC 7519) with the claim `access`. Nothing is decided by it and no signature is
//! looked at: the registry does that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::error::printable;

/// The scopes of a token: an extension of the requests that carry it, or ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scopes {
    pub(crate) asked: String,
    /// Nothing when it is not known.
    pub(crate) granted: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    access: Option<Vec<Grant>>,
}

#[derive(Deserialize)]
struct Grant {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    actions: Vec<String>,
}

impl Scopes {
    /// Makes those of a token that is to be asked for.
    pub(crate) fn asked(scopes: &[String]) -> Self {
        Self { asked: printable(&scopes.join(" ")), granted: None }
    }

    /// Takes note of what came: what the token server says, or else what the token does.
    pub(crate) fn granted(self, said: Option<&str>, token: &str) -> Self {
        let granted = said.map(printable).or_else(|| of_token(token));
        Self { granted, ..self }
    }
}

/// Returns what a token says it is good for; nothing when it is none that says.
fn of_token(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let grants = claims.access?.into_iter().filter(|grant| !grant.actions.is_empty());
    let grants = grants.map(|Grant { kind, name, actions }| format!("{kind}:{name}:{}", actions.join(",")));
    Some(printable(&grants.collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_says_what_it_is_good_for() {
        let some = token(r#"{"access":[{"type":"repository","name":"a/b","actions":["pull","push"]}]}"#);
        let scopes = Scopes::asked(&["repository:a/b:pull".to_owned()]);
        assert_eq!(scopes.clone().granted(None, &some).granted.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(scopes.clone().granted(Some("other"), &some).granted.as_deref(), Some("other"));
        let none = token(r#"{"access":[{"type":"repository","name":"a/b","actions":[]}]}"#);
        assert_eq!(scopes.clone().granted(None, &none).granted.as_deref(), Some(""));
        for opaque in ["", "opaque", "a.b.c", "..", &token("{}"), &token("[]"), &token(r#"{"access":7}"#)] {
            assert_eq!(scopes.clone().granted(None, opaque).granted, None, "{opaque:?}");
        }
    }
}
