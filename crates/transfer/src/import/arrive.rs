//! What an archive has, brought into the content store as it comes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use windlass_archive::tar::{Entry, Kind as Member};
use windlass_core::content::{Commit, Expected, IngestRef};
use windlass_core::digest::Algorithm;
use windlass_core::document::{MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE};
use windlass_core::progress::{State, Task, Tracker};
use windlass_core::{ByteStream, Digest, Error, Kind, Labels, Leased, Result, ResultExt as _};

use super::ARCHIVES;
use super::read::{Item, Members};

/// How many members an archive may have that are remembered. Each takes about a hundred bytes.
const MEMBERS_AT_MOST: usize = 200_000;

/// How many links are followed.
const LINKS_AT_MOST: usize = 16;

/// A member that is in the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What an archive turned out to have.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// Members in the content store, by path.
    pub(super) files: BTreeMap<String, Found>,
    /// What links lead to, by path.
    links: BTreeMap<String, String>,
    /// `index.json` of an OCI layout.
    pub(super) index: Option<Bytes>,
    /// `manifest.json` of Docker's archives.
    pub(super) manifest: Option<Bytes>,
    /// The blobs that were not here before.
    pub(super) brought: BTreeSet<Digest>,
}

impl Arrived {
    /// Finds a member by its path, through links.
    pub(super) fn find(&self, path: &str) -> Result<Option<&Found>> {
        let mut path = clean(path.as_bytes())?;
        for _ in 0..LINKS_AT_MOST {
            if let Some(found) = self.files.get(&path) {
                return Ok(Some(found));
            }
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => return Ok(None),
            }
        }
        Err(Error::failed_precondition(format!("{path:?} of the archive is a link that leads nowhere")))
    }

    fn check_room(&self) -> Result<()> {
        if self.files.len() + self.links.len() < MEMBERS_AT_MOST {
            return Ok(());
        }
        Err(Error::resource_exhausted(format!("the archive has more than {MEMBERS_AT_MOST} members")))
    }
}

/// Reads an archive to its end. Blobs that are not what they are called are an error.
pub(super) async fn receive(leased: &Leased, archive: ByteStream, progress: &Tracker) -> Result<Arrived> {
    let mut receiving = Receiving { leased, members: Members::of(archive), progress, arrived: Arrived::default() };
    // What is wrong from its first byte on is something else, not a damaged archive.
    let mut next = receiving.members.next().await.map_err(|error| match error.kind() {
        Kind::DataLoss => error.hint(ARCHIVES),
        _ => error,
    })?;
    while let Some(item) = next {
        if let Item::Entry(entry) = item {
            receiving.member(&entry).await?;
        }
        next = receiving.members.next().await?;
    }
    Ok(receiving.arrived)
}

struct Receiving<'a> {
    leased: &'a Leased,
    members: Members,
    progress: &'a Tracker,
    arrived: Arrived,
}

