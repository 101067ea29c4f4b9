//! Reading and listing content, as containerd's clients ask for it and as ours does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::{Code, Status};
use windlass_core::content::{
    Expected, Info, IngestRef, Ingester, IngesterExt as _, Provider, ReaderAt, Store, Writer,
};
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::{Descriptor, Digest, Host, Labels, Listing, MediaType, Result, Scope, Services};
use windlass_grpc::Client;
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;
use windlass_proto::containerd::services::content::v1::{ListContentRequest, ReadContentRequest};

use crate::{connect, host, in_namespace};

fn sample(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect::<Vec<u8>>().into()
}

async fn bring(host: &dyn Host, bytes: &Bytes) -> Descriptor {
    let descriptor = Descriptor::of(MediaType::OCTET_STREAM, bytes);
    let content = host.services(&Scope::default()).await.unwrap().content;
    content.write_blob(&descriptor, bytes.clone(), Labels::new()).await.unwrap();
    descriptor
}

#[tokio::test]
async fn a_part_of_a_blob_is_sent_in_messages_of_a_megabyte_at_most() {
    let host = host();
    let bytes = sample(2_500_000);
    let digest = bring(&*host, &bytes).await.digest.to_string();
    let content = ContentClient::new(connect(&host).await);
    let read = async |offset: i64, size: i64| -> Result<Bytes, Status> {
        let request = in_namespace(ReadContentRequest { digest: digest.clone(), offset, size });
        let mut parts = content.clone().read(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(part) = parts.message().await? {
            assert!(part.data.len() <= 1 << 20);
            assert_eq!(part.offset, offset.max(0) + i64::try_from(all.len()).unwrap());
            all.extend_from_slice(&part.data);
        }
        Ok(all.into())
    };
    for (offset, size, expected) in [
        (0, 0, 0..2_500_000),
        (0, 2_500_000, 0..2_500_000),
        (1_000_001, 0, 1_000_001..2_500_000),
        (1_000_001, 1_100_000, 1_000_001..2_100_001),
        (2_499_999, i64::MAX, 2_499_999..2_500_000),
        (2_500_000, 0, 0..0),
        (-1, -1, 0..2_500_000),
    ] {
        assert_eq!(read(offset, size).await.unwrap(), bytes.slice(expected), "{size} bytes at {offset}");
    }
    assert_eq!(read(2_500_001, 0).await.unwrap_err().code(), Code::OutOfRange);
    let absent = ReadContentRequest { digest: Digest::sha256(b"absent").to_string(), ..ReadContentRequest::default() };
    assert_eq!(content.clone().read(in_namespace(absent)).await.unwrap_err().code(), Code::NotFound);
    let nonsense = ReadContentRequest { digest: "abc".into(), ..ReadContentRequest::default() };
    assert_eq!(content.clone().read(in_namespace(nonsense)).await.unwrap_err().code(), Code::InvalidArgument);
}

/// Content that counts what is asked of it, and whose list has no end.
struct Counting {
    host: Arc<dyn Host>,
    opened: Arc<AtomicUsize>,
    listed: Arc<AtomicUsize>,
}

#[async_trait]
impl Host for Counting {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        let services = self.host.services(scope).await?;
        let (opened, listed) = (self.opened.clone(), self.listed.clone());
        Ok(Services { content: Arc::new(Counted { store: services.content.clone(), opened, listed }), ..services })
    }
}

struct Counted {
    store: Arc<dyn Store>,
    opened: Arc<AtomicUsize>,
    listed: Arc<AtomicUsize>,
}

#[async_trait]
impl Provider for Counted {
    async fn reader(&self, descriptor: &Descriptor) -> Result<Box<dyn ReaderAt>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.store.reader(descriptor).await
    }
}

#[async_trait]
impl Ingester for Counted {
    async fn writer(&self, ingest: &IngestRef, expected: Expected) -> Result<Box<dyn Writer>> {
        self.store.writer(ingest, expected).await
    }
}

