//! Stores whose blobs are in a content store of somebody else, which may not answer, or not have what it was given.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use windlass_core::content::{
    Commit, Expected, Info, IngestRef, Ingester, IngesterExt as _, Provider, ProviderExt as _, ReaderAt, Status, Writer,
};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::fsck::Problem;
use windlass_core::gc::{Collector as _, ROOT};
use windlass_core::progress::Tracker;
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, Listing, Result, content};
use windlass_store::fsck::{Depth, inspect, rebuild};
use windlass_store::{Elsewhere, LockWait, Options, RootLock, Store};

use super::{blob_path, bring, leased, open, scope};

const SMALL: &[u8] = b"small";
static LARGE: [u8; 3 << 20] = [b'.'; 3 << 20];

/// Opens a store in `front` whose blobs are in one in `behind`.
async fn pair(root: &Path) -> (Store, Store) {
    let (front, behind) = (root.join("front"), root.join("behind"));
    for directory in [&front, &behind] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let behind = open(&behind).await;
    (opened(&front, &elsewhere(behind.content(&scope("windlass")))).await.unwrap(), behind)
}

async fn opened(root: &Path, elsewhere: &Elsewhere) -> Result<Store> {
    let lock = RootLock::acquire(root, LockWait::UpTo(std::time::Duration::from_secs(10))).await?;
    Store::open_with(lock, BTreeMap::new(), Options { content: Some(elsewhere.clone()), ..Options::default() }).await
}

fn elsewhere(content: Arc<dyn content::Store>) -> Elsewhere {
    Elsewhere::new("other", "/run/other.sock", content)
}

async fn infos(content: &dyn content::Store) -> Vec<Info> {
    content.list(&[]).try_collect().await.unwrap()
}

fn names_the_store(error: &Error) {
    let text = error.to_string();
    assert!(text.contains("content store other at /run/other.sock"), "{text}");
}

windlass_testkit::content_suite!(
    content_elsewhere,
    async |root: &Path| pair(root).await.0.content(&scope("default")),
    persistent
);
windlass_testkit::one_pass_suite!(
    one_pass_elsewhere,
    async |root: &Path| pair(root).await.0.content(&scope("default")),
    persistent
);

#[tokio::test]
async fn bytes_are_there_once_and_held_until_the_last_record_goes() {
    let root = tempfile::tempdir().unwrap();
    let (front, behind) = pair(root.path()).await;
    let (one, other, there) =
        (front.content(&scope("one")), front.content(&scope("other")), behind.content(&scope("windlass")));
    for bytes in [SMALL, &LARGE] {
        let blob = bring(&*one, bytes, Labels::new().with("a", "b")).await;
        assert!(other.writer(&blob.ingest_ref(), Expected::from(&blob)).await.err().unwrap().is(Kind::AlreadyExists));
        let found = infos(&*there).await;
        assert_eq!((found.len(), &found[0].digest, found[0].size), (1, &blob.digest, blob.size));
        assert!(!blob_path(&root.path().join("front"), &blob).exists());
        behind.collect().await.unwrap();
        assert!(other.read_all(&blob, 4 << 20).await.unwrap() == bytes, "the store there took it for garbage");
        assert_eq!(one.info(&blob.digest).await.unwrap().labels, Labels::new().with("a", "b"));
        one.delete(&blob.digest).await.unwrap();
        assert_eq!(infos(&*there).await.len(), 1);
        other.delete(&blob.digest).await.unwrap();
        assert_eq!(infos(&*there).await, []);
    }
}

