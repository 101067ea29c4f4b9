//! Credential helpers: programs that keep credentials, such as in the keychain of a desktop or at a cloud's login.
//!
//! The protocol is Docker's (docker/docker-credential-helpers): `docker-credential-NAME get`, `store` or `erase`, what it is about on standard
//! input, the answer on standard output.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use windlass_core::{Error, Result};

use super::{Credential, Secret};
use crate::error::printable;

/// What a program is called that is the helper `NAME`, without the name.
const PREFIX: &str = "docker-credential-";
/// How long a helper may take: it may ask the user for something.
const PATIENCE: Duration = Duration::from_mins(1);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// What a helper says that has nothing: a sentence of the protocol.
const NOTHING: &str = "credentials not found in native keychain";
/// The user that stands for a token instead of a password.
const TOKEN_USER: &str = "<token>";

/// A helper by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Helper {
    name: String,
    /// Where it is, or what it is called.
    program: String,
    patience: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    username: &'a str,
    secret: &'a str,
}

impl Helper {
    /// Returns the helper of that name; nothing for a name that is none of a program.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let valid =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        valid.then(|| Self { name: name.to_owned(), program: format!("{PREFIX}{name}"), patience: PATIENCE })
    }

    /// Returns what the helper has for a server; nothing when it has nothing.
    ///
    /// # Errors
    /// `Unavailable` when it is not there or does not work; nothing of a secret is in it.
    pub(crate) async fn get(&self, server: &str) -> Result<Option<Credential>> {
        let Some(answer) = self.run("get", server.as_bytes()).await? else { return Ok(None) };
        // The parser's words could quote the secret.
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| self.fails("get", "its answer is not what a helper answers").hint("look at the helper"))?;
        Ok(match (answer.username.as_str(), answer.secret) {
            (_, secret) if secret.is_empty() => None,
            (TOKEN_USER, secret) => Some(Credential::IdentityToken(Secret::new(secret))),
            (username, secret) => Some(Credential::password(username, secret)),
        })
    }

    /// Gives the helper something to keep.
    ///
    /// # Errors
    /// As [`Helper::get`]; `InvalidArgument` for a token of the registry, which helpers do not keep.
    pub(crate) async fn store(&self, server: &str, credential: &Credential) -> Result<()> {
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.expose(), password.expose()),
            Credential::IdentityToken(token) => (TOKEN_USER, token.expose()),
            Credential::RegistryToken(_) => {
                return Err(Error::invalid_argument(format!("{self} keeps no tokens of a registry")));
            }
        };
        let entry = serde_json::to_vec(&Entry { server, username, secret })
            .map_err(|e| Error::internal("a credential is no JSON").source(e))?;
        self.run("store", &entry).await.map(drop).map_err(|error| {
            // Whatever it says, it is not to repeat what it was told.
            if error.to_string().contains(secret) {
                self.fails("store", "it repeats the secret when it says why")
            } else {
                error
            }
        })
    }

    /// Has the helper forget what it has for a server, if anything.
    ///
    /// # Errors
    /// As [`Helper::get`].
    pub(crate) async fn erase(&self, server: &str) -> Result<()> {
        self.run("erase", server.as_bytes()).await.map(drop)
    }

    /// Runs the program; nothing when it says that it has nothing.
    async fn run(&self, what: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
        let patience = self.patience;
        match tokio::time::timeout(patience, self.talk(what, input)).await {
            Ok(done) => done,
            Err(_) => Err(self
                .fails(what, &format!("it has not ended after {} s", patience.as_secs_f64()))
                .hint(format!("run `{} {what}` by hand to see what it waits for", self.program))),
        }
    }

    async fn talk(&self, what: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
        let program = &self.program;
        let io = |error: std::io::Error| self.fails(what, &error.to_string());
        let mut process = Command::new(program)
            .arg(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                io(error).hint(format!(
                    "install {program} where programs are looked for, or take the helper out of the file"
                ))
            })?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let told = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            match stdin.write_all(input).await {
                // It need not read what it does not want to know.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                told => told,
            }
        };
        let heard = async {
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
            }
            Ok::<_, std::io::Error>(answer)
        };
        let ((), answer) = futures::future::try_join(told, heard).await.map_err(io)?;
        let status = process.wait().await.map_err(io)?;
        if status.success() {
            return Ok(Some(answer));
        }
        let words = String::from_utf8_lossy(&answer);
        match words.trim() {
            NOTHING => Ok(None),
            "" => {
                Err(self.fails(what, &format!("it ends with {status}")).hint(format!("run `{program} {what}` by hand")))
            }
            words => Err(self.fails(what, &printable(words)).hint(format!("run `{program} {what}` by hand"))),
        }
    }

    fn fails(&self, what: &str, why: &str) -> Error {
        Error::unavailable(format!("the credential helper {:?} fails to {what}: {why}", self.name))
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credential helper {:?}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use windlass_core::Kind;

    use super::*;

    /// A helper that is a script.
    fn script(directory: &tempfile::TempDir, text: &str) -> Helper {
        let path = directory.path().join("helper");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Helper { name: "x".to_owned(), program: path.display().to_string(), patience: Duration::from_secs(20) }
    }

    #[tokio::test]
    async fn a_helper_is_told_and_asked_by_the_protocol() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("kept");
        let text =
            format!("echo $1 >> {0}; cat >> {0}; echo '{{\"Username\":\"<token>\",\"Secret\":\"t\"}}'", kept.display());
        let helper = script(&directory, &text);
        let token = Credential::IdentityToken(Secret::new("t"));
        assert_eq!(helper.get("a.test").await.unwrap(), Some(token.clone()));
        helper.store("a.test", &token).await.unwrap();
        helper.erase("a.test").await.unwrap();
        let told = std::fs::read_to_string(&kept).unwrap();
        assert_eq!(
            told,
            "get\na.teststore\n{\"ServerURL\":\"a.test\",\"Username\":\"<token>\",\"Secret\":\"t\"}erase\na.test"
        );
        let nothing = script(&directory, "echo credentials not found in native keychain; exit 1");
        assert_eq!(nothing.get("a.test").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_helper_that_does_not_end_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let helper = Helper { patience: Duration::from_millis(200), ..script(&directory, "exec sleep 30") };
        let began = Instant::now();
        let error = helper.get("a.test").await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("has not ended after 0.2 s"), "{error}");
    }

    #[tokio::test]
    async fn what_a_helper_says_has_no_secret_and_nothing_for_a_terminal_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let echo = script(&directory, "cat; exit 1");
        let error = echo.store("a.test", &Credential::password("u", "hunter2")).await.unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        let error = script(&directory, "printf '\\033[31mno'; exit 1").get("a.test").await.unwrap_err();
        assert!(error.to_string().ends_with("fails to get:  [31mno"), "{error}");
        let error = script(&directory, "echo '{\"Secret\":hunter2'").get("a.test").await.unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        for name in ["", "../x", "a b", "x\n"] {
            assert_eq!(Helper::new(name), None, "{name:?}");
        }
    }
}
