//! Groups: several mutations in one transaction.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures::TryStreamExt as _;
use windlass_core::container::{Container, Runtime};
use windlass_core::field::FieldMask;
use windlass_core::gc::Deletion;
use windlass_core::image::{Image, StoreExt as _};
use windlass_core::lease::{Resource, ResourceKind};
use windlass_core::{Descriptor, Error, Kind, Labels, Result, Scope, lease};
use windlass_store::{Group, Store};

use super::{blob_path, bring, leased, open, scope};

fn image(name: &str, content: &[u8]) -> Image {
    Image::new(name.parse().unwrap(), Descriptor::of("application/vnd.oci.image.manifest.v1+json", content))
}

fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        labels: Labels::new(),
        image: None,
        runtime: Runtime { name: "io.containerd.runc.v2".to_owned(), options: None },
        spec: None,
        snapshotter: None,
        snapshot_key: None,
        sandbox_id: None,
        extensions: BTreeMap::new(),
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
    }
}

async fn names(store: &Store) -> Vec<String> {
    let images: Vec<Image> = store.images(&scope("n")).list(&[]).try_collect().await.unwrap();
    images.iter().map(|image| image.name.to_string()).collect()
}

#[tokio::test]
async fn members_see_what_came_before_them_and_everybody_else_sees_all_or_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let scope = leased(&store, "n").await;
    let blob = bring(&*store.content(&scope), b"a blob", Labels::new()).await;
    let lease = scope.lease.clone().unwrap();
    let made = store
        .transact(&scope, {
            let (lease, digest) = (lease.clone(), blob.digest.clone());
            move |group| {
                group.create_image(&image("a", b"a blob"))?;
                group.put_image(&image("b", b"old"))?;
                group.put_image(&image("b", b"new"))?;
                group.create_container(&container("c"))?;
                let kept = group.create_lease(&lease::Options::default())?;
                let held = group.resources(&lease)?;
                for resource in &held {
                    group.add_resource(&kept.id, resource)?;
                }
                group.delete_lease(&lease)?;
                let mut info = group.content(&digest)?;
                info.labels.set("seen", "1");
                group.update_content(&info, &FieldMask::all())?;
                assert_eq!(group.image(&"b".parse()?)?.target.digest, image("b", b"new").target.digest);
                Ok((kept.id, held))
            }
        })
        .await
        .unwrap();

    assert_eq!(names(&store).await, ["a", "b"]);
    assert_eq!(store.containers(&scope).get("c").await.unwrap().id, "c");
    assert_eq!(store.content(&scope).info(&blob.digest).await.unwrap().labels.get("seen"), Some("1"));
    let (kept, held) = made;
    assert_eq!(held, [Resource { kind: ResourceKind::Content, id: blob.digest.to_string() }]);
    let leases = store.leases(&scope.namespace);
    assert_eq!(leases.resources(&kept).await.unwrap(), held);
    assert!(leases.resources(&lease).await.unwrap_err().is(Kind::NotFound));
}

