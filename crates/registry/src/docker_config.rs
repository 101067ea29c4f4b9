//! The configuration file of Docker's client, as far as it holds credentials: `auths`, `credHelpers`, `credsStore`.
//!
//! Its form: docs.docker.com, `docker login`, "Credential stores". podman's `auth.json` is the same, with keys that may be a part of a
//! registry: containers-auth.json(5).

mod place;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use serde_json::Value;
use tokio::sync::OnceCell;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

use crate::credentials::{Credential, Credentials, Helper, Known};
use crate::hosts::{DOCKER_HUB, canonical_host};

pub use store::Kept;

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// What to do about a file that is wrong.
const CORRECT: &str = "correct the file, or move it away to be anonymous";
/// What Docker calls Docker Hub where it keeps credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Credentials out of a docker config file. Cheap to clone; a helper is asked once for each host.
#[derive(Clone)]
pub struct DockerConfig {
    path: PathBuf,
    /// By host, or by host and the beginning of a repository.
    credentials: BTreeMap<String, Credential>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
    /// One cell for each helper and host: whoever comes while it is being asked waits for the same answer.
    answers: Arc<Mutex<Answers>>,
}

/// What helpers have answered, by helper and host.
type Answers = HashMap<(String, String), Arc<OnceCell<Known>>>;

/// Where a credential is.
enum Place {
    Helper(String),
    Entry(String),
}

