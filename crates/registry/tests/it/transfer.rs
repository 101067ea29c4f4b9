//! Bodies that break off, stall or trickle, and many at once.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use windlass_core::remote::{ByteRange, Resolver as _};
use windlass_core::{Descriptor, Kind, MediaType};
use windlass_registry::{Floor, Options, Remote, Timeouts};
use windlass_testkit::registry::{Fake, Fault};

use crate::support::{assert_says, fetch, fetcher, impatient, noise, options, read, remote};

const SIZE: usize = 500_000;

async fn one_blob() -> (Fake, String, Descriptor, Vec<u8>) {
    let fake = Fake::start().await;
    let bytes = noise(SIZE);
    let descriptor = fake.add_blob("a/b", MediaType::OCI_LAYER_GZIP, bytes.clone());
    let name = format!("{}/a/b:1", fake.host());
    (fake, name, descriptor, bytes)
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_no_end() {
    for fault in [Fault::TruncateAfter(100_000), Fault::ResetAfter(100_000)] {
        let (fake, name, blob, bytes) = one_blob().await;
        fake.fault("/v2/", fault.clone());
        let mut body = fetcher(&remote(), &name).await.fetch(&blob, ByteRange::default()).await.unwrap();
        let mut received = Vec::new();
        let error = loop {
            match body.stream.next().await {
                Some(Ok(part)) => received.extend_from_slice(&part),
                Some(Err(error)) => break error,
                None => panic!("{fault:?}: the stream ended well after {} bytes", received.len()),
            }
        };
        // A reset may overtake bytes, but those that arrive are right.
        assert!(received.len() <= 100_000 && bytes.starts_with(&received), "{fault:?}: {}", received.len());
        assert_says::<()>(Err(error), Kind::Unavailable, &[&blob.digest.to_string(), &fake.host(), "bytes"]);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_without_an_announced_size_is_an_error_too() {
    let (fake, name, blob, _) = one_blob().await;
    fake.fault("/v2/", Fault::Unannounced);
    fake.fault("/v2/", Fault::TruncateAfter(1000));
    let fetched = fetch(&remote(), &name, &blob, ByteRange::default()).await;
    assert_says(fetched, Kind::Unavailable, &[&blob.digest.to_string(), &fake.host()]);
}

#[tokio::test]
async fn a_stalled_body_is_given_up_and_a_trickling_one_is_not() {
    let (fake, name, blob, bytes) = one_blob().await;
    fake.fault("/v2/", Fault::StallAfter(1000));
    let stalled = fetch(&impatient(), &name, &blob, ByteRange::default()).await;
    assert_says(stalled, Kind::DeadlineExceeded, &[&blob.digest.to_string(), &fake.host(), "0.3 s"]);

    fake.clear_faults();
    fake.fault("/v2/", Fault::Trickle { piece: 50_000, pause: Duration::from_millis(50) });
    let (_, _, received) = fetch(&impatient(), &name, &blob, ByteRange::default()).await.unwrap();
    assert_eq!(received, bytes);
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_unless_it_is_the_receiver_who_takes_his_time() {
    let (fake, name, blob, bytes) = one_blob().await;
    let floor = Floor { rate: 10_000, over: Duration::from_secs(1) };
    let remote = Remote::new(Options { timeouts: Timeouts { floor, ..options().timeouts }, ..options() }).unwrap();
    let fetcher = remote.fetcher(&name.parse().unwrap()).await.unwrap();
    let mut slow = fetcher.fetch(&blob, ByteRange::default()).await.unwrap();
    let mut received = Vec::new();
    while let Some(part) = slow.stream.next().await {
        received.extend_from_slice(&part.unwrap());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(received, bytes);

    fake.fault("/v2/", Fault::Trickle { piece: 100, pause: Duration::from_millis(50) });
    let trickling = fetch(&remote, &name, &blob, ByteRange::default()).await;
    assert_says(trickling, Kind::DeadlineExceeded, &[&blob.digest.to_string(), &fake.host(), "in 1 s"]);
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up() {
    let (fake, name, blob, _) = one_blob().await;
    fake.fault("/v2/", Fault::Silence);
    let silent = fetch(&impatient(), &name, &blob, ByteRange::default()).await;
    assert_says(silent, Kind::DeadlineExceeded, &[&fake.host(), "0.5 s"]);
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test]
async fn a_fetch_that_failed_continues_where_it_stopped() {
    let (fake, name, blob, bytes) = one_blob().await;
    fake.fault_times("/v2/", Fault::TruncateAfter(100_000), 1);
    let remote = remote();
    let fetcher = fetcher(&remote, &name).await;
    let mut received = Vec::new();
    let mut body = fetcher.fetch(&blob, ByteRange::default()).await.unwrap();
    while let Some(Ok(part)) = body.stream.next().await {
        received.extend_from_slice(&part);
    }
    assert_eq!(received.len(), 100_000);
    let rest = fetcher.fetch(&blob, ByteRange::from(received.len() as u64)).await.unwrap();
    assert_eq!(rest.offset, received.len() as u64);
    received.extend(read(rest).await.unwrap());
    assert_eq!(received, bytes);
}

#[tokio::test]
async fn wrong_bytes_pass_through_because_the_receiver_verifies() {
    let (fake, name, blob, bytes) = one_blob().await;
    fake.fault("/v2/", Fault::CorruptByte(7));
    let (_, _, received) = fetch(&remote(), &name, &blob, ByteRange::default()).await.unwrap();
    assert_eq!((received[7], &received[8..]), (!bytes[7], &bytes[8..]));
}

#[tokio::test]
async fn many_blobs_come_at_once_and_connections_are_kept() {
    let (fake, name, blob, bytes) = one_blob().await;
    fake.fault("/v2/", Fault::Trickle { piece: 250_000, pause: Duration::from_millis(50) });
    let remote = remote();
    let fetcher = fetcher(&remote, &name).await;
    let at_once = async || {
        let fetches = (0..8).map(|_| async { read(fetcher.fetch(&blob, ByteRange::default()).await.unwrap()).await });
        for received in futures::future::join_all(fetches).await {
            assert_eq!(received.unwrap(), bytes);
        }
    };
    at_once().await;
    at_once().await;
    let connections: BTreeSet<u64> = fake.requests().iter().map(|request| request.connection).collect();
    assert_eq!(fake.requests().len(), 16);
    assert_eq!(connections.len(), 8, "{connections:?}");
}
