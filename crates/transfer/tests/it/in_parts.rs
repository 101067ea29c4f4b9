//! Large blobs that are fetched in parts.

use std::time::Duration;

use windlass_core::content::Expected;
use windlass_core::remote::ByteRange;
use windlass_core::{Descriptor, Kind};
use windlass_testkit::image::{Bundle, Image, Layer};
use windlass_testkit::memory::{Fault, Gate};
use windlass_transfer::{Parts, Pull};

use crate::site::{Site, noise};

const PART: u64 = 64 << 10;

fn large() -> Bundle {
    Image::new("linux/amd64").layer(Layer::new().file("noise", noise(1 << 20))).build()
}

fn options() -> Pull {
    Pull { parts: Parts { threshold: 4 * PART, size: PART, at_once: 4 }, ..Pull::default() }
}

/// A site with three lanes, whose first stream waits after 100,000 bytes, so that others come to its help; what comes
/// next goes as the script says.
fn site(bundle: &Bundle, script: impl IntoIterator<Item = Fault>) -> (Site, Descriptor) {
    let site = Site::serving(bundle);
    let layer = bundle.image().layers.first().unwrap().clone();
    site.remote.give_lanes(3);
    site.remote.script(&layer.digest, [Fault::HoldAfter(100_000, Gate::new())]);
    site.remote.script(&layer.digest, script);
    (site, layer)
}

