//! Pulls of a large layer in parts from a registry that misbehaves: whatever it does, what comes of it is right.

use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use tempfile::TempDir;
use windlass::core::progress::Tracker;
use windlass::core::{Descriptor, Digest, Error, Kind, Namespace, Platform, Reference, snapshot};
use windlass::registry::{Floor, Options, Remote, Retry, Timeouts};
use windlass::transfer::{self, Content, Parts, Pull, Pulled};
use windlass::{Engine, OVERLAYFS, core::Host as _};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::registry::{Fake, Fault, Recorded};

const REPOSITORY: &str = "hard/work";
const PART: u64 = 256 << 10;
/// How many cases there are at once: each is a pull with several connections.
const AT_ONCE: usize = 5;
/// How often a case is tried.
const TRIES: u32 = 4;
/// How each connection comes: slowly enough for more of them to be worth it.
const PACE: Fault = Fault::Trickle { piece: 32 << 10, pause: Duration::from_millis(8) };

/// What a registry does wrong to requests for parts; how often, after the first few; and whether it is still asked for
/// parts by the next pull.
struct Case {
    fault: Fault,
    times: usize,
    forgiven: bool,
}

fn case(fault: Fault, times: usize, forgiven: bool) -> Case {
    Case { fault, times, forgiven }
}

fn cases() -> Vec<Case> {
    let always = 1_000_000;
    let answer = |status, headers: &[(&str, &str)]| Fault::Answer {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: "no".into(),
    };
    vec![
        case(Fault::IgnoreRange, always, false),
        case(Fault::ShiftRange(1000), always, false),
        case(Fault::header("content-range", "bytes 0-99/100"), always, false),
        case(Fault::header("content-encoding", "gzip"), always, false),
        case(Fault::status(400, "no"), always, false),
        case(Fault::status(416, "no"), always, false),
        case(Fault::TruncateAfter(50_000), always, false),
        case(Fault::CorruptByte(5_000), 1, false),
        case(Fault::TruncateAfter(50_000), 1, true),
        case(Fault::ResetAfter(50_000), 2, true),
        case(Fault::Hangup, 1, true),
        case(Fault::StallAfter(1_000), 1, true),
        case(answer(503, &[]), 2, true),
        case(answer(429, &[("retry-after", "1")]), 2, true),
    ]
}

fn image(seed: u32) -> Bundle {
    let mut state = seed;
    let noise = (0..6 << 20).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    });
    Image::new(&Platform::host().to_string()).layer(Layer::new().file("noise", noise.collect::<Vec<u8>>())).build()
}

fn layer_of(bundle: &Bundle) -> &Descriptor {
    bundle.image().layers.first().unwrap()
}

/// Serves an image under a tag and returns its reference and the path of its layer.
fn serve(fake: &Fake, tag: &str, bundle: &Bundle) -> (Reference, String) {
    for (digest, bytes) in &bundle.blobs {
        if *digest == bundle.root.digest {
            fake.add_manifest(REPOSITORY, Some(tag), bundle.root.media_type.as_str(), bytes.clone());
        } else {
            fake.add_blob(REPOSITORY, "application/octet-stream", bytes.clone());
        }
    }
    let layer = format!("/v2/{REPOSITORY}/blobs/{}", layer_of(bundle).digest);
    fake.fault(&*layer, PACE);
    (format!("{}/{REPOSITORY}:{tag}", fake.host()).parse().unwrap(), layer)
}

fn remote() -> Remote {
    let retry = Retry { first_delay: Duration::from_millis(10), ..Retry::default() };
    let floor = Floor { rate: 20_000, over: Duration::from_secs(6) };
    Remote::new(Options { retry, timeouts: Timeouts { floor, ..Timeouts::default() }, ..Options::default() }).unwrap()
}

async fn pull(engine: &Engine, remote: &Remote, reference: &Reference, content: Content) -> Pulled {
    let parts = Parts { threshold: 1 << 20, size: PART, at_once: 4 };
    let options = Pull { parts, content, snapshotter: Some(OVERLAYFS.to_owned()), ..Pull::default() };
    transfer::pull(engine, &Namespace::default(), remote, reference, &options, &Tracker::new()).await.unwrap()
}

/// Checks that the snapshot is here, and the blob if it is to be, with its digest.
async fn check(engine: &Engine, bundle: &Bundle, content: Content) {
    let services = engine.services(&Namespace::default().into()).await.unwrap();
    let layer = layer_of(bundle);
    let name = snapshot::Name::from(bundle.image().chain_ids().first().unwrap());
    let info = services.snapshotters.get(OVERLAYFS).unwrap().stat(name.as_key()).await.unwrap();
    assert_eq!(info.state, snapshot::State::Committed);
    match windlass::core::content::ProviderExt::read_all(&*services.content, layer, u64::MAX).await {
        Ok(bytes) => assert_eq!((content, Digest::sha256(&bytes)), (Content::Keep, layer.digest.clone())),
        Err(error) => assert_eq!((content, error.kind()), (Content::Drop, Kind::NotFound)),
    }
    assert_eq!(services.content.statuses(&[]).await.unwrap(), []);
}