impl Receiving<'_> {
    async fn member(&mut self, entry: &Entry) -> Result<()> {
        let path = clean(&entry.path)?;
        self.arrived.check_room()?;
        let Member::Regular { size, .. } = entry.kind else {
            if let Some(target) = link(&path, &entry.kind)? {
                self.arrived.files.remove(&path);
                self.arrived.links.insert(path, target);
            }
            return Ok(());
        };
        self.arrived.links.remove(&path);
        match path.as_str() {
            "index.json" => self.arrived.index = Some(self.document(&path, size, MAX_MANIFEST_SIZE).await?),
            "manifest.json" => self.arrived.manifest = Some(self.document(&path, size, MAX_CONFIG_SIZE).await?),
            "oci-layout" => layout_version(&self.document(&path, size, 4096).await?)?,
            // What Docker wrote for its versions before 1.10: nothing refers to it.
            "repositories" => {}
            _ if is_legacy(&path) => {}
            _ => {
                let expected = named_digest(&path)?;
                let found = self.blob(&path, expected, size).await.context(|| format!("{path} of the archive"))?;
                self.arrived.files.insert(path, found);
            }
        }
        Ok(())
    }

    /// Returns the bytes of a small member.
    async fn document(&mut self, path: &str, size: u64, limit: u64) -> Result<Bytes> {
        if size > limit {
            return Err(Error::resource_exhausted(format!(
                "{path} of the archive has {size} bytes, more than the {limit} that are accepted"
            )));
        }
        let mut all = BytesMut::new();
        while let Some(part) = self.data().await? {
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }

    /// Brings a member into the content store.
    async fn blob(&mut self, path: &str, digest: Option<Digest>, size: u64) -> Result<Found> {
        let ingest = ingest(self.leased, path)?;
        let task = self.progress.task(digest.as_ref().map_or_else(|| path.to_owned(), ToString::to_string));
        let expected = Expected { digest: digest.clone(), size: Some(size) };
        let mut writer = match self.leased.content.writer(&ingest, expected).await {
            Ok(writer) => writer,
            Err(error) if error.is(Kind::AlreadyExists) => {
                let digest = digest.ok_or(error)?;
                return self.passed(digest, size, &task).await;
            }
            Err(error) => return Err(error),
        };
        let written = async {
            writer.truncate(0).await?;
            let mut hasher = digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm).hasher();
            let mut offset = 0;
            while let Some(part) = self.data().await? {
                task.set(State::Fetching { offset, total: size });
                hasher.update(&part);
                offset += part.len() as u64;
                writer.write(part).await?;
            }
            is_called_right(digest.as_ref(), hasher.finish())
        };
        let found = match written.await {
            Ok(found) => found,
            Err(error) => {
                drop(writer);
                task.set(State::Failed { reason: error.to_string() });
                return Err(self.discarded(&ingest, error).await);
            }
        };
        let expected = Expected { digest: Some(found.clone()), size: Some(size) };
        match writer.commit(Commit { expected, labels: Labels::new() }).await {
            Ok(_) => {
                self.progress.add_downloaded(size);
                self.arrived.brought.insert(found.clone());
                task.set(State::Done);
            }
            Err(error) if error.is(Kind::AlreadyExists) => {
                self.progress.add_reused(size);
                task.set(State::Exists);
            }
            Err(error) => return Err(error),
        }
        Ok(Found { digest: found, size })
    }

    /// Reads past a member that is here.
    async fn passed(&mut self, digest: Digest, size: u64, task: &Task) -> Result<Found> {
        while self.data().await?.is_some() {}
        let here = self.leased.content.info(&digest).await?.size;
        if here != size {
            return Err(Error::data_loss(format!("it has {size} bytes, {here} are those of its digest")).hint(DAMAGED));
        }
        self.progress.add_reused(size);
        task.set(State::Exists);
        Ok(Found { digest, size })
    }

    /// Discards what was written of a member, and returns why.
    async fn discarded(&self, ingest: &IngestRef, error: Error) -> Error {
        match self.leased.content.abort(ingest).await {
            Err(kept) if !kept.is(Kind::NotFound) => {
                tracing::warn!(error = %kept, %ingest, "what there is of a blob was not discarded");
            }
            _ => {}
        }
        error
    }

    /// Returns the next bytes of the current member.
    async fn data(&mut self) -> Result<Option<Bytes>> {
        match self.members.next().await? {
            Some(Item::Data(part)) => Ok(Some(part)),
            Some(Item::End) => Ok(None),
            Some(Item::Entry(_)) | None => Err(Error::internal("a member of an archive has no end")),
        }
    }
}

/// What to do about an archive that is not whole.
const DAMAGED: &str = "the archive is damaged: copy or write it again";

fn is_called_right(expected: Option<&Digest>, found: Digest) -> Result<Digest> {
    match expected {
        Some(expected) if *expected != found => {
            Err(Error::data_loss(format!("its bytes have the digest {found}")).hint(DAMAGED))
        }
        _ => Ok(found),
    }
}

