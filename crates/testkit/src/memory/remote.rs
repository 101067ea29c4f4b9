//! A remote in memory: it serves images, counts what is asked of it, and fails as a script says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::Semaphore;
use windlass_core::content::{Commit, Info, Ingester as _, ProviderExt as _, Status, Store as _, Writer};
use windlass_core::image::Name;
use windlass_core::remote::{Body, ByteRange, Fetcher, Lane, Push, Pusher, Resolved, Resolver, Trouble};
use windlass_core::{ByteStream, Descriptor, Digest, Error, Kind, Reference, Result};

use super::Content;
use crate::image::Bundle;

/// How many bytes a stream gives at once.
const CHUNK: usize = 8 << 10;

/// How one request goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It does not: the place of a request that succeeds in a script.
    None,
    /// It is refused.
    Fail(Kind),
    /// The stream ends after that many bytes as if that were all.
    Truncate(u64),
    /// The stream fails after that many bytes.
    Break(u64),
    /// The stream is given up as too slow after that many bytes.
    Starve(u64),
    /// The byte at that offset of the content is another one.
    Corrupt(u64),
    /// Bytes follow after the last one.
    Append(usize),
    /// The start of the range is ignored, its end is not.
    NoSeek,
    /// The stream begins so many bytes after the start of the range, and says so.
    Late(u64),
    /// The answer takes that long.
    Delay(Duration),
    /// The answer waits until the gate is opened.
    Hold(Gate),
    /// The stream waits after that many bytes until the gate is opened.
    HoldAfter(u64, Gate),
}

/// Holds requests back until it is opened.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// Makes a closed gate.
    #[expect(clippy::new_without_default, reason = "a closed gate is not what anyone expects by default")]
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // The only way out of a semaphore without permits is that it is closed.
        let _ = self.0.acquire().await;
    }
}

/// A remote that serves what it is given. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Remote {
    content: Content,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What a name points at, by its text; digests by `locator@digest`.
    names: BTreeMap<String, Descriptor>,
    /// Bytes by the digest they are asked for, whether or not they have it.
    blobs: BTreeMap<Digest, Bytes>,
    /// What is attached to a manifest.
    attached: BTreeMap<Digest, Vec<Descriptor>>,
    scripts: BTreeMap<Digest, VecDeque<Fault>>,
    resolve_script: VecDeque<Fault>,
    fetches: BTreeMap<Digest, Vec<ByteRange>>,
    resolves: usize,
    sent: u64,
    running: usize,
    most_at_once: usize,
    /// How many lanes are left to give.
    lanes: usize,
    distrusted: bool,
    /// How many other places are left that may be asked.
    places: usize,
    passed_over: Vec<(Digest, Trouble)>,
}

impl Remote {
    /// Makes a remote that serves nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves an image under a reference with a tag, and its manifests by digest under the same locator.
    pub fn serve(&self, reference: &Reference, bundle: &Bundle) {
        let mut state = self.lock();
        state.names.insert(reference.to_string(), bundle.root.clone());
        let manifests = bundle.images.iter().map(|image| &image.manifest);
        for descriptor in manifests.chain([&bundle.root]) {
            let by_digest = reference.with_digest(descriptor.digest.clone());
            state.names.insert(by_digest.to_string(), descriptor.clone());
        }
        state.blobs.extend(bundle.blobs.clone());
    }

    /// Serves an artifact, and says of a manifest that it is attached to it.
    pub fn attach(&self, subject: &Digest, artifact_type: &str, bundle: &Bundle) {
        let mut state = self.lock();
        let descriptor = Descriptor { artifact_type: Some(artifact_type.to_owned()), ..bundle.root.clone() };
        state.attached.entry(subject.clone()).or_default().push(descriptor);
        state.blobs.extend(bundle.blobs.clone());
    }

    /// Serves bytes under a digest, which need not be theirs.
    pub fn serve_blob(&self, digest: Digest, bytes: Bytes) {
        self.lock().blobs.insert(digest, bytes);
    }

    /// Serves a blob no longer.
    pub fn withdraw(&self, digest: &Digest) {
        self.lock().blobs.remove(digest);
    }

    /// Says how the next fetches of a blob go, one fault each; those after them succeed.
    pub fn script(&self, digest: &Digest, faults: impl IntoIterator<Item = Fault>) {
        self.lock().scripts.entry(digest.clone()).or_default().extend(faults);
    }

    /// Has the fetches of a blob succeed from now on.
    pub fn forget_script(&self, digest: &Digest) {
        self.lock().scripts.remove(digest);
    }

    /// Says how the next calls to resolve go.
    pub fn script_resolve(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().resolve_script.extend(faults);
    }

    /// Says how many parts may be fetched at once beside one.
    pub fn give_lanes(&self, count: usize) {
        self.lock().lanes = count;
    }