#[tokio::test]
async fn a_collection_removes_what_is_ours_there_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let (front, behind) = pair(root.path()).await;
    let there = behind.content(&leased(&behind, "windlass").await);
    let (theirs, wanted) =
        (bring(&*there, b"theirs", Labels::new()).await, bring(&*there, b"wanted", Labels::new()).await);
    let here = leased(&front, "default").await;
    bring(&*front.content(&here), b"wanted", Labels::new()).await;
    bring(&*front.content(&scope("default")), b"garbage", Labels::new()).await;
    let planned: Vec<_> = front.plan().await.unwrap().into_iter().map(|doomed| (doomed.id, doomed.bytes)).collect();
    assert_eq!(planned, [(Digest::sha256(b"garbage").to_string(), 7)]);
    assert_eq!(front.collect().await.unwrap().blobs.bytes, 7);
    let marks: BTreeMap<Digest, Option<String>> = infos(&*there)
        .await
        .into_iter()
        .map(|info| (info.digest, info.labels.get(ROOT).map(ToOwned::to_owned)))
        .collect();
    let expected = [(theirs.digest, None), (wanted.digest, Some("windlass".to_owned()))];
    assert_eq!(marks, expected.into(), "what is wanted and was there is held now");
}

/// A content store that does not answer while it is off.
struct Switch {
    inner: Arc<dyn content::Store>,
    off: AtomicBool,
}

impl Switch {
    fn on(inner: Arc<dyn content::Store>) -> Arc<Self> {
        Arc::new(Self { inner, off: AtomicBool::new(false) })
    }

    fn turn(&self, off: bool) {
        self.off.store(off, Ordering::SeqCst);
    }

    fn reach(&self) -> Result<&dyn content::Store> {
        if self.off.load(Ordering::SeqCst) { Err(Error::unavailable("nobody is there")) } else { Ok(&*self.inner) }
    }
}

#[async_trait]
impl Provider for Switch {
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        self.reach()?.reader(descriptor).await
    }
}

#[async_trait]
impl Ingester for Switch {
    async fn writer(&self, ingest: &IngestRef, expected: Expected) -> Result<Box<dyn Writer>> {
        self.reach()?.writer(ingest, expected).await
    }
}

#[async_trait]
impl content::Store for Switch {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.reach()?.info(digest).await
    }

    fn list(&self, filters: &[Filter]) -> Listing<Info> {
        match self.reach() {
            Ok(inner) => inner.list(filters),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        self.reach()?.update(info, mask).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.reach()?.delete(digest).await
    }

    async fn status(&self, ingest: &IngestRef) -> Result<Status> {
        self.reach()?.status(ingest).await
    }

    async fn statuses(&self, filters: &[Filter]) -> Result<Vec<Status>> {
        self.reach()?.statuses(filters).await
    }

    async fn abort(&self, ingest: &IngestRef) -> Result<()> {
        self.reach()?.abort(ingest).await
    }
}

/// Opens a store whose blobs are in one that can be turned off.
async fn switched(root: &Path) -> (Store, Arc<Switch>) {
    let (front, behind) = pair(root).await;
    drop(front);
    let switch = Switch::on(behind.content(&scope("windlass")));
    (opened(&root.join("front"), &elsewhere(switch.clone())).await.unwrap(), switch)
}

#[tokio::test]
async fn a_store_that_does_not_answer_at_the_commit_costs_no_bytes() {
    for bytes in [SMALL, &LARGE] {
        let root = tempfile::tempdir().unwrap();
        let (front, switch) = switched(root.path()).await;
        let content = front.content(&scope("default"));
        let key: IngestRef = "key".parse().unwrap();
        let mut writer = content.writer(&key, Expected::default()).await.unwrap();
        writer.write(Bytes::from_static(bytes)).await.unwrap();
        switch.turn(true);
        let error = writer.commit(Commit::default()).await.err().unwrap();
        assert!(error.is(Kind::Aborted) && error.hint_text().is_some(), "{error}");
        names_the_store(&error);
        assert_eq!(infos(&*content).await, [], "nothing is recorded");
        switch.turn(false);
        let mut writer = content.writer(&key, Expected::default()).await.unwrap();
        assert_eq!(writer.status().await.unwrap().offset, bytes.len() as u64);
        let info = writer.commit(Commit::default()).await.unwrap();
        assert!(content.read_all(&Descriptor::of("", bytes), 4 << 20).await.unwrap() == bytes);
        assert_eq!(info.digest, Digest::sha256(bytes));
    }
}

