//! nginx before a registry, as it stands before many: TLS, HTTP/2, client certificates, a path of its own, a rate.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::process::Server;
use super::tls::Identity;

/// What nginx is before a registry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Front<'a> {
    /// Where the registry is: `127.0.0.1:PORT`.
    pub upstream: &'a str,
    /// What it is over TLS, with HTTP/2; it speaks plain HTTP without.
    pub tls: Option<&'a Identity>,
    /// Whose clients are let in, and nobody else.
    pub clients: Option<&'a Identity>,
    /// What is before `/v2/` in paths, such as `/registry`.
    pub prefix: &'a str,
    /// How many bytes a second each connection is given.
    pub rate: Option<u64>,
    /// With which status requests are refused that are more than one in a minute.
    pub refuses: Option<u16>,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx(Server);

impl Nginx {
    /// Starts nginx before a registry.
    pub fn start(front: Front<'_>) -> Self {
        Self(Server::start(|directory, port| {
            let path = directory.path();
            let mut server =
                format!("listen 127.0.0.1:{port}{};\n", if front.tls.is_some() { " ssl http2" } else { "" });
            if let Some(identity) = front.tls {
                let (certificate, key) = identity.write(path);
                write!(server, "ssl_certificate {};\nssl_certificate_key {};\n", certificate.display(), key.display())
                    .unwrap();
            }
            if let Some(clients) = front.clients {
                let authority = path.join("clients.pem");
                fs::write(&authority, clients.authority_pem()).unwrap();
                write!(server, "ssl_client_certificate {};\nssl_verify_client on;\n", authority.display()).unwrap();
            }
            if let Some(rate) = front.rate {
                writeln!(server, "limit_rate {rate};").unwrap();
            }
            let mut limits = String::new();
            if let Some(status) = front.refuses {
                limits.push_str("limit_req_zone $binary_remote_addr zone=all:1m rate=1r/m;\n");
                write!(server, "limit_req zone=all;\nlimit_req_status {status};\n").unwrap();
            }
            let config = format!(
                "user root;\nerror_log error.log;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log access.log;\n{limits}\
                 client_body_temp_path t1;\nproxy_temp_path t2;\nfastcgi_temp_path t3;\nuwsgi_temp_path t4;\nscgi_temp_path t5;\n\
                 server {{\n{server}client_max_body_size 0;\nlocation {}/v2/ {{\nproxy_pass http://{}/v2/;\n\
                 proxy_set_header Host $http_host;\n}}\n}}\n}}\n",
                front.prefix, front.upstream
            );
            fs::write(path.join("nginx.conf"), config).unwrap();
            let mut command = Command::new("nginx");
            command.arg("-e").arg(path.join("error.log")).arg("-p").arg(path).args([
                "-c",
                "nginx.conf",
                "-g",
                "daemon off; master_process off;",
            ]);
            command
        }))
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns a line for each request it has answered.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.0.directory.path().join("access.log")).unwrap_or_default()
    }
}
