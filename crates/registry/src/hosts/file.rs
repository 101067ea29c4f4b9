//! A `hosts.toml`: which hosts serve what one registry has, and how they are spoken to.
//!
//! The format is containerd's (docs/hosts.md there): the hosts of `[host."URL"]` in the order of the file, then `server`, or the
//! registry itself when there is none. What is new here is a `unix://` URL.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use windlass_core::settings::{Source, Table, Unknown, Value};
use windlass_core::{Error, Result};

use super::address::Address;
use super::{Capabilities, Capability};
use crate::connection::{ClientCertificate, Connection};
use crate::proxy::Proxy;
use crate::tls::Certificate;

/// How much of a file with certificates is read, in bytes.
const MAX_PEM: u64 = 1 << 20;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct HostsFile {
    /// The hosts before the last one, first choice first.
    pub(super) hosts: Vec<Entry>,
    /// The last one; without an address it is the registry itself.
    pub(super) server: Entry,
    /// The keys that nobody knows.
    pub(super) unknown: Vec<Unknown>,
}

/// A host, as a file has it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it is; nothing for the registry itself.
    pub(super) address: Option<Address>,
    /// File and line.
    pub(super) place: String,
    pub(super) capabilities: Capabilities,
    pub(super) headers: HeaderMap,
    pub(super) connection: Connection,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            address: None,
            place: String::new(),
            capabilities: Capabilities::ALL,
            headers: HeaderMap::new(),
            connection: Connection::default(),
        }
    }
}

impl HostsFile {
    /// Reads the text of a file; the certificates that it names are read, too, relative to its directory.
    ///
    /// # Errors
    /// `InvalidArgument` naming file, line and key.
    pub(crate) fn parse(path: &Path, text: String) -> Result<Self> {
        let source = Source::new(path, text);
        let root = source.parse()?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut unknown = Vec::new();
        let mut table = Table::root(&source, root.get_ref());
        let server = table.value("server");
        let mut hosts = Vec::new();
        if let Some(listed) = table.table("host")? {
            for (url, value) in listed.entries() {
                let (entry, rest) = listed_host(url, value, directory)?;
                hosts.push(entry);
                unknown.extend(rest);
            }
        }
        let (mut entry, whole_path) = settings(&mut table, directory)?;
        entry.place = server.as_ref().map_or_else(|| path.display().to_string(), Value::place);
        if let Some(server) = server {
            let text = server.text()?;
            if !text.is_empty() {
                entry.locate(&text, whole_path, |what| server.wrong(what))?;
            }
        }
        unknown.extend(table.rest());
        Ok(Self { hosts, server: entry, unknown })
    }
}

/// Reads a table `[host."URL"]`.
fn listed_host(url: &str, value: Value<'_>, directory: &Path) -> Result<(Entry, Vec<Unknown>)> {
    let place = value.place();
    // The key is not repeated: it might have a password in it.
    let wrong = |what: String| Error::invalid_argument(format!("{place}: a host {what}"));
    Address::parse(url, false).map_err(&wrong)?;
    let mut table = value.table()?;
    let (mut entry, whole_path) = settings(&mut table, directory)?;
    entry.place.clone_from(&place);
    entry.locate(url, whole_path, wrong)?;
    Ok((entry, table.rest()))
}

impl Entry {
    fn locate(&mut self, url: &str, whole_path: bool, wrong: impl FnOnce(String) -> Error) -> Result<()> {
        let address = Address::parse(url, whole_path).map_err(wrong)?;
        self.connection.socket.clone_from(&address.socket);
        self.address = Some(address);
        Ok(())
    }
}

