//! Who the user is, to registries: what a command line says, and the files in which Docker and podman keep it.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use windlass::registry::{Credential, Credentials, DockerConfig, Secret};
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Kind, Result};

use crate::interrupt::Undone;

/// The variable that names the one file to use, as podman has it.
const REGISTRY_AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// The longest password that is read, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// Who to be, on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct User {
    /// User name at the registry of the reference, in place of what is kept; a password behind it is seen by everyone on this machine, and is
    /// asked for otherwise.
    #[arg(short, long, value_name = "USER[:PASSWORD]", value_parser = |text: &str| Ok::<_, Error>(Secret::new(text)))]
    user: Option<Secret>,
    /// Read the password, or a token in place of it, from standard input.
    #[arg(long, requires = "user")]
    password_stdin: bool,
}

impl User {
    /// Returns the credential that the command line names.
    pub(crate) fn credential(&self) -> Result<Option<Credential>> {
        let Some(user) = self.user.as_ref().map(Secret::expose) else { return Ok(None) };
        let (name, password) = match user.split_once(':') {
            Some(_) if self.password_stdin => {
                return Err(Error::invalid_argument(
                    "there are two passwords: one in --user, and one on standard input",
                )
                .hint("leave one of them out"));
            }
            Some((name, password)) => (name.to_owned(), password.to_owned()),
            None => (user.to_owned(), self.password(user)?),
        };
        if name.is_empty() || password.is_empty() {
            return Err(Error::invalid_argument("the user name or the password is empty"));
        }
        Ok(Some(Credential::password(name, password)))
    }

    /// Returns the credential that the command line names, or asks for it.
    pub(crate) fn ask(&self, registry: &str) -> Result<Credential> {
        if let Some(credential) = self.credential()? {
            return Ok(credential);
        }
        let user = prompt(&format!("User name at {registry}: "), Echo::Shown)?;
        let password = prompt("Password: ", Echo::Hidden)?;
        if user.is_empty() || password.is_empty() {
            return Err(Error::invalid_argument("the user name or the password is empty"));
        }
        Ok(Credential::password(user, password))
    }

    fn password(&self, user: &str) -> Result<String> {
        if !self.password_stdin {
            return prompt(&format!("Password of {user}: "), Echo::Hidden);
        }
        let mut password = String::new();
        let read = std::io::stdin().lock().take(MAX_PASSWORD + 1).read_to_string(&mut password);
        let read = read.attempt(|| "read the password from standard input".to_owned())?;
        if read as u64 > MAX_PASSWORD {
            return Err(Error::invalid_argument(format!("the password has more than {MAX_PASSWORD} bytes")));
        }
        // `echo` ends it with a line.
        Ok(password.trim_end_matches(['\r', '\n']).to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    Shown,
    Hidden,
}

/// Asks on the terminal.
fn prompt(question: &str, echo: Echo) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::invalid_argument("there is nobody to ask for a user name and a password")
            .hint("give them: --user NAME --password-stdin < FILE"));
    }
    let asking = || "ask on the terminal".to_owned();
    // Before it is asked: what is typed from then on is the answer, however fast it comes.
    let mut shown_again = None;
    if echo == Echo::Hidden {
        let before = tcgetattr(stdin.as_fd()).attempt(asking)?;
        let mut hidden = before.clone();
        let show = move || {
            // A terminal that is gone has nothing to show.
            let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &before);
        };
        shown_again = Some(Undone::at_the_end(show)?);
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &hidden).attempt(asking)?;
    }
    let (mut stderr, mut line) = (std::io::stderr(), String::new());
    let asked = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let read = asked.and_then(|()| stdin.lock().take(MAX_PASSWORD).read_line(&mut line));
    drop(shown_again);
    read.attempt(asking)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads the files in which credentials are kept, first choice first. Those that are not there have nothing.
///
/// # Errors
/// `InvalidArgument` for a file that is not one; nothing of its content is in the message.
pub(crate) fn files() -> Result<Vec<Arc<dyn Credentials>>> {
    let mut sources: Vec<Arc<dyn Credentials>> = Vec::new();
    for path in paths() {
        match DockerConfig::load(&path) {
            Ok(config) => sources.push(Arc::new(config)),
            // Nobody has logged in anywhere.
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sources)
}

/// Returns the files in which credentials may be, first choice first: the one that a variable names and no other; or Docker's, and
/// podman's of this session and of this user.
pub(crate) fn paths() -> Vec<PathBuf> {
    if let Some(path) = set(REGISTRY_AUTH_FILE) {
        return vec![path];
    }
    let podman = |directory: PathBuf| directory.join("containers/auth.json");
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    docker().into_iter().chain(set("XDG_RUNTIME_DIR").map(podman)).chain(config.map(podman)).collect()
}

/// Returns the file in which a login is kept.
///
/// # Errors
/// `FailedPrecondition` when the environment names none.
pub(crate) fn file() -> Result<PathBuf> {
    set(REGISTRY_AUTH_FILE).or_else(docker).ok_or_else(|| {
        Error::failed_precondition("there is no file for credentials: HOME is not set")
            .hint("set REGISTRY_AUTH_FILE to the path of one, or DOCKER_CONFIG to a directory")
    })
}

/// Returns Docker's configuration file, where `docker login` and its kin keep credentials.
fn docker() -> Option<PathBuf> {
    let directory = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))?;
    Some(directory.join("config.json"))
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