#[async_trait]
impl Store for Counted {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.store.info(digest).await
    }

    fn list(&self, _: &[Filter]) -> Listing<Info> {
        let now = std::time::SystemTime::now();
        let info = Info {
            digest: Digest::sha256(b"x"),
            size: 1,
            created_at: now,
            updated_at: now,
            labels: Labels::new().with("key", "v".repeat(1_000)),
        };
        let listed = self.listed.clone();
        let count = move |info| {
            listed.fetch_add(1, Ordering::SeqCst);
            Ok(info)
        };
        stream::repeat(info).map(count).boxed()
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        self.store.update(info, mask).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.store.delete(digest).await
    }

    async fn status(&self, ingest: &IngestRef) -> Result<windlass_core::content::Status> {
        self.store.status(ingest).await
    }

    async fn statuses(&self, filters: &[Filter]) -> Result<Vec<windlass_core::content::Status>> {
        self.store.statuses(filters).await
    }

    async fn abort(&self, ingest: &IngestRef) -> Result<()> {
        self.store.abort(ingest).await
    }
}

fn counting() -> (Arc<dyn Host>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (opened, listed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = Counting { host: host(), opened: opened.clone(), listed: listed.clone() };
    (Arc::new(counting), opened, listed)
}

#[tokio::test]
async fn reads_that_follow_each_other_are_answered_from_a_few_calls() {
    let (host, opened, _) = counting();
    let bytes = sample(16 << 20);
    let blob = bring(&*host, &bytes).await;
    let services = Client::new(connect(&host).await).services(&Scope::default()).await.unwrap();
    let reader = services.content.reader(&blob).await.unwrap();
    let mut at = 0;
    while at < bytes.len() {
        let part = reader.read_at(at as u64, 32 << 10).await.unwrap();
        assert_eq!(part, bytes.slice(at..at + part.len()), "at {at}");
        at += part.len();
    }
    assert!(opened.load(Ordering::SeqCst) <= 6, "16 MiB took {opened:?} calls");
    // Elsewhere in between, and several at once.
    let (one, other) = tokio::join!(reader.read_at(5_000_000, 2_000_000), reader.read_at(7_000_000, 3));
    assert_eq!(one.unwrap(), bytes.slice(5_000_000..7_000_000));
    assert_eq!(other.unwrap(), bytes.slice(7_000_000..7_000_003));
    for offset in [7_000_000, 9_000_000, 1] {
        let part = reader.read_at(offset, 2_000_000).await.unwrap();
        let begin = usize::try_from(offset).unwrap();
        assert_eq!(part, bytes.slice(begin..begin + 2_000_000), "at {offset}");
    }
}

#[tokio::test]
async fn readers_that_are_left_in_the_middle_hold_up_nobody() {
    let host = host();
    let bytes = sample(8 << 20);
    let blob = bring(&*host, &bytes).await;
    let services = Client::new(connect(&host).await).services(&Scope::default()).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..100 {
        let reader = services.content.reader(&blob).await.unwrap();
        reader.read_at(0, 1_000).await.unwrap();
        assert_eq!(reader.read_at(1_000, 1_000).await.unwrap(), bytes.slice(1_000..2_000));
        readers.push(reader);
    }
    assert_eq!(services.content.info(&blob.digest).await.unwrap().size, blob.size);
}

#[tokio::test]
async fn a_list_stops_when_the_client_goes_away() {
    let (host, _, listed) = counting();
    let mut content = ContentClient::new(connect(&host).await);
    let mut pages = content.list(in_namespace(ListContentRequest::default())).await.unwrap().into_inner();
    assert_eq!(pages.message().await.unwrap().unwrap().info.len(), 100);
    let ahead = async || {
        let mut before = listed.load(Ordering::SeqCst);
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            match listed.load(Ordering::SeqCst) {
                now if now == before => return now,
                now => before = now,
            }
        }
    };
    // A record has a kilobyte: what is listed ahead of a client that does not read is what fits the windows.
    let unread = ahead().await;
    assert!(unread < 20_000, "{unread} records were listed for one page");
    drop(pages);
    let gone = ahead().await;
    assert!(gone < unread + 20_000, "{gone} records were listed for nobody");

    let services = Client::new(connect(&host).await).services(&Scope::default()).await.unwrap();
    let some: Vec<Info> = services.content.list(&[]).take(250).try_collect().await.unwrap();
    assert_eq!(some.len(), 250);
}
