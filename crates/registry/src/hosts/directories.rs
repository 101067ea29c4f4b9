//! Which directory says something about a registry: `hosts.toml` as containerd has it, or certificates as Docker has them.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::error::IoResultExt as _;
use windlass_core::settings::Unknown;
use windlass_core::{Error, Reference, Result};

use super::file::{Entry, HostsFile, read};
use super::{RegistryHost, Repositories, Repository, canonical_host, certificates};
use crate::options::{Fallback, PlainHttp};

/// The file in a directory of a registry.
const FILE: &str = "hosts.toml";
/// The directory for every registry that has none of its own.
const DEFAULT: &str = "_default";
/// How many warnings are remembered, so that none is given twice.
const MAX_WARNED: usize = 1024;

/// Says where a reference is served. Files are read anew each time, so that a change holds from the next pull on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directories {
    /// Where directories of registries are, first choice first.
    pub(crate) search: Vec<PathBuf>,
    pub(crate) plain_http: PlainHttp,
    pub(crate) fallback: Fallback,
    warned: Arc<Mutex<HashSet<String>>>,
}

impl Directories {
    pub(crate) fn new(search: Vec<PathBuf>, plain_http: PlainHttp, fallback: Fallback) -> Self {
        Self { search, plain_http, fallback, warned: Arc::default() }
    }

    /// Returns where a reference is served, first choice first. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for a reference that is of no registry, and for a file that is wrong, naming line and key.
    pub(crate) fn repositories(&self, reference: &Reference) -> Result<Repositories> {
        let (Some(namespace), Some(name)) = (reference.host(), reference.repository()) else {
            return Err(Error::invalid_argument(format!("{reference} does not name a registry")));
        };
        let hosts = self.hosts(namespace)?;
        let list = hosts.into_iter().map(|host| Repository::at(host, name)).collect();
        Ok(Repositories::new(list, self.fallback))
    }

    /// Returns the hosts that serve what a registry has. Blocks.
    pub(crate) fn hosts(&self, namespace: &str) -> Result<Vec<RegistryHost>> {
        for directory in self.candidates(namespace) {
            if let Some(file) = load(&directory)? {
                self.warn(&file.unknown);
                let hosts = file.hosts.into_iter().chain([file.server]);
                return Ok(hosts.map(|entry| self.host(namespace, entry)).collect());
            }
        }
        Ok(vec![RegistryHost::itself(namespace, self.plain_http)])
    }

    /// Returns the keys of the file about a registry that nobody knows. Blocks.
    pub(crate) fn unknown(&self, namespace: &str) -> Result<Vec<Unknown>> {
        for directory in self.candidates(namespace) {
            if let Some(file) = load(&directory)? {
                return Ok(file.unknown);
            }
        }
        Ok(Vec::new())
    }

    /// Returns the directories that may be about a registry: those of its own in any place go before those for all.
    fn candidates(&self, namespace: &str) -> Vec<PathBuf> {
        let mut names = Vec::new();
        for host in [namespace.to_owned(), canonical_host(namespace)] {
            let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
            // A colon is in no name of a directory everywhere.
            names.extend(port.map(|(name, port)| format!("{name}_{port}_")));
            names.push(host);
        }
        names.dedup();
        let of = |name: String| self.search.iter().map(move |place| place.join(&name));
        // `.` and `..` are no hosts: a reference is checked.
        names.into_iter().flat_map(of).chain(self.search.iter().map(|place| place.join(DEFAULT))).collect()
    }

    fn host(&self, namespace: &str, entry: Entry) -> RegistryHost {
        let Entry { address, place, capabilities, headers, connection } = entry;
        let Some(address) = address else {
            let mut host = RegistryHost::itself(namespace, self.plain_http);
            // Certificates are not there for plain HTTP.
            if connection.has_tls() && self.plain_http == PlainHttp::Loopback {
                host.scheme = http::uri::Scheme::HTTPS;
            }
            return RegistryHost { capabilities, headers, connection: connection.into(), rule: place, ..host };
        };
        let itself = canonical_host(&address.authority) == canonical_host(namespace);
        let authority = if address.socket.is_some() { "localhost".to_owned() } else { address.authority.clone() };
        RegistryHost {
            name: if itself { namespace.to_owned() } else { address.authority },
            scheme: address.scheme,
            authority,
            path: address.path,
            capabilities,
            headers,
            namespace: (!itself).then(|| namespace.to_owned()),
            connection: connection.into(),
            rule: place,
        }
    }

    fn warn(&self, unknown: &[Unknown]) {
        for Unknown { place, key, nearest, .. } in unknown {
            let meant = nearest.as_ref().map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
            let words = format!("{place}: nobody knows the key {key}{meant}");
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if warned.len() < MAX_WARNED && warned.insert(words.clone()) {
                tracing::warn!("{words}");
            }
        }
    }
}

