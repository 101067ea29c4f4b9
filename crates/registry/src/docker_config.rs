//! The configuration file of Docker's client, as far as it holds credentials: `auths`, `credHelpers`, `credsStore`.
//!
//! Its form: docs.docker.com, `docker login`, "Credential stores"; podman's `auth.json` is the same. Helpers are not
//! run; the file saying that there is one turns into a hint when a registry refuses an anonymous client.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use serde_json::Value;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

use crate::credentials::{Credential, Credentials, Known};
use crate::hosts::canonical_host;

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Credentials out of a docker config file.
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    path: String,
    credentials: BTreeMap<String, Credential>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

impl DockerConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidArgument` when it is not such a file; nothing of its content is in any
    /// message.
    pub fn load(path: &Path) -> Result<Self> {
        let what = || format!("read docker config {}", path.display());
        let size = std::fs::metadata(path).attempt(what)?.len();
        if size > MAX_SIZE {
            return Err(Error::invalid_argument(format!(
                "docker config {} has {size} bytes, more than the {MAX_SIZE} that are accepted",
                path.display()
            )));
        }
        Self::parse(&path.display().to_string(), &std::fs::read(path).attempt(what)?)
    }

    /// Reads the bytes of a file; `path` is for messages.
    fn parse(path: &str, bytes: &[u8]) -> Result<Self> {
        // The parser's own words quote what it found, which may be a password: only the position is told.
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            malformed(path, &format!("is not JSON at line {} column {}", error.line(), error.column()))
        })?;
        let mut config = Self { path: path.to_owned(), ..Self::default() };
        for (key, entry) in members(path, &value, "auths")? {
            let Some(host) = host_of_key(key) else { continue };
            if let Some(credential) = credential(path, key, entry)? {
                config.credentials.entry(host).or_insert(credential);
            }
        }
        for (key, helper) in members(path, &value, "credHelpers")? {
            if let (Some(host), Some(helper)) = (host_of_key(key), helper.as_str()) {
                config.helpers.insert(host, helper.to_owned());
            }
        }
        config.store = text(&value, "credsStore").map(str::to_owned);
        Ok(config)
    }

    fn known(&self, host: &str) -> Known {
        let host = canonical_host(host);
        if let Some(credential) = self.credentials.get(&host) {
            return Known::Credential(credential.clone());
        }
        match self.helpers.get(&host).or(self.store.as_ref()) {
            Some(helper) => Known::Unusable {
                hint: format!(
                    "{} leaves {host} to the credential helper {helper:?}, which is not run; put an entry for {host} with \
                     its own \"auth\" under \"auths\"",
                    self.path
                ),
            },
            None => Known::Nothing,
        }
    }
}

#[async_trait]
impl Credentials for DockerConfig {
    async fn of(&self, host: &str) -> Result<Known> {
        Ok(self.known(host))
    }
}

fn malformed(path: &str, how: &str) -> Error {
    Error::invalid_argument(format!("docker config {path} {how}"))
        .hint("correct the file, or move it away to be anonymous")
}

/// Returns the members of an object that is in the file; none when it is absent or null.
fn members<'a>(path: &str, value: &'a Value, name: &str) -> Result<Vec<(&'a str, &'a Value)>> {
    match value.get(name) {
        None | Some(Value::Null) if value.is_object() => Ok(Vec::new()),
        Some(Value::Object(members)) => Ok(members.iter().map(|(key, value)| (key.as_str(), value)).collect()),
        _ => Err(malformed(path, &format!("has no object {name:?}"))),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// Returns the host that a key is about: keys are hosts, or URLs such as `https://index.docker.io/v1/`. One for a part of a
/// registry (podman's `HOST/NAMESPACE`) is about no host as a whole.
fn host_of_key(key: &str) -> Option<String> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let whole = matches!(path.trim_end_matches('/'), "" | "v1" | "v2");
    (whole && !host.is_empty()).then(|| canonical_host(host))
}

/// Returns what an entry holds; an empty one, which Docker leaves beside a helper, holds nothing.
fn credential(path: &str, key: &str, entry: &Value) -> Result<Option<Credential>> {
    if let Some(token) = text(entry, "registrytoken") {
        return Ok(Some(Credential::RegistryToken(crate::Secret::new(token))));
    }
    if let Some(token) = text(entry, "identitytoken") {
        return Ok(Some(Credential::IdentityToken(crate::Secret::new(token))));
    }
    if let Some(encoded) = text(entry, "auth") {
        let decoded = decode(encoded).ok_or_else(|| {
            malformed(path, &format!("has an \"auth\" for {key} that is not base64 of USER:PASSWORD"))
        })?;
        return Ok(Some(decoded));
    }
    match (text(entry, "username"), text(entry, "password")) {
        (Some(username), Some(password)) => Ok(Some(Credential::password(username, password))),
        _ => Ok(None),
    }
}

