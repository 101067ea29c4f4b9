//! Who may read: basic and bearer authentication, with the token server in the same place at `/token`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::fake::Recorded;

/// How the fake wants to be asked.
#[derive(Debug, Clone)]
pub enum Auth {
    /// With a user name and a password.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// With a token.
    Bearer(Bearer),
}

/// How tokens are given.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// Where to send clients for a token; the fake itself when absent.
    pub realm: Option<String>,
    /// Whether anyone gets a token that reads.
    pub anonymous: bool,
    /// The user name and the password of who does.
    pub user: Option<(String, String)>,
    /// The refresh token of who does.
    pub refresh_token: Option<String>,
    /// How long a token lives, in seconds, as it is told.
    pub expires_in: Option<u64>,
    /// What the token is called in the answer: `token` or `access_token`.
    pub field: String,
    /// A scope of the registry's own that is asked for.
    pub extra_scope: Option<String>,
}

impl Default for Bearer {
    fn default() -> Self {
        Self {
            realm: None,
            anonymous: true,
            user: None,
            refresh_token: None,
            expires_in: None,
            field: "token".to_owned(),
            extra_scope: None,
        }
    }
}

/// The state of authentication.
#[derive(Debug, Default)]
pub(super) struct Access {
    auth: Option<Auth>,
    valid: BTreeSet<String>,
    given: usize,
}

/// An answer of the token server: status and body.
pub(super) type TokenAnswer = (u16, String);

impl Access {
    pub(super) fn require(&mut self, auth: Auth) {
        self.auth = Some(auth);
    }

    pub(super) fn revoke(&mut self) {
        self.valid.clear();
    }

    /// Returns the challenge to a request that may not be answered.
    pub(super) fn challenge(
        &self,
        request: &Recorded,
        repository: &str,
        mounts_from: Option<&str>,
        url: &str,
    ) -> Option<String> {
        let given = request.header("authorization").unwrap_or_default();
        match self.auth.as_ref()? {
            Auth::Basic { username, password } => {
                (given != basic(username, password)).then(|| r#"Basic realm="fake, \"quoted\"""#.to_owned())
            }
            Auth::Bearer(bearer) => {
                let action = match request.method.as_str() {
                    "GET" | "HEAD" => "pull",
                    "DELETE" => "delete",
                    _ => "pull,push",
                };
                let mounted = mounts_from.map_or_else(String::new, |from| format!(" repository:{from}:pull"));
                let scope = format!("repository:{repository}:{action}{mounted}");
                let token = given.strip_prefix("Bearer ").unwrap_or_default();
                let reads_there = mounts_from.is_none_or(|from| allows(token, from, "pull"));
                if self.valid.contains(token) && allows(token, repository, action) && reads_there {
                    return None;
                }
                let realm = bearer.realm.clone().unwrap_or_else(|| format!("{url}/token"));
                let extra = bearer.extra_scope.as_ref().map_or_else(String::new, |scope| format!(" {scope}"));
                Some(format!(r#"Bearer realm="{realm}",service="fake registry",scope="{scope}{extra}""#))
            }
        }
    }

    /// Answers a request for a token.
    pub(super) fn token(&mut self, request: &Recorded) -> TokenAnswer {
        let Some(Auth::Bearer(bearer)) = self.auth.clone() else { return (404, "there are no tokens here".to_owned()) };
        let refused = || (401, json!({ "details": "incorrect username or password" }).to_string());
        let form = if request.method == "POST" {
            String::from_utf8_lossy(&request.body).into_owned()
        } else {
            request.query.clone().unwrap_or_default()
        };
        let parameters: Vec<(String, String)> = form.split('&').filter_map(pair).collect();
        let parameter =
            |name: &str| parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let may_read = if request.method == "POST" {
            parameter("grant_type") == Some("refresh_token")
                && bearer.refresh_token.is_some()
                && parameter("refresh_token") == bearer.refresh_token.as_deref()
        } else {
            match (request.header("authorization"), &bearer.user) {
                (Some(given), Some((username, password))) => given == basic(username, password),
                (Some(_), None) => false,
                (None, _) => bearer.anonymous,
            }
        };
        let scopes: Vec<&str> = parameters
            .iter()
            .filter(|(name, _)| name == "scope")
            .flat_map(|(_, value)| value.split(' '))
            .filter(|scope| scope.starts_with("repository:"))
            .collect();
        if !may_read || parameter("service") != Some("fake registry") || scopes.is_empty() {
            return refused();
        }
        let scope = scopes.join(";");
        self.given += 1;
        let token = format!("fake-token-{}-{scope}", self.given);
        self.valid.insert(token.clone());
        let mut answer = json!({ bearer.field.clone(): token });
        if let (Some(seconds), Some(answer)) = (bearer.expires_in, answer.as_object_mut()) {
            answer.insert("expires_in".to_owned(), seconds.into());
        }
        (200, answer.to_string())
    }
}

/// Tells whether a token, which says its scopes, is for some actions in a repository.
fn allows(token: &str, repository: &str, actions: &str) -> bool {
    let scopes = token.splitn(4, '-').nth(3).unwrap_or_default();
    let own = format!("repository:{repository}:");
    let given: Vec<&str> =
        scopes.split(';').filter_map(|scope| scope.strip_prefix(&own)).flat_map(|it| it.split(',')).collect();
    actions.split(',').all(|action| given.contains(&action))
}

pub(super) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

pub(super) fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((unescape(name), unescape(value)))
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                bytes
                    .push(u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).expect("an escape has two digits"));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).expect("parameters are text")
}