impl DockerConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidArgument` when it is not such a file; nothing of its content is in any
    /// message.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &read(path)?)
    }

    /// Reads the bytes of a file; `path` is for messages.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let (file, value) = (Source { path, bytes }, json(path, bytes)?);
        let mut config = Self {
            path: path.to_owned(),
            credentials: BTreeMap::new(),
            helpers: BTreeMap::new(),
            store: file.text(&value, &["credsStore"])?.map(str::to_owned),
            answers: Arc::default(),
        };
        for (key, entry) in file.members(&value, "auths")? {
            let Some(key_of) = canonical_key(key) else { continue };
            if let Some(credential) = credential(&file, key, entry)? {
                config.credentials.entry(key_of).or_insert(credential);
            }
        }
        for (key, helper) in file.members(&value, "credHelpers")? {
            let helper = file.text_of(helper, &["credHelpers", key])?;
            if let (Some(host), Some(helper)) = (canonical_key(key), helper) {
                config.helpers.insert(host, helper.to_owned());
            }
        }
        Ok(config)
    }

    /// Returns where a credential may be, first choice first: with the helper of the host, in the entry that says most, in the store for
    /// all hosts.
    fn places(&self, host: &str, repository: &str) -> Vec<Place> {
        let host = canonical_host(host);
        let mut places: Vec<Place> = self.helpers.get(&host).cloned().map(Place::Helper).into_iter().collect();
        let mut key = if repository.is_empty() { host.clone() } else { format!("{host}/{repository}") };
        loop {
            if self.credentials.contains_key(&key) {
                places.push(Place::Entry(key.clone()));
            }
            match key.rfind('/') {
                Some(end) if end >= host.len() => key.truncate(end),
                _ => break,
            }
        }
        places.extend(self.store.clone().map(Place::Helper));
        places
    }

    /// Returns what is known of a host, and where that is.
    async fn find(&self, host: &str, repository: &str) -> (Known, String) {
        let path = self.path.display();
        let mut found = (Known::Nothing, String::new());
        for place in self.places(host, repository) {
            let (known, source) = match place {
                Place::Entry(key) => match self.credentials.get(&key) {
                    Some(credential) => (Known::Credential(credential.clone()), format!("{path}, entry {key}")),
                    None => continue,
                },
                Place::Helper(name) => {
                    let source = format!("{path}, credential helper {name:?}");
                    (self.ask(&name, &canonical_host(host)).await, source)
                }
            };
            match known {
                Known::Credential(_) => return (known, source),
                Known::Unusable { .. } if found.0 == Known::Nothing => found = (known, source),
                Known::Unusable { .. } | Known::Nothing => {}
            }
        }
        found
    }

    /// Asks a helper, the first time.
    async fn ask(&self, name: &str, host: &str) -> Known {
        let key = (name.to_owned(), host.to_owned());
        let cell = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.entry(key).or_default().clone()
        };
        let ask = async || {
            let asked = match Helper::new(name) {
                Some(helper) => helper.get(docker_key(host)).await,
                None => Err(Error::invalid_argument(format!("{name:?} is no name of a credential helper"))),
            };
            match asked {
                Ok(Some(credential)) => Known::Credential(credential),
                Ok(None) => Known::Nothing,
                Err(error) => {
                    tracing::warn!("{}: {error}; {host} is asked without credentials", self.path.display());
                    let how = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
                    Known::Unusable { hint: format!("{} leaves {host} to a helper: {error}{how}", self.path.display()) }
                }
            }
        };
        cell.get_or_init(ask).await.clone()
    }
}

#[async_trait]
impl Credentials for DockerConfig {
    async fn of(&self, host: &str, repository: &str) -> Result<Known> {
        Ok(self.find(host, repository).await.0)
    }

    async fn source(&self, host: &str, repository: &str) -> Result<Option<String>> {
        let (known, source) = self.find(host, repository).await;
        Ok((known != Known::Nothing).then_some(source))
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("path", &self.path)
            .field("entries", &self.credentials.keys())
            .field("helpers", &self.helpers)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("read docker config {}", path.display());
    let size = std::fs::metadata(path).attempt(what)?.len();
    if size > MAX_SIZE {
        return Err(Error::invalid_argument(format!(
            "docker config {} has {size} bytes, more than the {MAX_SIZE} that are accepted",
            path.display()
        )));
    }
    std::fs::read(path).attempt(what)
}

/// Parses a file. The parser's own words quote what it found, which may be a password: only the position is told.
fn json(path: &Path, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| malformed(path, &format!("is not JSON at line {} column {}", error.line(), error.column())))
}

/// Returns what Docker calls a host where it keeps credentials.
fn docker_key(host: &str) -> &str {
    if host == DOCKER_HUB { DOCKER_HUB_KEY } else { host }
}

fn malformed(path: &Path, how: &str) -> Error {
    Error::invalid_argument(format!("docker config {} {how}", path.display())).hint(CORRECT)
}

/// A file, for messages about what is in it.
struct Source<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl Source<'_> {
    /// Says of a key, which is given with those that it is below, what is wrong with it; nothing of its value is told.
    fn wrong(&self, keys: &[&str], how: &str) -> Error {
        let line = std::str::from_utf8(self.bytes).ok().and_then(|text| place::line(text, keys));
        let place = line.map(|line| format!(":{line}")).unwrap_or_default();
        let quoted = |key: &&str| if key.contains('.') { format!("{key:?}") } else { (*key).to_owned() };
        let key = keys.iter().map(quoted).collect::<Vec<_>>().join(".");
        Error::invalid_argument(format!("docker config {}{place}: {key} {how}", self.path.display())).hint(CORRECT)
    }

    /// Returns the members of an object that is in the file; none when it is absent or null.
    fn members<'v>(&self, value: &'v Value, name: &str) -> Result<Vec<(&'v str, &'v Value)>> {
        match value.get(name) {
            None | Some(Value::Null) if value.is_object() => Ok(Vec::new()),
            Some(Value::Object(members)) => Ok(members.iter().map(|(key, value)| (key.as_str(), value)).collect()),
            _ => Err(self.wrong(&[name], "is to be an object")),
        }
    }

    /// Returns the text of a key of an object, which is the last of those; none when it is absent, null or empty.
    fn text<'v>(&self, object: &'v Value, keys: &[&str]) -> Result<Option<&'v str>> {
        match keys.last().and_then(|name| object.get(name)) {
            Some(value) => self.text_of(value, keys),
            None => Ok(None),
        }
    }

    /// Returns the text that a key has; none when it is null or empty.
    fn text_of<'v>(&self, value: &'v Value, keys: &[&str]) -> Result<Option<&'v str>> {
        match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            _ => Err(self.wrong(keys, "is to be a string")),
        }
    }
}

/// Returns what a key is about: keys are hosts, URLs such as `https://index.docker.io/v1/`, or podman's `HOST/NAMESPACE`.
fn canonical_key(key: &str) -> Option<String> {
    if key.starts_with("unix://") {
        return Some(key.to_owned());
    }
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    if host.is_empty() {
        return None;
    }
    let host = canonical_host(host);
    Some(match path.trim_end_matches('/') {
        "" | "v1" | "v2" => host,
        path => format!("{host}/{path}"),
    })
}