/// RFC 7617: base64 of `user:password`, padded or not. The user `<token>` marks an identity token.
fn decode(encoded: &str) -> Option<Credential> {
    const LENIENT: GeneralPurposeConfig = general_purpose::PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT).decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    // Docker's own writer has padded with NUL.
    let (username, password) = text.trim_end_matches('\0').split_once(':')?;
    match username {
        "" => None,
        "<token>" => Some(Credential::IdentityToken(crate::Secret::new(password))),
        _ => Some(Credential::password(username, password)),
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    fn parse(json: &str) -> Result<DockerConfig> {
        DockerConfig::parse("config.json", json.as_bytes())
    }

    #[test]
    fn each_form_of_an_entry_is_understood() {
        // "dXNlcjpwYTpzcw==" is user:pa:ss, "PHRva2VuPjppZA==" is <token>:id.
        let config = parse(
            r#"{"auths":{
                "a.test":{"auth":"dXNlcjpwYTpzcw=="},
                "b.test:5000":{"auth":"dXNlcjpwYTpzcw"},
                "https://c.test/v2/":{"username":"user","password":"pa:ss"},
                "d.test":{"auth":"PHRva2VuPjppZA=="},
                "e.test":{"auth":"dXNlcjo=","identitytoken":"id"},
                "f.test":{"registrytoken":"rt"},
                "g.test":{},
                "h.test/team":{"auth":"dXNlcjpwYTpzcw=="}}}"#,
        )
        .unwrap();
        let password = Known::Credential(Credential::password("user", "pa:ss"));
        for host in ["a.test", "b.test:5000", "c.test", "A.test"] {
            assert_eq!(config.known(host), password, "{host}");
        }
        let identity = Known::Credential(Credential::IdentityToken(crate::Secret::new("id")));
        assert_eq!(config.known("d.test"), identity);
        assert_eq!(config.known("e.test"), identity);
        assert_eq!(config.known("f.test"), Known::Credential(Credential::RegistryToken(crate::Secret::new("rt"))));
        for host in ["g.test", "h.test", "b.test", "other.test"] {
            assert_eq!(config.known(host), Known::Nothing, "{host}");
        }
    }

    #[test]
    fn docker_hub_is_known_by_all_of_its_names() {
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"] {
            let config = parse(&format!(r#"{{"auths":{{"{key}":{{"auth":"dXNlcjpwYTpzcw=="}}}}}}"#)).unwrap();
            assert_eq!(config.known("docker.io"), Known::Credential(Credential::password("user", "pa:ss")), "{key}");
        }
    }

    #[test]
    fn a_host_that_is_left_to_a_helper_gives_a_hint() {
        let config = parse(r#"{"auths":{"a.test":{}},"credHelpers":{"a.test":"one"}}"#).unwrap();
        assert!(matches!(config.known("a.test"), Known::Unusable { hint } if hint.contains("\"one\"")));
        assert_eq!(config.known("b.test"), Known::Nothing);
        let config = parse(r#"{"credsStore":"desktop"}"#).unwrap();
        assert!(matches!(config.known("a.test"), Known::Unusable { hint } if hint.contains("\"desktop\"")));
    }

    #[test]
    fn a_damaged_file_is_refused_without_quoting_it() {
        for json in [
            r#"{"auths": "hunter2"}"#,
            r#"["hunter2"]"#,
            r#"{"auths":{"a.test":{"auth":"hunter2!"}}}"#,
            r#"{"auths": hunter2"#,
            "",
        ] {
            let error = parse(json).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{json}");
            assert!(error.to_string().contains("config.json"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let missing = DockerConfig::load(Path::new("no/such/config.json")).unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
    }

    #[test]
    fn no_secret_is_printed() {
        let config = parse(r#"{"auths":{"a.test":{"auth":"dXNlcjpodW50ZXIy"},"b.test":{"identitytoken":"hunter2"}}}"#);
        let printed = format!("{config:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("user"), "{printed}");
    }
}