    /// Says how many other places there are, which serve the same: the script goes on with the next one's first fetch.
    pub fn give_places(&self, count: usize) {
        self.lock().places = count;
    }

    /// Returns which blobs had to be asked for elsewhere, and why.
    pub fn passed_over(&self) -> Vec<(Digest, Trouble)> {
        self.lock().passed_over.clone()
    }

    /// Tells whether somebody found that parts did not make up the content.
    pub fn is_distrusted(&self) -> bool {
        self.lock().distrusted
    }

    /// Returns the ranges that were asked for of a blob, one for each fetch.
    pub fn fetches(&self, digest: &Digest) -> Vec<ByteRange> {
        self.lock().fetches.get(digest).cloned().unwrap_or_default()
    }

    /// Returns how many fetches there were in all.
    pub fn fetch_count(&self) -> usize {
        self.lock().fetches.values().map(Vec::len).sum()
    }

    /// Returns how often something was resolved.
    pub fn resolves(&self) -> usize {
        self.lock().resolves
    }

    /// Returns how many bytes went into streams.
    pub fn bytes_sent(&self) -> u64 {
        self.lock().sent
    }

    /// Returns how many streams were open at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.lock().most_at_once
    }

    /// Returns what a name points at, as served or as pushed.
    pub fn target(&self, name: &str) -> Option<Descriptor> {
        self.lock().names.get(name).cloned()
    }

    /// Returns bytes as served or as pushed.
    pub async fn blob(&self, digest: &Digest) -> Option<Bytes> {
        if let Some(bytes) = self.lock().blobs.get(digest).cloned() {
            return Some(bytes);
        }
        let descriptor = Descriptor::new("application/octet-stream", digest.clone(), 0);
        self.content.read_all(&descriptor, u64::MAX).await.ok()
    }
}

/// Carries out what of a fault happens before the answer.
async fn before_answer(fault: &Fault, what: &str) -> Result<()> {
    match fault {
        Fault::Fail(kind) => return Err(Error::new(*kind, format!("{what} fails as scripted"))),
        Fault::Delay(delay) => tokio::time::sleep(*delay).await,
        Fault::Hold(gate) => gate.pass().await,
        _ => {}
    }
    Ok(())
}

#[async_trait]
impl Resolver for Remote {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let fault = {
            let mut state = self.lock();
            state.resolves += 1;
            state.resolve_script.pop_front().unwrap_or(Fault::None)
        };
        before_answer(&fault, &format!("resolve {reference}")).await?;
        let descriptor = self.target(&reference.to_string());
        let descriptor = descriptor.ok_or_else(|| Error::not_found(format!("{reference} is not served here")))?;
        Ok(Resolved { name: reference.to_string().parse()?, descriptor })
    }

    async fn fetcher(&self, _name: &Name) -> Result<Arc<dyn Fetcher>> {
        Ok(Arc::new(self.clone()))
    }

    async fn pusher(&self, name: &Name) -> Result<Arc<dyn Pusher>> {
        Ok(Arc::new(PushTo { remote: self.clone(), name: name.clone() }))
    }

    async fn referrers(&self, _: &Name, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let state = self.lock();
        let attached = state.attached.get(subject).into_iter().flatten().cloned();
        Ok(attached.filter(|it| artifact_type.is_none() || it.artifact_type.as_deref() == artifact_type).collect())
    }
}

#[async_trait]
impl Fetcher for Remote {
    async fn fetch(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let digest = &descriptor.digest;
        let fault = {
            let mut state = self.lock();
            state.fetches.entry(digest.clone()).or_default().push(range);
            state.scripts.get_mut(digest).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
        };
        before_answer(&fault, &format!("fetch {digest}")).await?;
        let bytes = self.blob(digest).await.ok_or_else(|| Error::not_found(format!("{digest} is not served here")))?;
        let size = bytes.len() as u64;
        if range.start > size {
            return Err(Error::out_of_range(format!("{digest} has {size} bytes, and byte {} was asked", range.start)));
        }
        let offset = match fault {
            Fault::NoSeek => 0,
            Fault::Late(bytes) => range.start + bytes,
            _ => range.start,
        };
        let end = range.end.map_or(size, |end| end.clamp(offset.min(size), size));
        let (bytes, error) = damaged(&bytes, &fault);
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        // What is appended comes after the end, whatever was asked for.
        let end = if end == size { bytes.len() } else { at(end) };
        let part = bytes.slice(at(offset)..end.max(at(offset)));
        let hold = match fault {
            Fault::HoldAfter(after, gate) => Some((usize::try_from(after).unwrap_or(usize::MAX), gate)),
            _ => None,
        };
        Ok(Body { offset, size: Some(size), stream: self.stream(part, error, hold) })
    }

