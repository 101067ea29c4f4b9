//! Debian's `docker-registry` (distribution 2.8), and `skopeo` to fill it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::tls::Identity;
use super::token_server::TokenServer;

/// How long a registry may take to listen.
const START: Duration = Duration::from_secs(30);
/// The user whom [`DockerRegistry::start_with_password`] knows, with the bcrypt hash of the password.
const USER: &str = "windlass";
const PASSWORD: &str = "correct horse";
const PASSWORD_HASH: &str = "$2b$04$ulCKHnaDC7l1vYSnew91nOueu0Y3qpqSDN7NIuqcKhUbmiY2qOYIS";

/// How a registry is to be spoken to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Access<'a> {
    /// Whether it asks for the user and the password of [`DockerRegistry::credentials`].
    pub password: bool,
    /// What it is over TLS; it speaks plain HTTP without.
    pub tls: Option<&'a Identity>,
    /// Who gives tokens for it.
    pub tokens: Option<&'a TokenServer>,
    /// Whether it listens on a unix socket instead of a port.
    pub socket: bool,
}

/// A `docker-registry` on a free loopback port, in a temporary directory. It is stopped when this is dropped; its log is
/// printed when a test panics.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Child,
    directory: TempDir,
    host: String,
    credentials: Option<(&'static str, &'static str)>,
    /// Who may push, where tokens are asked for.
    pusher: Option<(&'static str, &'static str)>,
}

impl DockerRegistry {
    /// Starts a registry that anyone may use.
    pub fn start() -> Self {
        Self::start_with(Access::default())
    }

    /// Starts a registry that knows one user.
    pub fn start_with_password() -> Self {
        Self::start_with(Access { password: true, ..Access::default() })
    }

    /// Starts a registry that is to be spoken to in some way.
    pub fn start_with(access: Access<'_>) -> Self {
        let credentials = access.password.then_some((USER, PASSWORD));
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        let auth = auth(path, access);
        let tls = access.tls.map_or_else(String::new, |identity| {
            let (certificate, key) = identity.write(path);
            format!(", tls: {{certificate: \"{}\", key: \"{}\"}}", certificate.display(), key.display())
        });
        // Port 0 lets the kernel choose, so that tests beside this one do not race for a port.
        let listen = if access.socket {
            format!("net: unix, addr: \"{}\"", path.join("socket").display())
        } else {
            "addr: \"127.0.0.1:0\"".to_owned()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}, delete: {{enabled: true}}}}\n\
             http: {{{listen}, secret: test{tls}}}\n{auth}",
            path.join("storage").display()
        );
        fs::write(path.join("config.yml"), config).unwrap();
        let log = fs::File::create(path.join("log")).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve".as_ref(), path.join("config.yml").as_os_str()])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("docker-registry cannot be started ({error}); install the package docker-registry")
            });
        let pusher = access.tokens.map(|_| TokenServer::WRITER);
        let mut registry = Self { process, directory, host: String::new(), credentials, pusher };
        registry.host = registry.wait_until_it_listens();
        registry
    }

    /// Waits for the line of the log that tells the port.
    fn wait_until_it_listens(&mut self) -> String {
        let started = Instant::now();
        loop {
            let log = self.log();
            if let Some((_, rest)) = log.split_once("listening on ") {
                let address = rest.split(['"', ' ', '\n', ',']).next().unwrap_or_default();
                let is_there = address.starts_with('/') || address.parse::<std::net::SocketAddr>().is_ok();
                // The end of the line may not be written yet.
                if rest.contains('\n') && is_there {
                    return address.to_owned();
                }
            }
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("docker-registry ended with {status}:\n{log}");
            }
            assert!(started.elapsed() < START, "docker-registry does not listen after {START:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns where the registry is: `127.0.0.1:PORT`, or the path of its socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.host.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Returns the user name and the password, when the registry asks for them.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.credentials
    }

    /// Returns the directory in which the registry keeps its files.
    pub fn storage(&self) -> PathBuf {
        self.directory.path().join("storage")
    }

    /// Takes everything over that another registry has.
    pub fn take_over(&self, other: &Self) {
        let copied = Command::new("cp").args(["-aT"]).arg(other.storage()).arg(self.storage()).status().unwrap();
        assert!(copied.success(), "{copied}");
    }

    /// Returns what the registry has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Pushes everything that an OCI layout has under a tag (or its only entry) with skopeo, digests unchanged.
    /// `layout` is `DIRECTORY` or `DIRECTORY:TAG`, `name` is `REPOSITORY:TAG`.
    pub fn push_layout(&self, layout: impl AsRef<Path>, name: &str) {
        self.push(layout.as_ref(), name, &["--all", "--preserve-digests"]);
    }

    /// Pushes one image of an OCI layout converted to Docker's schema 2.
    pub fn push_as_docker_schema_2(&self, layout: impl AsRef<Path>, name: &str) {
        self.push(layout.as_ref(), name, &["--format", "v2s2"]);
    }

    fn push(&self, layout: &Path, name: &str, options: &[&str]) {
        let mut command = Command::new("skopeo");
        let credentials = self.credentials.or(self.pusher);
        // No policy file, and neither credentials nor settings of the user who runs the test.
        command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]).args(options);
        match credentials {
            Some((user, password)) => command.arg(format!("--dest-creds={user}:{password}")),
            None => command.arg("--dest-no-creds"),
        };
        command
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}/{name}", self.host))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .env("TMPDIR", self.directory.path());
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("skopeo cannot be started ({error}); install the package skopeo"));
        assert!(
            output.status.success(),
            "skopeo cannot push {} as {name}: {}\n{}",
            layout.display(),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
    }
}

/// Returns how a registry is told whom to let in.
fn auth(directory: &Path, access: Access<'_>) -> String {
    if access.password {
        let htpasswd = directory.join("htpasswd");
        fs::write(&htpasswd, format!("{USER}:{PASSWORD_HASH}\n")).unwrap();
        return format!("auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}\n", htpasswd.display());
    }
    let Some(tokens) = access.tokens else { return String::new() };
    let bundle = directory.join("tokens.pem");
    fs::write(&bundle, tokens.authority_pem()).unwrap();
    let (realm, service, issuer) = (tokens.realm(), TokenServer::SERVICE, TokenServer::ISSUER);
    format!(
        "auth: {{token: {{realm: \"{realm}\", service: \"{service}\", issuer: \"{issuer}\", rootcertbundle: \"{}\"}}}}\n",
        bundle.display()
    )
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _gone = self.process.kill();
        let _status = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of docker-registry at {}:\n{}", self.host, self.log());
        }
    }
}