#[tokio::test(start_paused = true)]
async fn a_large_blob_comes_in_parts_of_which_no_byte_comes_twice() {
    let bundle = large();
    let (site, layer) = site(&bundle, []);
    let pulled = site.pull_with(&options()).await.unwrap();
    assert_eq!(pulled.totals.downloaded, bundle.size());
    let fetches = site.remote.fetches(&layer.digest);
    assert_eq!(fetches[..2], [ByteRange::from(0), ByteRange { start: 100_000, end: Some(100_000 + PART) }]);
    assert!(fetches.len() as u64 > (layer.size - 100_000) / PART, "{fetches:?}");
    let ends = fetches.iter().filter(|range| range.end.is_none()).map(|range| range.start);
    assert!(
        ends.eq([0, fetches.iter().map(|range| range.start).max().unwrap()]),
        "all but the last are closed: {fetches:?}"
    );
    assert_eq!(site.remote.most_at_once(), 4);
    assert_eq!(site.holds().await.snapshots, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_lane_and_below_the_threshold_a_blob_comes_in_one_stream() {
    for (lanes, threshold) in [(0, 4 * PART), (3, 2 << 20)] {
        let bundle = large();
        let site = Site::serving(&bundle);
        let layer = &bundle.image().layers[0];
        site.remote.give_lanes(lanes);
        let gate = Gate::new();
        site.remote.script(&layer.digest, [Fault::HoldAfter(100_000, gate.clone())]);
        let options = Pull { parts: Parts { threshold, ..options().parts }, ..options() };
        let open = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            gate.open();
        };
        let (pulled, ()) = tokio::join!(site.pull_with(&options), open);
        pulled.unwrap();
        assert_eq!(site.remote.fetches(&layer.digest), [ByteRange::from(0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn parts_that_break_end_early_or_begin_elsewhere_are_fetched_again() {
    for fault in [
        Fault::Break(120_000),
        Fault::Truncate(120_000),
        Fault::Late(10),
        Fault::Fail(Kind::Unavailable),
        Fault::Fail(Kind::ResourceExhausted),
    ] {
        let bundle = large();
        let (site, layer) = site(&bundle, [fault.clone(), Fault::None, fault.clone()]);
        site.pull_with(&options()).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(site.holds().await.snapshots, 1, "{fault:?}");
        assert!(!site.remote.is_distrusted(), "{fault:?}");
        let all = site.remote.fetches(&layer.digest).iter().filter(|range| range.start == 0).count();
        assert_eq!(all, 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_sends_everything_for_a_part_is_asked_for_one_stream_and_gaps_are_filled_from_it() {
    let bundle = large();
    let (site, layer) = site(&bundle, [Fault::None, Fault::NoSeek, Fault::NoSeek, Fault::NoSeek, Fault::NoSeek]);
    site.pull_with(&options()).await.unwrap();
    assert_eq!(site.holds().await.snapshots, 1);
    let fetches = site.remote.fetches(&layer.digest);
    assert!(fetches.len() <= 7, "{fetches:?}");
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_sends_everything_for_one_part_is_asked_for_the_rest_at_once_whatever_the_other_parts_do() {
    for then in [Fault::None, Fault::NoSeek] {
        let bundle = large();
        let (site, layer) = site(&bundle, [Fault::HoldAfter(1_000, Gate::new()), Fault::NoSeek]);
        site.remote.give_lanes(1);
        site.remote.script(&layer.digest, [then]);
        let options = options();
        let pull = tokio::time::timeout(Duration::from_mins(10), site.pull_with(&options));
        pull.await.expect("it ends").unwrap();
        assert_eq!(site.holds().await.snapshots, 1);
        let fetches = site.remote.fetches(&layer.digest);
        assert_eq!(fetches.len(), 4, "{fetches:?}");
        let rest = fetches[3];
        assert_eq!(rest.end, None);
        assert!((100_000..=101_000).contains(&rest.start), "{fetches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn parts_that_do_not_make_up_the_blob_are_not_believed_and_one_stream_is_taken_instead() {
    let bundle = large();
    let (site, layer) = site(&bundle, [Fault::None, Fault::Corrupt(170_000)]);
    site.pull_with(&options()).await.unwrap();
    assert!(site.remote.is_distrusted());
    assert_eq!(site.remote.fetches(&layer.digest).last(), Some(&ByteRange::from(0)));
    assert_eq!(site.holds().await.snapshots, 1);
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_sends_everything_where_all_the_rest_was_asked_for_is_not_asked_again() {
    let bundle = large();
    let site = Site::serving(&bundle);
    let layer = &bundle.image().layers[0];
    site.remote.script(&layer.digest, [Fault::Break(100_000), Fault::NoSeek]);
    site.pull_with(&options()).await.unwrap();
    assert_eq!(site.remote.fetches(&layer.digest), [ByteRange::from(0), ByteRange::from(100_000)]);
    assert_eq!(site.holds().await.snapshots, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_left_damaged_is_fetched_again_and_says_nothing_of_the_parts_of_the_remote() {
    let bundle = large();
    let site = Site::serving(&bundle);
    let layer = &bundle.image().layers[0];
    site.remote.give_lanes(3);
    let services = site.services().await;
    let mut writer = services.content.writer(&layer.ingest_ref(), Expected::from(layer)).await.unwrap();
    writer.write(vec![7; 300_000].into()).await.unwrap();
    drop(writer);
    site.pull_with(&options()).await.unwrap();
    assert!(!site.remote.is_distrusted());
    assert_eq!(site.holds().await.snapshots, 1);
}

#[tokio::test(start_paused = true)]
async fn tries_of_which_each_brings_something_go_on_although_the_first_missing_byte_does_not_come() {
    let bundle = large();
    let some = || Fault::HoldAfter(1_000, Gate::new());
    // Each try ends when the part in front has failed three times.
    let ends = || [Fault::Truncate(0), some(), some(), some(), Fault::Truncate(0), Fault::Truncate(0)];
    let (site, layer) = site(&bundle, std::iter::repeat_with(ends).take(6).flatten());
    site.pull_with(&options()).await.unwrap();
    let front = site.remote.fetches(&layer.digest).into_iter().filter(|range| range.start == 100_000);
    assert_eq!(front.count(), 3 * 6 + 1);
    assert_eq!(site.holds().await.snapshots, 1);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_comes_much_more_slowly_than_the_others_is_asked_for_again() {
    let bundle = large();
    let (site, layer) = site(&bundle, [Fault::None, Fault::HoldAfter(1_000, Gate::new())]);
    site.pull_with(&options()).await.unwrap();
    let fetches = site.remote.fetches(&layer.digest);
    let stalled = fetches[2];
    let again = ByteRange { start: stalled.start + 1_000, ..stalled };
    assert!(fetches.contains(&again), "{fetches:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_parts_is_continued_by_the_next_pull() {
    let bundle = large();
    let away = std::iter::repeat_n(Fault::Fail(Kind::Unavailable), 40);
    let script = [Fault::None, Fault::Break(200_000), Fault::None, Fault::None].into_iter().chain(away);
    let (site, layer) = site(&bundle, script);
    assert_eq!(site.pull_with(&options()).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(site.holds().await.ingests, 1);
    let before = site.remote.bytes_sent();
    site.remote.forget_script(&layer.digest);
    let pulled = site.pull_with(&options()).await.unwrap();
    assert_eq!(site.remote.bytes_sent() - before, pulled.totals.downloaded);
    assert!(pulled.totals.downloaded + 2 * PART <= layer.size - 100_000, "{:?}", pulled.totals);
    assert_eq!(site.holds().await.snapshots, 1);
}