/// `Unavailable` would say that somebody else writes it.
#[tokio::test]
async fn a_store_that_does_not_answer_is_said_to_whoever_opens_reads_or_deletes() {
    let root = tempfile::tempdir().unwrap();
    let (front, switch) = switched(root.path()).await;
    let content = front.content(&scope("default"));
    let blob = bring(&*content, SMALL, Labels::new().with(ROOT, "test")).await;
    let reader = content.reader(&blob).await.unwrap();
    assert_eq!(reader.read_at(0, 2).await.unwrap(), "sm");
    switch.turn(true);
    let other = Descriptor::of("", &LARGE);
    let opened = content.writer(&other.ingest_ref(), Expected::from(&other)).await.err().unwrap();
    let read = content.reader(&blob).await.err().unwrap();
    assert_eq!(content.info(&blob.digest).await.unwrap().size, 5, "the record is here");
    let deleted = content.delete(&blob.digest).await.unwrap_err();
    let collected = front.collect().await.unwrap_err();
    for error in [opened, read, deleted, collected] {
        assert_eq!(error.kind(), Kind::Aborted, "{error}");
        names_the_store(&error);
    }
    switch.turn(false);
    assert_eq!(front.collect().await.unwrap().blobs.count, 1, "what could not be removed is found again");
}

#[tokio::test]
async fn a_blob_that_vanished_there_is_said_and_is_brought_again() {
    let root = tempfile::tempdir().unwrap();
    let (front, behind) = pair(root.path()).await;
    let content = front.content(&scope("default"));
    let blob = bring(&*content, SMALL, Labels::new().with(ROOT, "test")).await;
    behind.content(&scope("windlass")).delete(&blob.digest).await.unwrap();
    let error = content.reader(&blob).await.err().unwrap();
    assert!(error.is(Kind::DataLoss) && error.to_string().contains("are gone from"), "{error}");
    names_the_store(&error);
    bring(&*content, SMALL, Labels::new()).await;
    assert_eq!(content.read_all(&blob, 10).await.unwrap(), SMALL);
    assert_eq!(content.info(&blob.digest).await.unwrap().labels.get(ROOT), Some("test"), "what was said stays said");
}

#[tokio::test]
async fn wrong_bytes_there_are_replaced_or_said_to_stay() {
    let root = tempfile::tempdir().unwrap();
    let (front, behind) = pair(root.path()).await;
    let (content, there) = (front.content(&scope("default")), root.path().join("behind"));
    let blob = bring(&*content, SMALL, Labels::new().with(ROOT, "test")).await;
    let damage = || {
        let path = blob_path(&there, &blob);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"smell").unwrap();
    };
    damage();
    front.condemn(&blob.digest);
    bring(&*content, SMALL, Labels::new()).await;
    assert_eq!(content.read_all(&blob, 10).await.unwrap(), SMALL);
    // Somebody else there keeps the wrong bytes.
    bring(&*behind.content(&scope("theirs")), SMALL, Labels::new().with(ROOT, "test")).await;
    damage();
    front.condemn(&blob.digest);
    let error = content.write_blob(&blob, Bytes::from_static(SMALL), Labels::new()).await.unwrap_err();
    assert!(error.is(Kind::Aborted) && error.to_string().contains("has changed since it was stored"), "{error}");
    names_the_store(&error);
}