#[tokio::test]
async fn a_member_that_fails_leaves_nothing_of_the_others() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let failures: [fn(&Group<'_>) -> Result<()>; 5] = [
        |group| group.create_image(&image("taken", b"2")).map(|_| ()),
        |group| group.delete_image(&"missing".parse()?),
        |group| group.update_container(&container("missing"), &FieldMask::all()).map(|_| ()),
        |group| group.delete_lease(&"missing".parse()?),
        |_| Err(Error::aborted("by the caller")),
    ];
    let namespaced = scope("n");
    store.images(&namespaced).put(&image("taken", b"1")).await.unwrap();
    for fail in failures {
        let failed = store.transact(&namespaced, move |group| {
            group.delete_image(&"taken".parse()?)?;
            group.create_image(&image("taken", b"1"))?;
            group.create_image(&image("new", b"1"))?;
            group.create_container(&container("new"))?;
            group.create_lease(&lease::Options { id: Some("new".parse()?), ..lease::Options::default() })?;
            fail(group)
        });
        failed.await.unwrap_err();
        assert_eq!(names(&store).await, ["taken"]);
        assert!(store.containers(&scope("n")).get("new").await.unwrap_err().is(Kind::NotFound));
        assert_eq!(store.leases(&scope("n").namespace).list(&[]).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_group_may_go_on_after_a_member_that_was_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let scope = scope("n");
    let group = store.transact(&scope, |group| {
        let refused = group.delete_image(&"missing".parse()?).unwrap_err();
        assert!(refused.is(Kind::NotFound));
        group.create_image(&image("a", b"1"))
    });
    group.await.unwrap();
    assert_eq!(names(&store).await, ["a"]);
}

#[tokio::test]
async fn a_group_that_panics_fails_alone_and_the_store_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let scope = scope("n");
    let panics = store.transact(&scope, |group| -> Result<()> {
        group.create_image(&image("a", b"1"))?;
        panic!("by design")
    });
    let images = store.images(&scope);
    let other = image("other", b"1");
    let (panicked, created) = futures::join!(panics, images.create(&other));
    assert!(panicked.unwrap_err().is(Kind::Internal));
    created.unwrap();
    assert_eq!(names(&store).await, ["other"]);
}

#[tokio::test]
async fn groups_at_the_same_time_do_not_mix() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let scope = scope("n");
    let groups = (0..32).map(|number| {
        store.transact(&scope, move |group| {
            group.create_image(&image(&format!("{number}-a"), b"1"))?;
            // Every other one fails, behind something that was written.
            if number % 2 == 1 {
                group.create_image(&image(&format!("{number}-a"), b"1"))?;
            }
            group.create_image(&image(&format!("{number}-b"), b"1"))
        })
    });
    let outcomes = futures::future::join_all(groups).await;
    assert!(outcomes.iter().enumerate().all(|(number, outcome)| outcome.is_ok() == (number % 2 == 0)));
    let mut expected: Vec<String> =
        (0..32).step_by(2).flat_map(|number| [format!("{number}-a"), format!("{number}-b")]).collect();
    expected.sort();
    assert_eq!(names(&store).await, expected);
}

#[tokio::test]
async fn blobs_that_a_group_deletes_lose_their_bytes_when_it_is_recorded() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let content = store.content(&scope("n"));
    let mine = bring(&*content, b"mine", Labels::new()).await;
    let shared = bring(&*content, b"shared", Labels::new()).await;
    bring(&*store.content(&scope("other")), b"shared", Labels::new()).await;
    let delete = {
        let digests = [mine.digest.clone(), shared.digest.clone()];
        move |group: &Group<'_>| digests.iter().try_for_each(|digest| group.delete_content(digest))
    };
    let failing = {
        let delete = delete.clone();
        move |group: &Group<'_>| delete(group).and_then(|()| Err::<(), _>(Error::aborted("by the caller")))
    };
    let path = |blob: &Descriptor| blob_path(root.path(), blob);

    store.transact(&scope("n"), failing).await.unwrap_err();
    assert!(path(&mine).exists() && path(&shared).exists());

    store.transact(&scope("n"), delete).await.unwrap();
    assert!(!path(&mine).exists() && path(&shared).exists());
}

#[tokio::test]
async fn a_group_whose_lease_is_gone_makes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let scope = leased(&store, "n").await;
    store.leases(&scope.namespace).delete(scope.lease.as_ref().unwrap(), Deletion::Background).await.unwrap();
    let created = store.transact(&scope, |group| group.create_image(&image("a", b"1"))).await;
    assert!(created.unwrap_err().is(Kind::NotFound));
    let fresh = Scope { namespace: "fresh".parse().unwrap(), ..scope.clone() };
    store.transact(&fresh, |group| group.create_image(&image("a", b"1"))).await.unwrap_err();
    assert_eq!(store.namespaces().labels(&fresh.namespace).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn labels_over_the_limit_are_refused_in_a_group_as_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let labels = Labels::new().with("key", "v".repeat(4096));
    let scope = scope("n");
    let group =
        store.transact(&scope, move |group| group.create_image(&Image { labels: labels.clone(), ..image("a", b"1") }));
    assert!(group.await.unwrap_err().is(Kind::InvalidArgument));
    assert_eq!(names(&store).await, [""; 0]);
}
