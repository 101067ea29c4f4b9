//! Pulls that fail, or nearly: what is tried again, what is kept for the next time, and what is not.

use windlass_core::content::{ABANDONED_AFTER, Expected};
use windlass_core::remote::{ByteRange, Trouble};
use windlass_core::room::Free;
use windlass_core::{Digest, Kind};
use windlass_testkit::image::{Tamper, schema1};
use windlass_testkit::memory::Fault;
use windlass_transfer::pull::INTERRUPTED_LABEL;
use windlass_transfer::room::Verdict;
use windlass_transfer::{Content, Pull, Unpack, unfinished};

use crate::site::{Held, Site, three_layers};

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    site.remote.script(&large.digest, [Fault::Break(65_536), Fault::Break(131_072)]);

    let pulled = site.pull().await.unwrap();
    assert_eq!(
        site.remote.fetches(&large.digest),
        [ByteRange::from(0), ByteRange::from(65_536), ByteRange::from(131_072)]
    );
    assert_eq!(pulled.totals.downloaded, bundle.size());
    assert_eq!(pulled.totals.reused, 0);
}

#[tokio::test]
async fn a_remote_that_cannot_seek_sends_everything_again_and_the_result_is_right() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    site.remote.script(&large.digest, [Fault::Break(65_536), Fault::NoSeek]);

    let pulled = site.pull().await.unwrap();
    assert_eq!(pulled.totals.downloaded, bundle.size() + 65_536);
    assert_eq!(site.holds().await.snapshots, 3);
}