#[tokio::test]
async fn a_root_says_where_its_blobs_are_and_is_not_used_without_them() {
    let root = tempfile::tempdir().unwrap();
    let (front, behind) = pair(root.path()).await;
    bring(&*front.content(&scope("default")), SMALL, Labels::new()).await;
    let path = front.root().to_owned();
    drop(front);
    assert_eq!(Elsewhere::of(&path).unwrap(), Some(("other".to_owned(), "/run/other.sock".into())));
    assert_eq!(Elsewhere::of(behind.root()).unwrap(), None);
    let lock = RootLock::acquire(&path, LockWait::UpTo(std::time::Duration::from_secs(10))).await.unwrap();
    let error = Store::open(lock, BTreeMap::new()).await.err().unwrap();
    assert!(error.is(Kind::FailedPrecondition) && error.hint_text().unwrap().contains("proxy plugin"), "{error}");
    names_the_store(&error);
    let error = inspect(&path, None, Depth::Bytes, &BTreeMap::new(), &Tracker::new()).unwrap_err();
    names_the_store(&error);

    // One that has blobs keeps them.
    let own = root.path().join("own");
    std::fs::create_dir(&own).unwrap();
    bring(&*open(&own).await.content(&scope("default")), SMALL, Labels::new()).await;
    let error = opened(&own, &elsewhere(behind.content(&scope("windlass")))).await.err().unwrap();
    assert!(error.is(Kind::FailedPrecondition) && error.to_string().contains("1 blobs of its own"), "{error}");
    assert_eq!(Elsewhere::of(&own).unwrap(), None);

    // One whose socket was moved says so from then on.
    let moved = Elsewhere::new("other", "/run/moved.sock", behind.content(&scope("windlass")));
    drop(opened(&path, &moved).await.unwrap());
    assert_eq!(Elsewhere::of(&path).unwrap(), Some(("other".to_owned(), "/run/moved.sock".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_looks_at_the_bytes_there_and_a_lost_database_is_made_of_them() {
    let root = tempfile::tempdir().unwrap();
    let (front, behind) = pair(root.path()).await;
    let (path, there) = (front.root().to_owned(), behind.content(&scope("windlass")));
    let content = front.content(&scope("default"));
    let [gone, bad, good] = [b"gone".as_slice(), b"bad", b"good"].map(|bytes| Descriptor::of("", bytes));
    for blob in [b"gone".as_slice(), b"bad", b"good"] {
        bring(&*content, blob, Labels::new().with(ROOT, "test")).await;
    }
    drop((content, front));
    there.delete(&gone.digest).await.unwrap();
    let file = blob_path(behind.root(), &bad);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, b"BAD").unwrap();
    bring(&*there, b"stray", Labels::new().with(ROOT, "windlass")).await;
    bring(&*there, b"theirs", Labels::new().with(ROOT, "theirs")).await;
    let other = elsewhere(there.clone());
    let check = async || {
        let (path, other) = (path.clone(), other.clone());
        let look = move || inspect(&path, Some(&other), Depth::Bytes, &BTreeMap::new(), &Tracker::new());
        let found = tokio::task::spawn_blocking(look).await.unwrap().unwrap();
        found.into_iter().map(|finding| finding.problem).collect::<Vec<_>>()
    };
    let expected = [
        Problem::BlobMissing { digest: gone.digest, size: 4 },
        Problem::BlobDigest { digest: bad.digest, size: 3, found: Digest::sha256(b"BAD") },
        Problem::BlobUnrecorded { digest: Digest::sha256(b"stray"), size: 5 },
    ];
    let found = check().await;
    assert!(found.len() == expected.len() && expected.iter().all(|one| found.contains(one)), "{found:?}");

    std::fs::remove_file(path.join("meta.redb")).unwrap();
    assert!(opened(&path, &other).await.err().unwrap().is(Kind::DataLoss), "everything there would be garbage");
    assert!(matches!(check().await[0], Problem::DatabaseMissing { .. }));
    rebuild(&path, Some(&other), BTreeMap::new(), &Tracker::new()).await.unwrap();
    assert!(!check().await.iter().any(|problem| matches!(problem, Problem::DatabaseMissing { .. })));
    drop(opened(&path, &other).await.unwrap());
    assert_eq!(there.read_all(&good, 10).await.unwrap(), "good");
}
