//! A directory of certificates as Docker has it: `*.crt` are authorities to trust, `NAME.cert` and `NAME.key` say who we are.
//!
//! The format: docs.docker.com, "Verify repository client with certificates".

use std::path::{Path, PathBuf};

use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result};

use super::file::{Entry, read};
use crate::connection::{ClientCertificate, Connection};
use crate::tls::Certificate;

/// Reads the certificates of a directory; nothing when there are none.
///
/// # Errors
/// Those of the filesystem, and `InvalidArgument` naming the file that is not what its name says.
pub(super) fn load(directory: &Path) -> Result<Option<Entry>> {
    let attempt = || format!("look for certificates in {}", directory.display());
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).attempt(attempt)? {
        files.push(entry.attempt(attempt)?.path());
    }
    files.sort_unstable();
    let of_kind = |kind: &'static str| files.iter().filter(move |file| file.extension().is_some_and(|is| is == kind));
    let mut connection = Connection::default();
    for file in of_kind("crt") {
        connection.roots.extend(Certificate::from_pem(&bytes(file)?).map_err(|error| named(file, error))?);
    }
    for file in of_kind("cert") {
        let key = file.with_extension("key");
        let chain = bytes(file)?;
        // containerd takes a file that has both, too.
        let secret = if files.contains(&key) { bytes(&key)? } else { chain.clone() };
        let client = ClientCertificate::from_pem(&chain, &secret)
            .map_err(|error| named(file, error).hint(format!("its key belongs into {} beside it", key.display())))?;
        connection.clients.push(client);
    }
    let place = directory.display().to_string();
    Ok(connection.has_tls().then(|| Entry { place, connection, ..Entry::default() }))
}

fn bytes(file: &PathBuf) -> Result<Vec<u8>> {
    read(file).attempt(|| format!("read the certificate {}", file.display()))
}

fn named(file: &Path, error: Error) -> Error {
    error.context(format!("read the certificate {}", file.display()))
}
