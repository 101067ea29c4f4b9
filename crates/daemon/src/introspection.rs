//! What a daemon says about itself.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use async_trait::async_trait;
use windlass_core::error::IoResultExt as _;
use windlass_core::filter::{Filter, any_matches};
use windlass_core::plugin::{Introspection, Plugin, ServerInfo};
use windlass_core::{Error, Result};

/// The file below a root that holds its identity.
const FILE: &str = "uuid";

/// The plugins of a daemon, and who it is.
pub(crate) struct About {
    plugins: Vec<Plugin>,
    server: ServerInfo,
}

impl About {
    /// Makes what a daemon with these plugins says. The identity of the root is made when it has none.
    pub(crate) fn new(root: &Path, plugins: Vec<Plugin>, version: String, revision: String) -> Result<Self> {
        let pidns = "/proc/self/ns/pid";
        let server = ServerInfo {
            uuid: identity(root)?,
            pid: std::process::id().into(),
            pidns: std::fs::metadata(pidns).attempt(|| format!("look at {pidns}"))?.ino(),
            deprecations: Vec::new(),
            version,
            revision,
        };
        Ok(Self { plugins, server })
    }
}

#[async_trait]
impl Introspection for About {
    async fn plugins(&self, filters: &[Filter]) -> Result<Vec<Plugin>> {
        Ok(self.plugins.iter().filter(|plugin| any_matches(filters, *plugin)).cloned().collect())
    }

    async fn server(&self) -> Result<ServerInfo> {
        Ok(self.server.clone())
    }
}

/// Reads the identity of a root, or gives it one: it is written whole and has its name last.
fn identity(root: &Path) -> Result<String> {
    let path = root.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(uuid) if is_uuid(uuid.trim_end()) => return Ok(uuid.trim_end().to_owned()),
        Ok(_) => {
            return Err(Error::data_loss(format!("{} holds no identity", path.display()))
                .hint("remove it: the root gets a new one"));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
    }
    let uuid = random()?;
    let new = root.join(format!("{FILE}.new"));
    let write = || {
        let mut file = File::create(&new)?;
        writeln!(file, "{uuid}")?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(root)?.sync_all()
    };
    write().attempt(|| format!("write {}", path.display()))?;
    Ok(uuid)
}

/// Makes a random UUID: RFC 9562, section 5.4.
fn random() -> Result<String> {
    let source = "/dev/urandom";
    let mut bytes = [0; 16];
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).attempt(|| format!("read {source}"))?;
    let number = u128::from_be_bytes(bytes);
    // Version 4, and the variant of the RFC.
    let number = number & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{number:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[test]
    fn a_root_keeps_its_identity_and_another_has_another() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let uuid = identity(one.path()).unwrap();
        assert!(is_uuid(&uuid) && uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
        assert_eq!(identity(one.path()).unwrap(), uuid);
        assert_ne!(identity(other.path()).unwrap(), uuid);
        std::fs::write(one.path().join(FILE), "x").unwrap();
        assert_eq!(identity(one.path()).unwrap_err().kind(), Kind::DataLoss);
    }
}