    fn lane(&self) -> Option<Lane> {
        let mut state = self.lock();
        let left = state.lanes.checked_sub(1).filter(|_| !state.distrusted)?;
        state.lanes = left;
        Some(Lane::new(InLane(self.clone())))
    }

    fn pass_over(&self, digest: &Digest, trouble: Trouble, error: Error) -> Result<()> {
        let mut state = self.lock();
        let Some(left) = state.places.checked_sub(1) else { return Err(error) };
        state.places = left;
        state.passed_over.push((digest.clone(), trouble));
        Ok(())
    }

    fn distrust_parts(&self) {
        self.lock().distrusted = true;
    }
}

/// A lane that was given.
struct InLane(Remote);

impl Drop for InLane {
    fn drop(&mut self) {
        self.0.lock().lanes += 1;
    }
}

/// Returns the content as the fault leaves it, and of what kind an error is that follows it.
fn damaged(bytes: &Bytes, fault: &Fault) -> (Bytes, Option<Kind>) {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    match fault {
        Fault::Truncate(after) => (bytes.slice(..at(*after)), None),
        Fault::Break(after) => (bytes.slice(..at(*after)), Some(Kind::Unavailable)),
        Fault::Starve(after) => (bytes.slice(..at(*after)), Some(Kind::DeadlineExceeded)),
        Fault::Corrupt(offset) => {
            let mut corrupt = bytes.to_vec();
            if let Some(byte) = corrupt.get_mut(at(*offset)) {
                *byte ^= 0xff;
            }
            (corrupt.into(), None)
        }
        Fault::Append(count) => ([bytes, &vec![0; *count][..]].concat().into(), None),
        _ => (bytes.clone(), None),
    }
}

/// A stream that is open; counted from when it is made until it is dropped.
struct Sending {
    remote: Remote,
    left: Bytes,
    error: Option<Kind>,
    /// How many bytes are sent until what is passed.
    hold: Option<(usize, Gate)>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.remote.lock().running -= 1;
    }
}

impl Remote {
    fn stream(&self, bytes: Bytes, error: Option<Kind>, hold: Option<(usize, Gate)>) -> ByteStream {
        let mut state = self.lock();
        state.running += 1;
        state.most_at_once = state.most_at_once.max(state.running);
        drop(state);
        let sending = Sending { remote: self.clone(), left: bytes, error, hold };
        futures::stream::unfold(sending, |mut sending| async move {
            // A network gives others a turn between two chunks.
            tokio::task::yield_now().await;
            if sending.left.is_empty() {
                let broken = sending.error.take()?;
                return Some((Err(Error::new(broken, "the connection breaks as scripted")), sending));
            }
            let mut length = sending.left.len().min(CHUNK);
            if let Some((after, gate)) = sending.hold.take() {
                if after == 0 {
                    gate.pass().await;
                } else {
                    length = length.min(after);
                    sending.hold = Some((after - length, gate));
                }
            }
            let chunk = sending.left.split_to(length);
            sending.remote.lock().sent += chunk.len() as u64;
            Some((Ok(chunk), sending))
        })
        .boxed()
    }
}

struct PushTo {
    remote: Remote,
    name: Name,
}

#[async_trait]
impl Pusher for PushTo {
    async fn push(&self, descriptor: &Descriptor) -> Result<Push> {
        if self.remote.lock().blobs.contains_key(&descriptor.digest)
            || self.remote.content.info(&descriptor.digest).await.is_ok()
        {
            self.point(descriptor);
            return Ok(Push::Exists);
        }
        let writer = self.remote.content.writer(&descriptor.ingest_ref(), descriptor.into()).await?;
        let push = PushTo { remote: self.remote.clone(), name: self.name.clone() };
        Ok(Push::Upload(Box::new(Pushing { push, descriptor: descriptor.clone(), writer })))
    }
}

impl PushTo {
    /// A name with a digest points at what has it, another one at the last manifest that was pushed to it.
    fn point(&self, descriptor: &Descriptor) {
        let name = self.name.as_str();
        let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
        let meant = digest.is_none_or(|digest| digest == descriptor.digest.to_string());
        if meant && descriptor.media_type.is_manifest_or_index() {
            self.remote.lock().names.insert(name.to_owned(), descriptor.clone());
        }
    }
}

struct Pushing {
    push: PushTo,
    descriptor: Descriptor,
    writer: Box<dyn Writer>,
}

#[async_trait]
impl Writer for Pushing {
    async fn status(&mut self) -> Result<Status> {
        self.writer.status().await
    }

    async fn digest(&mut self) -> Result<Option<Digest>> {
        self.writer.digest().await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.writer.write(bytes).await
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.writer.truncate(size).await
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<Info> {
        let info = self.writer.commit(commit).await?;
        self.push.point(&self.descriptor);
        Ok(info)
    }
}