/// Returns the ingest of a member: nobody else's.
fn ingest(leased: &Leased, path: &str) -> Result<IngestRef> {
    // Paths may be longer than refs.
    format!("import-{}-{}", leased.lease(), Digest::sha256(path.as_bytes()).short()).parse()
}

/// Returns the digest that the path of a blob in an OCI layout says. OCI image-spec, `image-layout.md`, "Blobs".
fn named_digest(path: &str) -> Result<Option<Digest>> {
    let Some(rest) = path.strip_prefix("blobs/") else { return Ok(None) };
    let digest = rest.split_once('/').map(|(algorithm, hex)| format!("{algorithm}:{hex}").parse());
    match digest {
        Some(Ok(digest)) => Ok(Some(digest)),
        _ => Err(Error::failed_precondition(format!("{path:?} of the archive is not called as a blob is"))
            .hint("a blob of an OCI layout is blobs/ALGORITHM/DIGEST")),
    }
}

/// Tells whether a member is one of those that Docker wrote beside each layer for its versions before 1.10.
fn is_legacy(path: &str) -> bool {
    matches!(path.rsplit_once('/'), Some((id, "VERSION" | "json")) if !id.contains('/') && id.len() == 64)
}

fn layout_version(bytes: &[u8]) -> Result<()> {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match value.get("imageLayoutVersion").and_then(serde_json::Value::as_str) {
        Some("1.0.0") => Ok(()),
        Some(other) => {
            Err(Error::unimplemented(format!("the archive is an OCI layout of version {other:?}, not 1.0.0")))
        }
        None => Err(super::names::malformed("oci-layout", "there is no version in it")),
    }
}

/// Returns what a link leads to, from the top of the archive; nothing of what is no link.
fn link(path: &str, kind: &Member) -> Result<Option<String>> {
    match kind {
        Member::Symlink { target } => {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let target = [directory.as_bytes(), b"/", target].concat();
            clean(&target).context(|| format!("the link {path:?}")).map(Some)
        }
        Member::Link { target } => clean(target).context(|| format!("the link {path:?}")).map(Some),
        _ => Ok(None),
    }
}

/// Makes a path of a name in an archive: nothing is ever written there, so all it could mean is another member.
fn clean(name: &[u8]) -> Result<String> {
    let refused = |why: &str| {
        Error::failed_precondition(format!("{:?} of the archive {why}", String::from_utf8_lossy(name)))
            .hint("the archive is malicious or broken; do not import it")
    };
    let name = std::str::from_utf8(name).map_err(|_| refused("is no text"))?;
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(|| refused("leads out of it"))?),
            _ => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_members_and_nowhere_else() {
        let target = |path: &str, target: &str| link(path, &Member::Symlink { target: target.as_bytes().to_vec() });
        assert_eq!(target("id/layer.tar", "../other/layer.tar").unwrap().as_deref(), Some("other/layer.tar"));
        assert_eq!(target("layer.tar", "x").unwrap().as_deref(), Some("x"));
        for escaping in ["../../x", "../../../etc/passwd"] {
            assert_eq!(target("id/layer.tar", escaping).unwrap_err().kind(), Kind::FailedPrecondition);
        }
        let hard = Member::Link { target: b"./x".to_vec() };
        assert_eq!(link("id/layer.tar", &hard).unwrap().as_deref(), Some("x"));
    }

    #[test]
    fn a_circle_of_links_is_refused() {
        let mut arrived = Arrived::default();
        arrived.links.insert("a".into(), "b".into());
        arrived.links.insert("b".into(), "a".into());
        assert!(arrived.find("a").is_err());
        assert_eq!(arrived.find("./c").unwrap(), None);
    }

    #[test]
    fn blobs_are_called_by_their_digests() {
        let hex = "0".repeat(64);
        assert!(named_digest(&format!("blobs/sha256/{hex}")).unwrap().is_some());
        assert_eq!(named_digest("layer.tar").unwrap(), None);
        for path in ["blobs/x", "blobs/sha256/abc", "blobs/md5/00"] {
            assert!(named_digest(path).is_err(), "{path}");
        }
    }
}
