//! The remote serves what it was given and fails as its script says.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use windlass_core::content::Commit;
use windlass_core::remote::{ByteRange, Fetcher, Push, Resolver as _};
use windlass_core::{Descriptor, Kind, Reference, Result};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::memory::{Fault, Gate, Remote};

async fn serving() -> (Remote, Bundle, Arc<dyn Fetcher>) {
    let remote = Remote::new();
    let bundle = Image::new("linux/amd64").layer(Layer::new().file("f", vec![7; 50_000])).build();
    let reference: Reference = "registry.example/repo:tag".parse().unwrap();
    remote.serve(&reference, &bundle);
    let resolved = remote.resolve(&reference).await.unwrap();
    assert_eq!(resolved.descriptor, bundle.root);
    let fetcher = remote.fetcher(&resolved.name).await.unwrap();
    (remote, bundle, fetcher)
}

async fn fetch(fetcher: &Arc<dyn Fetcher>, descriptor: &Descriptor, range: ByteRange) -> Result<(u64, Vec<u8>)> {
    let body = fetcher.fetch(descriptor, range).await?;
    let chunks: Vec<Bytes> = body.stream.try_collect().await?;
    Ok((body.offset, chunks.concat()))
}

#[tokio::test]
async fn content_is_served_whole_and_in_ranges() {
    let (remote, bundle, fetcher) = serving().await;
    for (digest, bytes) in &bundle.blobs {
        let descriptor = Descriptor::new("application/octet-stream", digest.clone(), bytes.len() as u64);
        let (offset, whole) = fetch(&fetcher, &descriptor, ByteRange::default()).await.unwrap();
        assert_eq!((offset, whole.as_slice()), (0, &bytes[..]));
        let (offset, part) = fetch(&fetcher, &descriptor, ByteRange { start: 3, end: Some(9) }).await.unwrap();
        assert_eq!((offset, part.as_slice()), (3, &bytes[3..9]));
        let (_, none) = fetch(&fetcher, &descriptor, ByteRange::from(bytes.len() as u64)).await.unwrap();
        assert!(none.is_empty());
        let beyond = fetch(&fetcher, &descriptor, ByteRange::from(bytes.len() as u64 + 1)).await;
        assert_eq!(beyond.unwrap_err().kind(), Kind::OutOfRange);
        assert_eq!(remote.fetches(digest).len(), 4);
    }
    assert_eq!(remote.bytes_sent(), bundle.size() + 6 * bundle.blobs.len() as u64);
    assert_eq!((remote.resolves(), remote.most_at_once()), (1, 1));
}

#[tokio::test]
async fn manifests_are_resolved_by_digest_too() {
    let (remote, bundle, _) = serving().await;
    let by_digest = format!("registry.example/repo@{}", bundle.root.digest).parse().unwrap();
    assert_eq!(remote.resolve(&by_digest).await.unwrap().descriptor, bundle.root);
    let absent = "registry.example/repo:other".parse().unwrap();
    assert_eq!(remote.resolve(&absent).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_script_is_followed_once() {
    let (remote, bundle, fetcher) = serving().await;
    let layer = &bundle.image().layers[0];
    let right = bundle.blobs[&layer.digest].to_vec();
    remote.script(
        &layer.digest,
        [
            Fault::Fail(Kind::Unavailable),
            Fault::Truncate(10),
            Fault::Break(10),
            Fault::Corrupt(5),
            Fault::Append(3),
            Fault::NoSeek,
        ],
    );
    let all = ByteRange::default();
    assert_eq!(fetch(&fetcher, layer, all).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(fetch(&fetcher, layer, all).await.unwrap().1, right[..10]);
    assert_eq!(fetch(&fetcher, layer, all).await.unwrap_err().kind(), Kind::Unavailable);
    let corrupt = fetch(&fetcher, layer, all).await.unwrap().1;
    assert_eq!(corrupt.iter().zip(&right).filter(|(a, b)| a != b).count(), 1);
    assert_eq!(fetch(&fetcher, layer, all).await.unwrap().1.len(), right.len() + 3);
    assert_eq!(fetch(&fetcher, layer, ByteRange::from(20)).await.unwrap(), (0, right.clone()));
    assert_eq!(fetch(&fetcher, layer, ByteRange::from(20)).await.unwrap(), (20, right[20..].to_vec()));
}

#[tokio::test]
async fn a_gate_holds_an_answer_back() {
    let (remote, bundle, fetcher) = serving().await;
    let gate = Gate::new();
    let root = bundle.root.clone();
    remote.script(&root.digest, [Fault::Hold(gate.clone())]);
    let task = tokio::spawn(async move { fetch(&fetcher, &root, ByteRange::default()).await });
    while remote.fetches(&bundle.root.digest).is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!task.is_finished());
    gate.open();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_pushed_is_served() {
    let (remote, bundle, _) = serving().await;
    let pushed = Remote::new();
    let name = "other.example/repo:tag".parse().unwrap();
    let pusher = pushed.pusher(&name).await.unwrap();
    for (digest, bytes) in &bundle.blobs {
        let media_type = if *digest == bundle.root.digest { bundle.root.media_type.as_str() } else { "x/y" };
        let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
        let Push::Upload(mut writer) = pusher.push(&descriptor).await.unwrap() else { panic!("it is there") };
        writer.write(bytes.clone()).await.unwrap();
        writer.commit(Commit::default()).await.unwrap();
        assert!(matches!(pusher.push(&descriptor).await.unwrap(), Push::Exists));
    }
    assert_eq!(pushed.target("other.example/repo:tag").unwrap().digest, bundle.root.digest);
    assert_eq!(pushed.blob(&bundle.root.digest).await, remote.blob(&bundle.root.digest).await);
}