fn parts_of(fake: &Fake, path: &str) -> usize {
    let closed = |request: &Recorded| request.header("range").is_some_and(|range| !range.ends_with('-'));
    fake.requests().iter().filter(|request| request.path == path && closed(request)).count()
}

/// Pulls until it went as it was to go. What comes of a pull is right in any case; whether several parts at once are worth it
/// is measured on the way, and a machine that is busy with something else may spoil that.
async fn comes_right(case: Case) {
    let mut said = Ok(());
    for _ in 0..TRIES {
        said = Box::pin(goes_as_it_should(&case)).await;
        if said.is_ok() {
            return;
        }
    }
    panic!("{said:?}, {TRIES} times");
}

/// Pulls two layers, the second from a registry that is known; tells what was asked for that should not have been, or the other
/// way round.
async fn goes_as_it_should(case: &Case) -> Result<(), String> {
    let Case { fault, times, forgiven } = case;
    let root = TempDir::new().unwrap();
    let engine = Engine::open(root.path().join("root")).await.unwrap();
    let (fake, remote) = (Fake::start().await, remote());
    let (first, second) = (image(1), image(2));
    let (reference, layer) = serve(&fake, "1", &first);
    fake.fault_ranged_after(&*layer, fault.clone(), 2, *times);
    pull(&engine, &remote, &reference, Content::Keep).await;
    check(&engine, &first, Content::Keep).await;
    if parts_of(&fake, &layer) <= 2 {
        return Err(format!("{fault:?}: it never came in parts"));
    }

    let (reference, layer) = serve(&fake, "2", &second);
    pull(&engine, &remote, &reference, Content::Keep).await;
    check(&engine, &second, Content::Keep).await;
    match parts_of(&fake, &layer) {
        parts if !forgiven && parts > 0 => {
            Err(format!("{fault:?}: {parts} parts were asked for, and are not to be had"))
        }
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_registry_does_to_parts_the_layer_comes_right() {
    // They are begun as the stream asks for them.
    let cases = cases().into_iter().map(|case| tokio::spawn(comes_right(case)));
    futures::stream::iter(cases).buffer_unordered(AT_ONCE).for_each(async |ended| ended.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_is_not_kept_comes_right_too() {
    let faults =
        [Fault::TruncateAfter(600_000), Fault::ResetAfter(600_000), Fault::IgnoreRange, Fault::status(400, "no")];
    let drops = faults.map(|fault| {
        tokio::spawn(async move {
            let root = TempDir::new().unwrap();
            let engine = Engine::open(root.path().join("root")).await.unwrap();
            let (fake, bundle) = (Fake::start().await, image(3));
            let (reference, layer) = serve(&fake, "1", &bundle);
            // The first stream breaks, so that the next one asks for the rest.
            fake.fault_times(&*layer, Fault::TruncateAfter(400_000), 1);
            fake.fault_ranged_after(&*layer, fault, 0, 2);
            pull(&engine, &remote(), &reference, Content::Drop).await;
            check(&engine, &bundle, Content::Drop).await;
        })
    });
    futures::future::join_all(drops).await.into_iter().for_each(|ended| ended.unwrap());
}

/// Fetches a layer whose first stream breaks, from a registry that answers requests for the rest like this, so many times; returns
/// what came of it, how often the rest was asked for, and how long it took.
async fn interrupted_by(headers: &[(&str, &str)], times: usize) -> (Result<(), Error>, usize, Duration) {
    let root = TempDir::new().unwrap();
    let engine = Engine::open(root.path().join("root")).await.unwrap();
    let (fake, bundle) = (Fake::start().await, image(4));
    let (reference, layer) = serve(&fake, "1", &bundle);
    fake.clear_faults();
    fake.fault_times(&*layer, Fault::TruncateAfter(400_000), 1);
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    fake.fault_ranged_after(&*layer, Fault::Answer { status: 502, headers, body: "no".into() }, 0, times);
    let retry = Retry { attempts: 1, first_delay: Duration::from_millis(10), ..Retry::default() };
    let remote = Remote::new(Options { retry, ..Options::default() }).unwrap();
    let (options, tracker, began) = (Pull::default(), Tracker::new(), Instant::now());
    let fetched = transfer::fetch(&engine, &Namespace::default(), &remote, &reference, &options, &tracker).await;
    let is_rest = |request: &&Recorded| request.path == layer && request.header("range").is_some();
    (fetched.map(drop), fake.requests().iter().filter(is_rest).count(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_in_the_middle_of_a_layer_to_be_left_alone_is_left_alone() {
    let at =
        |seconds: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds));
    let (now, soon, late) = (at(0), at(1), at(3600));
    for headers in [&[("retry-after", "1")][..], &[("retry-after", &soon), ("date", &now)]] {
        let (fetched, asked, took) = interrupted_by(headers, 2).await;
        fetched.unwrap();
        assert_eq!(asked, 3);
        assert!(took >= Duration::from_secs(2), "{took:?}");
    }
    for headers in [&[("retry-after", "3600")][..], &[("retry-after", &late), ("date", &now)]] {
        let (fetched, asked, _) = interrupted_by(headers, 100).await;
        assert_eq!(fetched.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(asked, 1, "nobody waits for that long, and nobody asks before");
    }
}
