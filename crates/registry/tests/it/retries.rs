//! What is tried again, how hosts that refuse are spared, and what several users of one remote share.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use windlass_core::remote::ByteRange;
use windlass_core::{Kind, MediaType};
use windlass_registry::{Anonymous, Certificate, Credentials, Known, Options, Remote, Retry};
use windlass_testkit::registry::{Auth, Bearer, Fake, Fault, Identity};

use crate::support::{
    OTHER_NAME, assert_says, blob_path, fetch, fetcher, noise, one_image, options, password, read, remote, remote_with,
    resolve,
};

const SECRET: &str = "hunter2-is-secret";

fn busy(headers: &[(&str, &str)]) -> Fault {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fault::Answer { status: 429, headers, body: "slow down".into() }
}

/// The same credentials for every host.
struct Same(Known);

#[async_trait::async_trait]
impl Credentials for Same {
    async fn of(&self, _host: &str, _repository: &str) -> windlass_core::Result<Known> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    for (fault, requests) in [
        (Fault::status(500, ""), 3),
        (Fault::status(503, ""), 3),
        (Fault::status(408, ""), 6),
        (Fault::Hangup, 3),
        (Fault::status(403, ""), 2),
        (Fault::status(501, ""), 2),
    ] {
        let (fake, reference, target) = one_image().await;
        fake.fault("/v2/", fault.clone());
        resolve(&remote(), &reference).await.unwrap_err();
        // Where a `HEAD` is refused, a `GET` decides.
        assert_eq!(fake.requests().len(), requests, "{fault:?}");
        fake.clear_faults();
        fake.fault_times("/v2/", fault.clone(), 2);
        if requests > 2 {
            assert_eq!(resolve(&remote(), &reference).await.unwrap().descriptor, target, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_registry_says_in_seconds_or_by_a_date_when_to_come_back() {
    let at = |seconds| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    // The registry's clock is years behind ours, and it says so.
    for headers in [vec![("retry-after", "1".to_owned())], vec![("retry-after", at(1001)), ("date", at(1000))]] {
        let (fake, reference, target) = one_image().await;
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fake.fault_times("/v2/", busy(&headers), 1);
        let began = Instant::now();
        assert_eq!(resolve(&remote(), &reference).await.unwrap().descriptor, target);
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1900), "{headers:?}: {took:?}");
    }
}

#[tokio::test]
async fn a_request_waits_for_its_turn_no_longer_than_its_patience() {
    let (fake, reference, _) = one_image().await;
    fake.fault("/v2/", busy(&[]));
    let retry =
        Retry { patience: Duration::from_millis(700), first_delay: Duration::from_millis(20), ..options().retry };
    let remote = Remote::new(Options { retry, ..options() }).unwrap();
    let began = Instant::now();
    let error =
        assert_says(resolve(&remote, &reference).await, Kind::ResourceExhausted, &[&fake.host(), "limits the rate"]);
    assert_eq!(error.code(), "rate-limited");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(error.trace()[0].retries >= 1, "{:?}", error.trace());
}

#[tokio::test]
async fn whoever_asks_a_host_waits_when_another_one_was_refused_and_other_hosts_are_asked_at_once() {
    let (fake, reference, _) = one_image().await;
    let (_elsewhere, other, _) = one_image().await;
    fake.fault_times("/v2/", busy(&[("retry-after", "1")]), 1);
    let remote = remote();
    let mine = remote.with_credentials(Arc::new(Anonymous));
    let began = Instant::now();
    let first = async {
        resolve(&remote, &reference).await.unwrap();
        began.elapsed()
    };
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        resolve(&mine, &other).await.unwrap();
        let elsewhere = began.elapsed();
        resolve(&mine, &reference).await.unwrap();
        (elsewhere, began.elapsed())
    };
    let (first, (elsewhere, second)) = tokio::join!(first, second);
    assert!(first >= Duration::from_secs(1) && second >= Duration::from_secs(1), "{first:?} {second:?}");
    assert!(elsewhere < Duration::from_millis(800), "{elsewhere:?}");
    assert_eq!(fake.requests().len(), 3, "nobody tried before it was time");
}

#[tokio::test]
async fn what_a_host_says_of_a_quota_is_known_and_one_that_is_used_up_is_not_waited_for() {
    let (fake, reference, _) = one_image().await;
    let remote = remote();
    assert_eq!(remote.balance(&fake.host()), None);
    fake.fault("/v2/", Fault::header("ratelimit-limit", "100;w=21600"));
    fake.fault("/v2/", Fault::header("ratelimit-remaining", "42;w=21600"));
    resolve(&remote, &reference).await.unwrap();
    let balance = remote.balance(&fake.host()).unwrap();
    assert_eq!(
        (balance.limit, balance.remaining, balance.window),
        (Some(100), Some(42), Some(Duration::from_hours(6)))
    );

    fake.clear_faults();
    fake.forget_requests();
    fake.fault("/v2/", busy(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")]));
    assert_says(resolve(&remote, &reference).await, Kind::ResourceExhausted, &["quota", "6h"]);
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn the_rest_of_a_blob_is_asked_for_of_the_version_that_has_begun() {
    let fake = Fake::start().await;
    let bytes = noise(300_000);
    let blob = fake.add_blob("a/b", MediaType::OCI_LAYER_GZIP, bytes.clone());
    fake.fault("/v2/", Fault::header("etag", "\"one\""));
    fake.fault_times("/v2/", Fault::TruncateAfter(100_000), 1);
    let remote = remote();
    let fetcher = fetcher(&remote, &format!("{}/a/b:1", fake.host())).await;
    let mut body = fetcher.fetch(&blob, ByteRange::default()).await.unwrap();
    while let Some(Ok(_)) = body.stream.next().await {}
    let rest = read(fetcher.fetch(&blob, ByteRange::from(100_000)).await.unwrap()).await.unwrap();
    assert!(rest == bytes[100_000..]);
    let asked: Vec<_> = fake.requests().iter().map(|request| request.header("if-range").map(str::to_owned)).collect();
    assert_eq!(asked, [None, Some("\"one\"".to_owned())]);

    // Another machine of the same name calls it otherwise, and so sends everything: that is no reason to take no parts of it.
    fake.clear_faults();
    fake.fault_times("/v2/", Fault::IgnoreRange, 1);
    fake.fault("/v2/", Fault::header("etag", "\"two\""));
    let whole = fetcher.fetch(&blob, ByteRange::from(100_000)).await.unwrap();
    assert_eq!(whole.offset, 0);
    assert!(read(whole).await.unwrap() == bytes);
    fake.forget_requests();
    let part = fetcher.fetch(&blob, ByteRange::from(200_000)).await.unwrap();
    assert_eq!(part.offset, 200_000);
    assert_eq!(fake.requests()[0].header("if-range"), None);
    assert_eq!(fetcher.origin(&blob.digest).unwrap().host, fake.host());
}

#[tokio::test]
async fn a_tls_connection_that_is_cut_off_in_the_middle_of_a_blob_is_an_error_that_passes() {
    for fault in [Fault::ResetAfter(100_000), Fault::TruncateAfter(100_000)] {
        let identity = Identity::new(&[OTHER_NAME]);
        let fake = Fake::start_tls(&identity).await;
        let bytes = noise(300_000);
        let blob = fake.add_blob("a/b", MediaType::OCI_LAYER_GZIP, bytes.clone());
        fake.fault_times("/v2/", fault.clone(), 1);
        let extra_roots = Certificate::from_pem(identity.authority_pem().as_bytes()).unwrap();
        let remote = Remote::new(Options { extra_roots, ..options() }).unwrap();
        let fetcher = fetcher(&remote, &format!("{OTHER_NAME}:{}/a/b:1", fake.port())).await;
        let mut body = fetcher.fetch(&blob, ByteRange::default()).await.unwrap();
        let mut received = Vec::new();
        let error = loop {
            match body.stream.next().await {
                Some(Ok(part)) => received.extend_from_slice(&part),
                Some(Err(error)) => break error,
                None => panic!("{fault:?}: it ended well after {} bytes", received.len()),
            }
        };
        assert_eq!(error.kind(), Kind::Unavailable, "{fault:?}: {error}");
        assert_eq!(error.trace().len(), 1, "{fault:?}: {:?}", error.trace());
        let from = received.len() as u64;
        received.extend(read(fetcher.fetch(&blob, ByteRange::from(from)).await.unwrap()).await.unwrap());
        assert!(received == bytes, "{fault:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_in_the_middle_of_a_blob_is_renewed() {
    let fake = Fake::start().await;
    fake.require(Auth::Bearer(Bearer::default()));
    let bytes = noise(300_000);
    let blob = fake.add_blob("a/b", MediaType::OCI_LAYER_GZIP, bytes.clone());
    fake.fault_times(blob_path("a/b", &blob), Fault::TruncateAfter(100_000), 2);
    let remote = remote();
    let fetcher = fetcher(&remote, &format!("{}/a/b:1", fake.host())).await;
    let mut body = fetcher.fetch(&blob, ByteRange::default()).await.unwrap();
    let mut received = Vec::new();
    while let Some(Ok(part)) = body.stream.next().await {
        received.extend_from_slice(&part);
    }
    assert_eq!(received.len(), 100_000);
    fake.revoke_tokens();
    received.extend(read(fetcher.fetch(&blob, ByteRange::from(100_000)).await.unwrap()).await.unwrap());
    assert!(received == bytes);
    assert_eq!(fake.count("/token"), 2);
}

#[tokio::test]
async fn one_remote_for_several_users_shares_connections_and_neither_credentials_nor_tokens() {
    let (fake, reference, target) = one_image().await;
    let user = Some(("user".to_owned(), SECRET.to_owned()));
    fake.require(Auth::Bearer(Bearer { anonymous: false, user, ..Bearer::default() }));
    let shared = remote();
    let mine = shared.with_credentials(Arc::new(Same(password("user", SECRET))));
    fetch(&mine, &reference, &target, ByteRange::default()).await.unwrap();
    let tokens = fake.count("/token");

    for other in [shared.clone(), mine.with_credentials(Arc::new(Anonymous)), remote_with(password("user", "wrong"))] {
        assert_says(resolve(&other, &reference).await, Kind::Unauthenticated, &[&fake.host()]);
    }
    let sent: Vec<_> = fake
        .requests()
        .iter()
        .skip(tokens + 2)
        .filter_map(|it| it.header("authorization").map(str::to_owned))
        .collect();
    assert!(sent.iter().all(|sent| !sent.starts_with("Bearer")), "{sent:?}");
    // The first one still has what is its own.
    fetch(&mine, &reference, &target, ByteRange::default()).await.unwrap();
    let connections: std::collections::BTreeSet<u64> =
        fake.requests().iter().map(|request| request.connection).collect();
    assert!(connections.len() <= 2, "{connections:?}: each remote of its own would have one");
}