/// Returns what an entry holds; an empty one, which Docker leaves beside a helper, holds nothing.
fn credential(file: &Source<'_>, key: &str, entry: &Value) -> Result<Option<Credential>> {
    if !entry.is_object() && !entry.is_null() {
        return Err(file.wrong(&["auths", key], "is to be an object"));
    }
    let text = |name: &str| file.text(entry, &["auths", key, name]);
    if let Some(token) = text("registrytoken")? {
        return Ok(Some(Credential::RegistryToken(crate::Secret::new(token))));
    }
    if let Some(token) = text("identitytoken")? {
        return Ok(Some(Credential::IdentityToken(crate::Secret::new(token))));
    }
    if let Some(encoded) = text("auth")? {
        let wrong = || file.wrong(&["auths", key, "auth"], "is not base64 of USER:PASSWORD");
        return decode(encoded).ok_or_else(wrong).map(Some);
    }
    match (text("username")?, text("password")?) {
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
    use futures::FutureExt as _;
    use windlass_core::Kind;

    use super::*;

    fn parse(json: &str) -> Result<DockerConfig> {
        DockerConfig::parse(Path::new("config.json"), json.as_bytes())
    }

    fn known(config: &DockerConfig, host: &str, repository: &str) -> Known {
        config.of(host, repository).now_or_never().unwrap().unwrap()
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
                "g.test":{}}}"#,
        )
        .unwrap();
        let password = Known::Credential(Credential::password("user", "pa:ss"));
        for host in ["a.test", "b.test:5000", "c.test", "A.test"] {
            assert_eq!(known(&config, host, "x/y"), password, "{host}");
        }
        let identity = Known::Credential(Credential::IdentityToken(crate::Secret::new("id")));
        assert_eq!(known(&config, "d.test", "x/y"), identity);
        assert_eq!(known(&config, "e.test", "x/y"), identity);
        assert_eq!(
            known(&config, "f.test", "x/y"),
            Known::Credential(Credential::RegistryToken(crate::Secret::new("rt")))
        );
        for host in ["g.test", "b.test", "other.test"] {
            assert_eq!(known(&config, host, "x/y"), Known::Nothing, "{host}");
        }
    }

    #[test]
    fn docker_hub_is_known_by_all_of_its_names() {
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"] {
            let config = parse(&format!(r#"{{"auths":{{"{key}":{{"auth":"dXNlcjpwYTpzcw=="}}}}}}"#)).unwrap();
            assert_eq!(
                known(&config, "docker.io", "x/y"),
                Known::Credential(Credential::password("user", "pa:ss")),
                "{key}"
            );
        }
    }

    #[test]
    fn of_several_entries_for_a_registry_the_one_that_says_most_answers() {
        // The users are a, b and c.
        let config = parse(
            r#"{"auths":{
                "a.test/team/app":{"auth":"YTp4"},
                "a.test/team":{"auth":"Yjp4"},
                "a.test":{"auth":"Yzp4"},
                "other.test/team":{"auth":"Yjp4"}}}"#,
        )
        .unwrap();
        for (repository, user) in [
            ("team/app", "a"),
            ("team/app/x", "a"),
            ("team/application", "b"),
            ("team", "b"),
            ("teams", "c"),
            ("", "c"),
        ] {
            let expected = Known::Credential(Credential::password(user, "x"));
            assert_eq!(known(&config, "a.test", repository), expected, "{repository}");
        }
        assert_eq!(known(&config, "other.test", "teams"), Known::Nothing);
        let source = |repository| config.source("a.test", repository).now_or_never().unwrap().unwrap();
        assert_eq!(source("team/x").as_deref(), Some("config.json, entry a.test/team"));
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
        for (json, words) in [
            ("{\"auths\":\n [\"hunter2\"]}", "config.json:1: auths is to be an object"),
            (
                "{\"auths\":{\n\"a.test\":{\n\"auth\":\"hunter2!\"}}}",
                "config.json:3: auths.\"a.test\".auth is not base64",
            ),
            ("{\"auths\":{\n\"a.test\":{\"auth\":7}}}", "config.json:2: auths.\"a.test\".auth is to be a string"),
            ("{\"auths\":{\n\"a.test\":\"hunter2\"}}", "config.json:2: auths.\"a.test\" is to be an object"),
            (
                "{\"auths\":{\"a.test\":{\"username\":\"u\",\n\"password\":[\"hunter2\"]}}}",
                ":2: auths.\"a.test\".password is to",
            ),
            ("\n{\"credsStore\":{}}", "config.json:2: credsStore is to be a string"),
            ("{\"credHelpers\":{\n\"a.test\":true}}", "config.json:2: credHelpers.\"a.test\" is to be a string"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.kind() == Kind::InvalidArgument && error.to_string().contains(words), "{json}: {error}");
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