/// Reads what a directory says; nothing when it says nothing, or is not there.
fn load(directory: &Path) -> Result<Option<HostsFile>> {
    let path = directory.join(FILE);
    match read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes)
                .map_err(|_| Error::invalid_argument(format!("{}: it is no text in UTF-8", path.display())))?;
            return HostsFile::parse(&path, text).map(Some);
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(error) => {
            return Err(error).attempt(|| format!("read {}", path.display())).map_err(|error| {
                error.hint("run the command as a user who may read it, or name other directories with --hosts-dir")
            });
        }
    }
    if !directory.is_dir() {
        return Ok(None);
    }
    Ok(certificates::load(directory)?.map(|server| HostsFile { server, ..HostsFile::default() }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tempfile::TempDir;
    use windlass_core::Kind;

    use super::super::{Capabilities, Capability};
    use super::*;

    /// Directories with these files in them.
    fn directories(files: &[(&str, &str)]) -> (TempDir, Directories) {
        let place = TempDir::new().unwrap();
        for (file, text) in files {
            let path = place.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let search = vec![place.path().join("first"), place.path().join("second")];
        let directories = Directories::new(search, PlainHttp::Loopback, Fallback::Allowed);
        (place, directories)
    }

    fn roots(directories: &Directories, namespace: &str) -> Vec<String> {
        directories.hosts(namespace).unwrap().iter().map(RegistryHost::root).collect()
    }

    fn certificate() -> (String, String) {
        let issued = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        (issued.cert.pem(), issued.signing_key.serialize_pem())
    }

    #[test]
    fn hosts_are_in_the_order_of_the_file_and_the_server_is_last() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.test"]
              capabilities = ["pull"]
            [host."http://a.test:5000".header]
              x-custom = ["a", "b"]
            [host."http://a.test:5000"]
              capabilities = ["pull", "Resolve", "push"]
              dial_timeout = "1s"
            [host."m.test/v2/hub"]
              override_path = true
        "#;
        let (_place, directories) = directories(&[("first/docker.io/hosts.toml", text)]);
        let hosts = directories.hosts("docker.io").unwrap();
        let roots: Vec<String> = hosts.iter().map(RegistryHost::root).collect();
        assert_eq!(
            roots,
            [
                "https://z.test/v2/",
                "http://a.test:5000/v2/",
                "https://m.test/v2/hub/",
                "https://registry-1.docker.io/v2/"
            ]
        );
        assert_eq!(hosts[0].capabilities, Capabilities::NONE.with(Capability::Pull));
        assert_eq!(hosts[1].capabilities, Capabilities::ALL);
        assert_eq!(hosts[1].headers.get_all("x-custom").iter().count(), 2);
        assert_eq!(hosts[1].connection.dial_timeout, Some(Duration::from_secs(1)));
        // Docker Hub by its other name is no mirror: it gets what is Docker Hub's.
        let names: Vec<(&str, Option<&str>)> =
            hosts.iter().map(|host| (host.name.as_str(), host.namespace.as_deref())).collect();
        let hub = Some("docker.io");
        assert_eq!(names, [("z.test", hub), ("a.test:5000", hub), ("m.test", hub), ("docker.io", None)]);
        assert!(hosts[0].rule.ends_with("first/docker.io/hosts.toml:3"), "{}", hosts[0].rule);
        assert!(hosts[3].rule.ends_with("first/docker.io/hosts.toml:2"), "{}", hosts[3].rule);
    }

    #[test]
    fn without_a_server_the_registry_itself_is_last_and_an_ns_tells_mirrors_whose_content_is_meant() {
        let text = "capabilities = [\"pull\"]\n[host.\"https://m.test\"]\n[host.\"unix:///run/r.sock\"]\n";
        let (_place, directories) = directories(&[("second/_default/hosts.toml", text)]);
        let repositories = directories.repositories(&"a.test:5000/b/c:7".parse().unwrap()).unwrap();
        let urls: Vec<String> = repositories
            .that_may(Capability::Pull)
            .iter()
            .map(|repository| repository.url("tags/list?n=3").unwrap().to_string())
            .collect();
        assert_eq!(
            urls,
            [
                "https://m.test/v2/b/c/tags/list?n=3&ns=a.test:5000",
                "http://localhost/v2/b/c/tags/list?n=3&ns=a.test:5000",
                "https://a.test:5000/v2/b/c/tags/list?n=3",
            ]
        );
        assert_eq!(repositories.that_may(Capability::Push).len(), 2);
        let hosts = directories.hosts("a.test:5000").unwrap();
        assert_eq!(hosts[1].name, "unix:///run/r.sock");
        assert_eq!(hosts[1].connection.socket.as_deref(), Some(Path::new("/run/r.sock")));
    }

    #[test]
    fn a_directory_of_the_registry_goes_before_one_for_all_wherever_they_are() {
        let server = |host: &str| format!("server = \"https://{host}\"\n");
        let (_place, directories) = directories(&[
            ("first/_default/hosts.toml", &server("default.test")),
            ("first/b.test:5000/hosts.toml", &server("colon.test")),
            ("second/a.test_5000_/hosts.toml", &server("underscore.test")),
            ("second/b.test_5000_/hosts.toml", &server("underscore.test")),
            ("first/empty.test/README", ""),
            ("second/docker.io/hosts.toml", &server("hub.test")),
        ]);
        for (namespace, root) in [
            ("a.test:5000", "https://underscore.test/v2/"),
            ("b.test:5000", "https://underscore.test/v2/"),
            ("a.test", "https://default.test/v2/"),
            ("empty.test", "https://default.test/v2/"),
            ("index.docker.io", "https://hub.test/v2/"),
        ] {
            assert_eq!(roots(&directories, namespace), [root], "{namespace}");
        }
    }

    #[test]
    fn certificates_are_read_where_the_file_is_and_as_docker_has_them() {
        let (chain, key) = certificate();
        let both = format!("{chain}{key}");
        let text = "ca = [\"ca.pem\"]\nclient = [\"both.pem\", [\"x.pem\", \"x.key\"], [\"both.pem\", \"\"]]\nskip_verify = true\n";
        let (_place, directories) = directories(&[
            ("first/a.test/hosts.toml", text),
            ("first/a.test/ca.pem", &both),
            ("first/a.test/both.pem", &both),
            ("first/a.test/x.pem", &chain),
            ("first/a.test/x.key", &key),
            ("first/localhost:5000/ca.crt", &chain),
            ("first/localhost:5000/client.cert", &chain),
            ("first/localhost:5000/client.key", &key),
        ]);
        let host = directories.hosts("a.test").unwrap().remove(0);
        assert_eq!((host.connection.roots.len(), host.connection.clients.len()), (1, 3));
        assert!(host.connection.skip_verify);
        assert!(!format!("{host:?}").contains("PRIVATE"));
        let docker = directories.hosts("localhost:5000").unwrap().remove(0);
        assert_eq!(docker.root(), "https://localhost:5000/v2/", "it has certificates");
        assert_eq!((docker.connection.roots.len(), docker.connection.clients.len()), (1, 1));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key_and_no_secret_is_repeated() {
        for (text, words) in [
            ("server = 7", ":1: server is to be a string"),
            ("\nserver = \"ftp://a.test\"", ":2: server is a URL of another scheme"),
            ("[host.\"https://u:hunter2@m.test\"]", ":1: a host is a URL with a user in it"),
            (
                "[host.\"https://m.test\"]\ncapabilities = [\"pul\"]",
                ":2: host.\"https://m.test\".capabilities has \"pul\"",
            ),
            ("[host.\"https://m.test\"]\nca = \"none.pem\"", "ca names "),
            ("ca = \"hosts.toml\"", ":1: ca there is no PEM certificate"),
            ("client = [[\"hosts.toml\"]]", ":1: client has a list of 1 files"),
            ("skip_verify = \"yes\"", ":1: skip_verify is to be true or false"),
            ("dial_timeout = \"soon\"", ":1: dial_timeout is \"soon\""),
            ("proxy = \"http://u:hunter2@p.test/x\"", ":1: proxy is not the URL of a proxy"),
            ("[header]\nx = [\"hunter2\\n\"]", ":2: header.x has characters"),
            ("[header]\n\"a b\" = \"hunter2\"", ":2: header.a b is no name of a header"),
            ("server = \"a\"\nserver = \"b\"", ":2: duplicate key"),
            ("= hunter2", ":1: "),
        ] {
            let (place, directories) = directories(&[("first/a.test/hosts.toml", text)]);
            let error = directories.hosts("a.test").unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{text}: {error}");
            let file = place.path().join("first/a.test/hosts.toml").display().to_string();
            assert!(error.to_string().starts_with(&file) && error.to_string().contains(words), "{text}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_file_that_changes_is_read_anew_and_unknown_keys_are_no_obstacle() {
        let text = "sever = \"https://m.test\"\n[host.\"https://m.test\"]\nskip_verfy = true\n";
        let (place, directories) = directories(&[("first/a.test/hosts.toml", text)]);
        assert_eq!(roots(&directories, "a.test").len(), 2);
        assert_eq!(directories.warned.lock().unwrap().len(), 2);
        assert!(
            directories
                .warned
                .lock()
                .unwrap()
                .iter()
                .any(|it| it.ends_with(":1: nobody knows the key sever; did you mean server?"))
        );
        fs::write(place.path().join("first/a.test/hosts.toml"), "server = \"https://n.test\"").unwrap();
        assert_eq!(roots(&directories, "a.test"), ["https://n.test/v2/"]);
    }
}
