//! squid: a proxy for HTTP, and a tunnel for the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::process::Server;

/// The user whom a squid with a password knows, and the MD5 of `crypt(3)` of the password.
const USER: (&str, &str) = ("porter", "open sesame");
const PASSWORD_HASH: &str = "$1$windlass$XSqsL.9lijeu/lSo0nCKA0";

/// A running squid, which knows the names that it is told and no others.
#[derive(Debug)]
pub struct Squid {
    /// There until this is dropped.
    server: Option<Server>,
    port: u16,
}

impl Squid {
    /// Starts a squid that anyone may use. `names` are names that lead to this machine.
    pub fn start(names: &[&str]) -> Self {
        Self::spawn(names, false)
    }

    /// Starts a squid that knows the user of [`Squid::credentials`] alone.
    pub fn start_with_password(names: &[&str]) -> Self {
        Self::spawn(names, true)
    }

    fn spawn(names: &[&str], password: bool) -> Self {
        let server = Server::start(|directory, port| {
            let path = directory.path();
            // It does not remain root.
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            let shown = path.display();
            fs::write(path.join("hosts"), format!("127.0.0.1 localhost {}\n", names.join(" "))).unwrap();
            fs::write(path.join("users"), format!("{}:{PASSWORD_HASH}\n", USER.0)).unwrap();
            let access = if password {
                format!(
                    "auth_param basic program /usr/lib/squid/basic_ncsa_auth {shown}/users\nacl known proxy_auth REQUIRED\n\
                     http_access allow known\n"
                )
            } else {
                "http_access allow all\n".to_owned()
            };
            let config = format!(
                "http_port 127.0.0.1:{port}\nhosts_file {shown}/hosts\npid_filename {shown}/pid\n\
                 access_log stdio:{shown}/access.log\ncache_log {shown}/error.log\ncache_store_log none\ncache deny all\n\
                 coredump_dir {shown}\nshutdown_lifetime 0 seconds\npinger_enable off\n\
                 {access}http_access deny all\n"
            );
            fs::write(path.join("squid.conf"), config).unwrap();
            let mut command = Command::new("squid");
            command.args(["-N", "-n"]).arg(service(port)).arg("-f").arg(path.join("squid.conf"));
            command
        });
        let port = server.port;
        Self { server: Some(server), port }
    }

    /// Returns where it is: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the user and the password whom a squid with a password knows.
    pub fn credentials() -> (&'static str, &'static str) {
        USER
    }

    /// Waits until a line of the log has this text: there is one for each request that was refused or carried out, and for a tunnel when it
    /// is closed.
    pub async fn has_logged(&self, text: &str) {
        for _ in 0..500 {
            if self.access_log().contains(text) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{text:?} is not in the log of squid:\n{}", self.access_log());
    }

    /// Returns a line for each request it has carried out or refused.
    pub fn access_log(&self) -> String {
        let directory = self.server.as_ref().map(|server| server.directory.path().join("access.log"));
        directory.and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default()
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        drop(self.server.take());
        // It has no time to take away what it shares with nobody, some of which is there only at times.
        for part in ["metadata", "queues", "readers"] {
            let _gone = fs::remove_file(format!("/dev/shm/{}-cf__{part}.shm", service(self.port)));
        }
    }
}

/// What one of several squids of a machine is called.
fn service(port: u16) -> String {
    format!("windlass{port}")
}