#[tokio::test]
async fn a_remote_that_leaves_out_bytes_is_not_believed_and_everything_is_fetched_again() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    site.remote.script(&large.digest, [Fault::Break(65_536), Fault::Late(10)]);
    site.pull().await.unwrap();
    assert_eq!(site.remote.fetches(&large.digest), [ByteRange::from(0), ByteRange::from(65_536), ByteRange::from(0)]);
    assert_eq!(site.holds().await.snapshots, 3);
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_stays_away_is_given_up_and_the_next_pull_continues() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    let away = std::iter::repeat_n(Fault::Fail(Kind::Unavailable), 4);
    site.remote.script(&large.digest, [Fault::Break(100_000)].into_iter().chain(away));

    let error = site.fail().await;
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&large.digest.to_string()), "{error}");
    let held = site.holds().await;
    assert_eq!((held.images, held.ingests, held.leases), (0, 1, 1), "{held:?}");

    let services = site.services().await;
    let left = unfinished::all(&services, &[]).await.unwrap();
    let lease = services.leases.list(&[]).await.unwrap().remove(0);
    assert_eq!((left.len(), &left[0].held_by, left[0].status.offset), (1, &vec![lease.id], 100_000));
    assert_eq!(left[0].pull.as_deref(), Some(site.reference.to_string().as_str()), "who may resume it");
    assert_eq!(left[0].expires_at, Some(left[0].status.updated_at + ABANDONED_AFTER).max(lease.expires_at));
    assert_eq!(unfinished::one(&services, &large.ingest_ref()).await.unwrap(), left[0]);

    let before = site.remote.bytes_sent();
    let pulled = site.pull().await.unwrap();
    assert_eq!(site.remote.bytes_sent() - before, large.size - 100_000);
    assert_eq!(pulled.totals.downloaded, large.size - 100_000);
    assert_eq!(site.holds().await.images, 1);
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_nothing_is_left() {
    let bundle = three_layers().build();
    let large = bundle.image().layers[1].clone();
    let manifest = &bundle.root.digest;
    let cases: [(&Digest, Fault); 4] = [
        (&large.digest, Fault::Corrupt(150_000)),
        (&large.digest, Fault::Append(1)),
        (manifest, Fault::Corrupt(10)),
        (manifest, Fault::Append(1)),
    ];
    for (digest, fault) in cases {
        let site = Site::serving(&bundle);
        site.remote.script(digest, [fault.clone()]);
        let error = site.fail().await;
        assert_eq!(error.kind(), Kind::DataLoss, "{fault:?}: {error}");
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
        assert_eq!(site.holds().await, Held::default(), "{fault:?}");
        assert_eq!(site.pull().await.unwrap().totals.downloaded, bundle.size(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_wrong_or_breaks_off_is_asked_for_elsewhere_once_for_each_other_place() {
    let bundle = three_layers().build();
    let large = bundle.image().layers[1].clone();
    let wrong = [Fault::Corrupt(150_000), Fault::Corrupt(20), Fault::Append(1), Fault::Corrupt(large.size - 1)];
    for content in [Content::Keep, Content::Drop] {
        let options = Pull { content, ..Pull::default() };
        for fault in wrong.clone() {
            let site = Site::serving(&bundle);
            site.remote.give_places(1);
            site.remote.script(&large.digest, [fault.clone()]);
            site.pull_with(&options).await.unwrap_or_else(|error| panic!("{content:?}, {fault:?}: {error}"));
            assert_eq!(site.remote.passed_over(), [(large.digest.clone(), Trouble::Wrong)]);
            assert_eq!(site.remote.fetches(&large.digest), [ByteRange::from(0); 2], "{content:?}, {fault:?}");
            assert_eq!(site.holds().await.snapshots, 3);

            let site = Site::serving(&bundle);
            site.remote.give_places(1);
            site.remote.script(&large.digest, [fault.clone(), fault.clone()]);
            let error = site.pull_with(&options).await.unwrap_err();
            assert_eq!(error.kind(), Kind::DataLoss, "{content:?}, {fault:?}: {error}");
            assert!(error.to_string().contains(&large.digest.to_string()), "{error}");
            assert_eq!(site.holds().await, Held::default(), "{content:?}, {fault:?}");
        }
        let site = Site::serving(&bundle);
        site.remote.give_places(1);
        site.remote.script(&large.digest, std::iter::repeat_n(Fault::Break(65_536), 6));
        site.pull_with(&options).await.unwrap();
        assert_eq!(site.remote.passed_over(), [(large.digest.clone(), Trouble::Broken)]);
        let fetches = site.remote.fetches(&large.digest);
        assert_eq!((fetches.len(), fetches[6]), (7, ByteRange::from(65_536)), "what came before is used");
        assert_eq!(site.holds().await.snapshots, 3);
    }
    let site = Site::serving(&bundle);
    site.remote.give_places(2);
    site.remote.script(&bundle.root.digest, [Fault::Corrupt(10), Fault::Append(1)]);
    site.pull().await.unwrap();
    assert_eq!(site.remote.passed_over(), [(); 2].map(|()| (bundle.root.digest.clone(), Trouble::Wrong)));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_an_earlier_pull_left_are_nobodys_fault() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    let services = site.services().await;
    let mut writer = services.content.writer(&large.ingest_ref(), Expected::from(large)).await.unwrap();
    writer.write(vec![7; 65_536].into()).await.unwrap();
    drop(writer);
    site.remote.give_places(1);
    site.pull().await.unwrap();
    assert_eq!(site.remote.passed_over(), []);
    assert_eq!(site.remote.fetches(&large.digest), [ByteRange::from(65_536), ByteRange::from(0)]);
}

#[tokio::test]
async fn images_whose_parts_contradict_each_other_are_refused_and_nothing_is_left() {
    let cases = [
        (Tamper::DiffId(1), Kind::DataLoss),
        (Tamper::LayerSize(1, 1_000), Kind::DataLoss),
        (Tamper::LayerSize(1, 1_000_000), Kind::DataLoss),
        (Tamper::LayerDigest(1), Kind::DataLoss),
        (Tamper::ConfigDigest, Kind::DataLoss),
        (Tamper::MissingDiffId, Kind::FailedPrecondition),
        (Tamper::Ambiguous, Kind::FailedPrecondition),
    ];
    for (tamper, kind) in cases {
        let site = Site::serving(&three_layers().tamper(tamper.clone()).build());
        let error = site.fail().await;
        assert_eq!(error.kind(), kind, "{tamper:?}: {error}");
        assert!(error.to_string().starts_with("pull registry.test/app:1: "), "{error}");
        assert_eq!(site.holds().await, Held::default(), "{tamper:?}");
    }
}

#[tokio::test]
async fn a_schema_1_manifest_is_refused_with_advice() {
    let site = Site::serving(&schema1("app", "1"));
    let error = site.fail().await;
    assert_eq!(error.kind(), Kind::Unimplemented, "{error}");
    assert!(error.hint_text().unwrap().contains("push the image again"), "{error:?}");
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn a_layer_of_an_unknown_type_is_refused_before_it_is_fetched_and_can_be_kept_without_unpacking() {
    let tamper = Tamper::LayerMediaType(1, "application/vnd.oci.image.layer.v1.tar+encrypted".to_owned());
    let bundle = three_layers().tamper(tamper).build();
    let site = Site::serving(&bundle);
    let error = site.fail().await;
    assert_eq!(error.kind(), Kind::Unimplemented);
    assert!(error.to_string().contains("tar+encrypted"), "{error}");
    assert!(error.hint_text().unwrap().contains("dist fetch"), "{error:?}");
    assert!(site.remote.fetches(&bundle.image().layers[0].digest).is_empty());
    assert_eq!(site.holds().await, Held::default());

    site.pull_with(&Pull { unpack: Unpack::No, ..Pull::default() }).await.unwrap();
    assert_eq!(site.holds().await, Held { blobs: 5, images: 1, ..Held::default() });
}

#[tokio::test]
async fn a_blob_that_the_remote_lacks_fails_the_pull_by_name() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let top = &bundle.image().layers[2];
    site.remote.withdraw(&top.digest);
    let error = site.fail().await;
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains(&format!("layer-{}", top.digest)), "{error}");
    assert_eq!(site.holds().await, Held::default());
}

#[tokio::test]
async fn a_reference_that_does_not_resolve_leaves_no_lease() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    site.remote.script_resolve([Fault::Fail(Kind::Unauthenticated)]);
    assert_eq!(site.fail().await.kind(), Kind::Unauthenticated);
    assert_eq!(site.holds().await, Held::default());
}

fn free(filesystem: &str, bytes: u64, inodes: Option<u64>) -> Free {
    Free { filesystem: filesystem.to_owned(), directory: "/host".to_owned(), bytes, inodes }
}

#[tokio::test]
async fn a_pull_that_cannot_fit_is_refused_before_anything_large_moves() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let (large, needed) = (&bundle.image().layers[1], 2 * bundle.image().layers.iter().map(|it| it.size).sum::<u64>());
    site.host.room().limit(Some(free("/dev/a", needed - 1, None)), Some(free("/dev/a", needed - 1, None)));
    let error = site.fail().await;
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    let said = error.to_string();
    assert!(said.contains("for 3 blobs and 3 layers below /host") && said.contains("free on /dev/a"), "{said}");
    assert!(site.remote.fetches(&large.digest).is_empty());
    let room = site.plan(&Pull::default()).await.unwrap().room.unwrap();
    assert_eq!((room.verdict, room.unpacked.at_least), (Verdict::TooLittle, needed / 2));

    // Whoever knows better may try.
    let tried = Site::serving(&bundle);
    tried.host.room().limit(Some(free("/dev/a", 0, None)), Some(free("/dev/a", 0, None)));
    tried.pull_with(&Pull { ignore_space: true, ..Pull::default() }).await.unwrap();

    // Blobs alone fit, and so does everything when there is a byte more, although it may become full.
    site.pull_with(&Pull { unpack: Unpack::No, ..Pull::default() }).await.unwrap();
    site.host.room().limit(None, Some(free("/dev/a", needed / 2, None)));
    assert_eq!(site.plan(&Pull::default()).await.unwrap().room.unwrap().verdict, Verdict::Tight);
    site.pull().await.unwrap();
    site.host.room().limit(Some(free("/dev/a", 0, Some(0))), Some(free("/dev/a", 0, Some(0))));
    assert_eq!(site.plan(&Pull::default()).await.unwrap().room.unwrap().verdict, Verdict::Fits);
    site.pull().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_pull_left_counts_as_here() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    let away = std::iter::repeat_n(Fault::Fail(Kind::Unavailable), 4);
    site.remote.script(&large.digest, [Fault::Break(100_000)].into_iter().chain(away));
    site.fail().await;
    let room = site.plan(&Pull::default()).await.unwrap().room.unwrap();
    assert_eq!((room.blobs, room.download), (1, large.size - 100_000));
}

#[tokio::test(start_paused = true)]
async fn however_often_a_pull_fails_one_lease_keeps_what_all_of_them_brought() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let large = &bundle.image().layers[1];
    for fault in [Fault::Break(50_000), Fault::Break(100_000)] {
        let away = std::iter::repeat_n(Fault::Fail(Kind::Unavailable), 4);
        site.remote.script(&large.digest, [fault].into_iter().chain(away));
        site.fail().await;
        let services = site.services().await;
        let leases = services.leases.list(&[]).await.unwrap();
        let [lease] = leases.as_slice() else { panic!("{leases:?}") };
        assert_eq!(lease.labels.get(INTERRUPTED_LABEL), Some("registry.test/app:1"));
        site.host.collect(&windlass_core::Namespace::default());
        assert_eq!(site.holds().await.ingests, 1);
    }
    // A plan looks, and leaves what is there to the next pull.
    site.plan(&Pull::default()).await.unwrap();
    assert_eq!((site.holds().await.ingests, site.holds().await.leases), (1, 1));
    site.remote.script(&large.digest, [Fault::Append(1), Fault::Append(1)]);
    site.fail().await;
    assert_eq!(site.holds().await, Held::default(), "damaged data leaves nothing, of earlier tries neither");
}
