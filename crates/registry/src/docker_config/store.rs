//! Writing credentials down: with the helper that the file names, or in the file.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Kind, Result};

use super::{DockerConfig, canonical_key, docker_key, json as parse, malformed, read};
use crate::credentials::{Credential, Helper};
use crate::hosts::canonical_host;

/// Where a credential was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// With the helper of that name.
    Helper(String),
    /// In the file, readable for whoever may read the file.
    File(PathBuf),
}

impl DockerConfig {
    /// Keeps a credential for a host, with the helper that the file names for it, or in the file. The file is made when there is none, and
    /// replaced as a whole; what else it has stays.
    ///
    /// # Errors
    /// `InvalidArgument` when the file is not such a file, `Unavailable` when the helper does not work; those of the filesystem.
    pub async fn keep(path: &Path, host: &str, credential: &Credential) -> Result<Kept> {
        let mut document = Document::open(path)?;
        let host = canonical_host(host);
        let helper = document.helper(&host)?;
        let entry = match &helper {
            Some((_, helper)) => {
                helper.store(docker_key(&host), credential).await?;
                // Docker leaves as much beside a helper, to know of it.
                json!({})
            }
            None => entry(credential)?,
        };
        document.forget(&host)?;
        document.auths()?.insert(docker_key(&host).to_owned(), entry);
        document.write()?;
        Ok(helper.map_or_else(|| Kept::File(document.path), |(name, _)| Kept::Helper(name)))
    }

    /// Forgets the credential for a host as a whole, and tells whether there was one. Those for parts of it stay.
    ///
    /// # Errors
    /// As [`DockerConfig::keep`].
    pub async fn forget(path: &Path, host: &str) -> Result<bool> {
        let mut document = Document::open(path)?;
        let host = canonical_host(host);
        let mut kept = false;
        if let Some((_, helper)) = document.helper(&host)? {
            kept = helper.get(docker_key(&host)).await?.is_some();
            if kept {
                helper.erase(docker_key(&host)).await?;
            }
        }
        if document.forget(&host)? {
            document.write()?;
            kept = true;
        }
        Ok(kept)
    }
}

/// A file that is to be changed.
struct Document {
    path: PathBuf,
    config: Option<DockerConfig>,
    value: Map<String, Value>,
}

impl Document {
    /// Reads a file; one that is not there is empty.
    fn open(path: &Path) -> Result<Self> {
        // What a link leads to is replaced, not the link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let bytes = match read(&path) {
            Err(error) if error.is(Kind::NotFound) => return Ok(Self { path, config: None, value: Map::new() }),
            bytes => bytes?,
        };
        let config = Some(DockerConfig::parse(&path, &bytes)?);
        let Value::Object(value) = parse(&path, &bytes)? else { return Err(malformed(&path, "is no JSON object")) };
        Ok(Self { path, config, value })
    }

    /// Returns the helper that keeps what is known of a host.
    fn helper(&self, host: &str) -> Result<Option<(String, Helper)>> {
        let Some(config) = &self.config else { return Ok(None) };
        let Some(name) = config.helpers.get(host).or(config.store.as_ref()) else { return Ok(None) };
        let helper = Helper::new(name).ok_or_else(|| {
            malformed(&self.path, &format!("names {name:?}, which is no name of a credential helper"))
        })?;
        Ok(Some((name.clone(), helper)))
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>> {
        let auths = self.value.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        auths.as_object_mut().ok_or_else(|| malformed(&self.path, "has no object \"auths\""))
    }

    /// Takes out what is about a host, by whatever name.
    fn forget(&mut self, host: &str) -> Result<bool> {
        let auths = self.auths()?;
        let before = auths.len();
        auths.retain(|key, _| canonical_key(key).as_deref() != Some(host));
        Ok(auths.len() != before)
    }

    /// Replaces the file.
    fn write(&self) -> Result<()> {
        let attempt = || format!("write docker config {}", self.path.display());
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).attempt(attempt)?;
        let mut text = serde_json::to_string_pretty(&self.value)
            .map_err(|e| Error::internal("a docker config is no JSON").source(e))?;
        text.push('\n');
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let beside = directory.join(name);
        // 1. write it beside, for nobody else to read  2. sync it  3. rename it over the file
        // A crash before 3 leaves the file as it was, and what is beside it for the next one to write over.
        let written = (|| {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)
        })();
        if written.is_err() {
            // Why it is not written is what there is to say.
            let _gone = std::fs::remove_file(&beside);
        }
        written.attempt(attempt)
    }
}

fn entry(credential: &Credential) -> Result<Value> {
    Ok(match credential {
        Credential::Password { username, password } => {
            if username.expose().contains(':') {
                return Err(Error::invalid_argument("a user name with a colon cannot be kept in a docker config file"));
            }
            json!({ "auth": STANDARD.encode(format!("{}:{}", username.expose(), password.expose())) })
        }
        Credential::IdentityToken(token) => {
            json!({ "auth": STANDARD.encode("<token>:"), "identitytoken": token.expose() })
        }
        Credential::RegistryToken(token) => json!({ "registrytoken": token.expose() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Credentials as _, Known};

    #[tokio::test]
    async fn a_credential_is_kept_for_its_owner_alone_and_the_rest_of_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        let password = Credential::password("user", "pa:ss");
        assert_eq!(DockerConfig::keep(&path, "a.test:5000", &password).await.unwrap(), Kept::File(path.clone()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let text = r#"{"psFormat":"x","auths":{"a.test:5000":{"auth":"eDp5"},"https://a.test:5000/v2/":{},"a.test:5000/team":{"auth":"eDp5"}}}"#;
        std::fs::write(&path, text).unwrap();
        let link = directory.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (host, credential) in [
            ("a.test:5000", password.clone()),
            ("index.docker.io", Credential::IdentityToken(crate::Secret::new("id"))),
        ] {
            DockerConfig::keep(&link, host, &credential).await.unwrap();
            let known = DockerConfig::load(&path).unwrap().of(host, "").await.unwrap();
            assert_eq!(known, Known::Credential(credential));
        }
        assert!(link.symlink_metadata().unwrap().is_symlink());
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(value["psFormat"], "x");
        let keys: Vec<&String> = value["auths"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["a.test:5000", "a.test:5000/team", "https://index.docker.io/v1/"]);

        assert!(DockerConfig::forget(&path, "docker.io").await.unwrap());
        assert!(!DockerConfig::forget(&path, "docker.io").await.unwrap());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_is_not_understood_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        for text in ["hunter2", "[]", r#"{"auths":"hunter2"}"#] {
            std::fs::write(&path, text).unwrap();
            let error = DockerConfig::keep(&path, "a.test", &Credential::password("u", "p")).await.unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