/// Reads the keys that the file and each of its hosts have, and whether the path of its URL is the whole root of the API.
fn settings(table: &mut Table<'_>, directory: &Path) -> Result<(Entry, bool)> {
    let mut entry = Entry::default();
    if let Some(value) = table.value("capabilities") {
        entry.capabilities = capabilities(value)?;
    }
    let connection = &mut entry.connection;
    if let Some(value) = table.value("ca") {
        for file in value.one_or_list()? {
            connection.roots.extend(pem(&file, directory, Certificate::from_pem)?);
        }
    }
    if let Some(value) = table.value("client") {
        for item in value.one_or_list()? {
            connection.clients.push(client(item, directory)?);
        }
    }
    if let Some(value) = table.value("skip_verify") {
        connection.skip_verify = value.flag()?;
    }
    if let Some(value) = table.value("dial_timeout") {
        connection.dial_timeout = Some(value.duration()?).filter(|time| !time.is_zero());
    }
    if let Some(value) = table.value("proxy") {
        // The words of the parser do not repeat the URL, which may have a password in it.
        connection.proxy = Some(Proxy::parse(&value.text()?).map_err(|what| value.wrong(what))?);
    }
    if let Some(value) = table.table("header")? {
        entry.headers = headers(value)?;
    }
    let whole_path = table.value("override_path").map(|value| value.flag()).transpose()?.unwrap_or_default();
    Ok((entry, whole_path))
}

/// An empty list is every capability, as containerd has it.
fn capabilities(list: Value<'_>) -> Result<Capabilities> {
    let mut capabilities = Capabilities::NONE;
    let items = list.list()?;
    for item in &items {
        let word = item.text()?.to_ascii_lowercase();
        let Some((_, capability)) = Capability::WORDS.iter().find(|(known, _)| *known == word) else {
            let known = Capability::WORDS.map(|(word, _)| word).join(", ");
            return Err(item.wrong(format_args!("has {word:?}")).hint(format!("it is a list of {known}")));
        };
        capabilities = capabilities.with(*capability);
    }
    Ok(if items.is_empty() { Capabilities::ALL } else { capabilities })
}

/// A file with certificate and key, or a pair of files, of which the second may be empty.
fn client(item: Value<'_>, directory: &Path) -> Result<ClientCertificate> {
    if !item.is_list() {
        let both = bytes(&item, directory)?;
        return ClientCertificate::from_pem(&both, &both).map_err(|error| item.wrong(error));
    }
    let (place, key) = (item.place(), item.key().to_owned());
    let pair = item.list()?;
    let [chain, secret] = pair.as_slice() else {
        return Err(Error::invalid_argument(format!("{place}: {key} has a list of {} files", pair.len()))
            .hint("a pair is [\"CERTIFICATE\", \"KEY\"]"));
    };
    let certificate = bytes(chain, directory)?;
    let secret_bytes = if secret.text()?.is_empty() { certificate.clone() } else { bytes(secret, directory)? };
    ClientCertificate::from_pem(&certificate, &secret_bytes).map_err(|error| secret.wrong(error))
}

fn headers(table: Table<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in table.entries() {
        let name: HeaderName = name.parse().map_err(|_| value.wrong("is no name of a header"))?;
        for item in value.one_or_list()? {
            let mut line = HeaderValue::from_str(&item.text()?)
                .map_err(|_| item.wrong("has characters that cannot be sent in a header"))?;
            // It may be a secret.
            line.set_sensitive(true);
            headers.append(name.clone(), line);
        }
    }
    Ok(headers)
}

fn pem<T>(value: &Value<'_>, directory: &Path, parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    parse(&bytes(value, directory)?).map_err(|error| value.wrong(error))
}

fn bytes(value: &Value<'_>, directory: &Path) -> Result<Vec<u8>> {
    let path = directory.join(value.text()?);
    read(&path).map_err(|error| value.wrong(format_args!("names {}, which cannot be read: {error}", path.display())))
}

/// Reads a file of certificates.
pub(super) fn read(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MAX_PEM + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_PEM {
        let error = format!("it is larger than {MAX_PEM} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, error));
    }
    Ok(bytes)
}
