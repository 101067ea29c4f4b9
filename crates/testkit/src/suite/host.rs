//! The suite of [`Host`]: what a namespace isolates and what a lease holds.

use std::collections::BTreeSet;

use bytes::Bytes;
use windlass_core::content::{self, Expected, IngesterExt as _};
use windlass_core::gc::{self, ChildKind, Deletion};
use windlass_core::image::{Image, StoreExt as _};
use windlass_core::lease::{self, ResourceKind};
use windlass_core::snapshot::{Commit, TARGET_LABEL};
use windlass_core::{Descriptor, Host, Kind, Labels, Leased, MediaType, Namespace, Scope, Services};

use super::{assert_kind, collect, parse};

/// Expands to the tests of a host; see [`suite`](crate::suite).
#[macro_export]
macro_rules! host_suite {
    ($name:ident, $make:expr $(, except [$($out:ident)*])? $(,)?) => {
        mod $name {
            use super::*;
            $crate::suite_cases!(host, dyn $crate::contract::Host, $make, [
                services_know_their_scope
                the_default_snapshotter_is_one_of_them
                records_of_one_namespace_are_invisible_in_another
                content_deleted_in_one_namespace_stays_in_another
                ingests_of_two_namespaces_do_not_meet
                snapshots_of_two_namespaces_do_not_meet
                a_namespace_comes_into_being_with_what_is_created_in_it
                a_namespace_that_is_not_empty_is_not_deleted
                a_lease_that_is_not_there_is_not_found
                a_lease_holds_what_is_created_in_its_scope
                a_lease_holds_what_was_found_in_its_scope
                a_lease_no_longer_holds_an_ingest_that_was_discarded
                released_content_goes_unless_an_image_refers_to_it
                snapshots_stay_while_something_refers_to_them
                what_another_lease_holds_stays
                what_tied_itself_to_something_stays_as_long
            ], except [$($($out)*)?]);
        }
    };
}

async fn services(host: &dyn Host, namespace: &str) -> Services {
    host.services(&parse::<Namespace>(namespace).into()).await.unwrap()
}

async fn leased(host: &dyn Host, namespace: &str) -> Leased {
    Leased::acquire(host, &parse(namespace), lease::Options::default()).await.unwrap()
}

fn blob(content: &'static str) -> (Descriptor, Bytes) {
    (Descriptor::of(MediaType::OCTET_STREAM, content.as_bytes()), Bytes::from_static(content.as_bytes()))
}

async fn bring(services: &Services, content: &'static str, labels: Labels) -> Descriptor {
    let (descriptor, bytes) = blob(content);
    services.content.write_blob(&descriptor, bytes, labels).await.unwrap();
    descriptor
}

async fn commit_snapshot(services: &Services, name: &str, parent: Option<&str>, labels: Labels) {
    let (_, snapshotter) = services.snapshotter(None).unwrap();
    let (active, parent) = (parse(&format!("active {name}")), parent.map(parse));
    snapshotter.prepare(&active, parent.as_ref(), Labels::new()).await.unwrap();
    snapshotter.commit(&parse(name), &active, Commit { labels, parent: None }).await.unwrap();
}

async fn has_snapshot(services: &Services, key: &str) -> bool {
    services.snapshotter(None).unwrap().1.stat(&parse(key)).await.is_ok()
}

pub async fn services_know_their_scope(host: &dyn Host) {
    let services = services(host, "mine").await;
    assert_eq!(services.scope, Scope { namespace: parse("mine"), lease: None });
    let leased = leased(host, "mine").await;
    assert_eq!(leased.scope, Scope { namespace: parse("mine"), lease: Some(leased.lease().clone()) });
}

pub async fn the_default_snapshotter_is_one_of_them(host: &dyn Host) {
    let services = services(host, "default").await;
    assert!(services.snapshotters.contains_key(&services.default_snapshotter));
    assert_kind(services.snapshotter(Some("none such")).map(|_| ()), Kind::NotFound, "snapshotter");
}

pub async fn records_of_one_namespace_are_invisible_in_another(host: &dyn Host) {
    let (one, two) = (services(host, "one").await, services(host, "two").await);
    let descriptor = bring(&one, "content", Labels::new().with("a", "1")).await;
    let image = one.images.create(&Image::new(parse("name"), descriptor.clone())).await.unwrap();
    let lease = one.leases.create(lease::Options::default()).await.unwrap();

    assert_kind(two.content.info(&descriptor.digest).await, Kind::NotFound, "info");
    assert!(collect(two.content.list(&[])).await.is_empty());
    assert_kind(two.images.get(&image.name).await, Kind::NotFound, "get");
    assert!(collect(two.images.list(&[])).await.is_empty());
    assert!(two.leases.list(&[]).await.unwrap().is_empty());
    assert_kind(two.leases.resources(&lease.id).await, Kind::NotFound, "resources");
    two.images.create(&Image::new(parse("name"), blob("other").0)).await.expect("the name is free here");
    assert_eq!(one.images.get(&image.name).await.unwrap(), image);
}

pub async fn content_deleted_in_one_namespace_stays_in_another(host: &dyn Host) {
    let (one, two) = (leased(host, "one").await, leased(host, "two").await);
    let descriptor = bring(&one, "content", Labels::new().with("in", "one")).await;
    bring(&two, "content", Labels::new()).await;
    let labels = two.content.info(&descriptor.digest).await.unwrap().labels;
    assert_eq!(labels.get("in"), None, "labels are not shared, as bytes are");
    one.content.delete(&descriptor.digest).await.unwrap();
    assert_kind(one.content.reader(&descriptor).await, Kind::NotFound, "reader");
    assert_eq!(two.content.reader(&descriptor).await.unwrap().size(), 7);
}

pub async fn ingests_of_two_namespaces_do_not_meet(host: &dyn Host) {
    let (one, two) = (leased(host, "one").await, leased(host, "two").await);
    let ingest = parse("same ref");
    let mut first = one.content.writer(&ingest, Expected::default()).await.unwrap();
    let mut second = two.content.writer(&ingest, Expected::default()).await.unwrap();
    first.write(Bytes::from_static(b"first")).await.unwrap();
    second.write(Bytes::from_static(b"2")).await.unwrap();
    assert_eq!(one.content.status(&ingest).await.unwrap().offset, 5);
    assert_eq!(two.content.status(&ingest).await.unwrap().offset, 1);
    drop(second);
    two.content.abort(&ingest).await.unwrap();
    assert_eq!(first.status().await.unwrap().offset, 5);
}

pub async fn snapshots_of_two_namespaces_do_not_meet(host: &dyn Host) {
    let (one, two) = (leased(host, "one").await, leased(host, "two").await);
    commit_snapshot(&one, "base", None, Labels::new()).await;
    assert!(!has_snapshot(&two, "base").await);
    let (_, snapshotter) = two.snapshotter(None).unwrap();
    let parent = parse("base");
    let prepared = snapshotter.prepare(&parse("k"), Some(&parent), Labels::new()).await;
    assert_kind(prepared, Kind::NotFound, "prepare on a parent of another namespace");
    commit_snapshot(&two, "base", None, Labels::new()).await;
    snapshotter.remove(&parse("base")).await.unwrap();
    assert!(has_snapshot(&one, "base").await);
}

pub async fn a_namespace_comes_into_being_with_what_is_created_in_it(host: &dyn Host) {
    let services = services(host, "implied").await;
    bring(&services, "content", Labels::new()).await;
    assert!(services.namespaces.list().await.unwrap().contains(&parse("implied")));
    assert!(services.namespaces.labels(&parse("implied")).await.unwrap().is_empty());
}

pub async fn a_namespace_that_is_not_empty_is_not_deleted(host: &dyn Host) {
    let services = services(host, "full").await;
    let namespace = parse("full");
    services.namespaces.create(&namespace, Labels::new()).await.unwrap();
    services.images.create(&Image::new(parse("name"), blob("content").0)).await.unwrap();
    assert_kind(services.namespaces.delete(&namespace).await, Kind::FailedPrecondition, "delete");
    services.images.delete(&parse("name"), Deletion::Synchronous).await.unwrap();
    services.namespaces.delete(&namespace).await.expect("an empty namespace is deleted");
}

pub async fn a_lease_that_is_not_there_is_not_found(host: &dyn Host) {
    let scope = Scope { namespace: parse("default"), lease: Some(parse("absent")) };
    // A host may look at once or when something is created.
    let services = match host.services(&scope).await {
        Ok(services) => services,
        Err(error) => return assert_eq!(error.kind(), Kind::NotFound, "{error:?}"),
    };
    let (descriptor, bytes) = blob("content");
    let written = services.content.write_blob(&descriptor, bytes, Labels::new()).await;
    assert_kind(written, Kind::NotFound, "a blob for an absent lease");
    let (_, snapshotter) = services.snapshotter(None).unwrap();
    let prepared = snapshotter.prepare(&parse("k"), None, Labels::new()).await;
    assert_kind(prepared, Kind::NotFound, "a snapshot for an absent lease");
}

pub async fn a_lease_holds_what_is_created_in_its_scope(host: &dyn Host) {
    let leased = leased(host, "default").await;
    let descriptor = bring(&leased, "content", Labels::new()).await;
    let ingest = leased.content.writer(&parse("open"), Expected::default()).await.unwrap();
    commit_snapshot(&leased, "committed", None, Labels::new()).await;
    let (name, snapshotter) = leased.snapshotter(None).unwrap();
    snapshotter.prepare(&parse("active"), None, Labels::new()).await.unwrap();

    let resources = leased.leases.resources(leased.lease()).await.unwrap();
    let held: BTreeSet<_> = resources.into_iter().map(|resource| (resource.kind, resource.id)).collect();
    let snapshots = ResourceKind::Snapshot(name.to_owned());
    for (kind, id) in [
        (ResourceKind::Content, descriptor.digest.to_string()),
        (ResourceKind::Ingest, "open".to_owned()),
        (snapshots.clone(), "committed".to_owned()),
        (snapshots, "active".to_owned()),
    ] {
        assert!(held.contains(&(kind.clone(), id.clone())), "{kind:?} {id} is not in {held:?}");
    }
    drop(ingest);
}

pub async fn a_lease_no_longer_holds_an_ingest_that_was_discarded(host: &dyn Host) {
    let (leased, other) = (leased(host, "default").await, leased(host, "default").await);
    let ingests = async || {
        let resources = leased.leases.resources(leased.lease()).await.unwrap();
        resources.into_iter().filter(|resource| resource.kind == ResourceKind::Ingest).count()
    };
    let (descriptor, bytes) = blob("content");
    let open = async |ingest: &str| {
        let mut writer = leased.content.writer(&parse(ingest), (&descriptor).into()).await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        writer
    };
    drop(open("aborted").await);
    assert_eq!(ingests().await, 1);
    leased.content.abort(&parse("aborted")).await.unwrap();
    assert_eq!(ingests().await, 0, "aborted");

    let late = open("late").await;
    bring(&other, "content", Labels::new()).await;
    assert_kind(late.commit(content::Commit::default()).await, Kind::AlreadyExists, "the later commit");
    assert_eq!(ingests().await, 0, "brought by somebody else");

    let mut wrong = leased.content.writer(&parse("wrong"), (&blob("right").0).into()).await.unwrap();
    wrong.write(Bytes::from_static(b"wrong")).await.unwrap();
    assert_kind(wrong.commit(content::Commit::default()).await, Kind::DataLoss, "the wrong bytes");
    assert_eq!(ingests().await, 0, "refused");
}

/// Otherwise what a pull relies on could be collected under its hands.
pub async fn a_lease_holds_what_was_found_in_its_scope(host: &dyn Host) {
    let (one, two) = (leased(host, "default").await, leased(host, "default").await);
    let (descriptor, _) = blob("content");
    bring(&one, "content", Labels::new()).await;
    commit_snapshot(&one, "target", None, Labels::new()).await;
    commit_snapshot(&one, "name", None, Labels::new()).await;

    let opened = two.content.writer(&parse("again"), (&descriptor).into()).await;
    assert_kind(opened, Kind::AlreadyExists, "a writer");
    let (_, snapshotter) = two.snapshotter(None).unwrap();
    let labels = Labels::new().with(TARGET_LABEL, "target");
    assert_kind(snapshotter.prepare(&parse("k"), None, labels).await, Kind::AlreadyExists, "prepare");
    snapshotter.prepare(&parse("late"), None, Labels::new()).await.unwrap();
    let committed = snapshotter.commit(&parse("name"), &parse("late"), Commit::default()).await;
    assert_kind(committed, Kind::AlreadyExists, "commit");

    let services = services(host, "default").await;
    one.release(Deletion::Synchronous).await.unwrap();
    services.content.info(&descriptor.digest).await.expect("the second lease holds what it found");
    assert!(has_snapshot(&services, "target").await && has_snapshot(&services, "name").await);
    two.release(Deletion::Synchronous).await.unwrap();
    assert!(!has_snapshot(&services, "target").await && !has_snapshot(&services, "name").await);
}

pub async fn released_content_goes_unless_an_image_refers_to_it(host: &dyn Host) {
    let leased = leased(host, "default").await;
    let child = bring(&leased, "child", Labels::new()).await;
    let label = gc::content_label(ChildKind::Layer, 0);
    let parent = bring(&leased, "parent", Labels::new().with(label, child.digest.to_string())).await;
    let stray = bring(&leased, "stray", Labels::new()).await;
    let rooted = bring(&leased, "rooted", Labels::new().with(gc::ROOT, "2020-01-01T00:00:00Z")).await;
    leased.images.put(&Image::new(parse("name"), parent.clone())).await.unwrap();

    let services = services(host, "default").await;
    leased.release(Deletion::Synchronous).await.unwrap();
    for kept in [&parent, &child, &rooted] {
        services.content.info(&kept.digest).await.expect("what is referred to stays");
    }
    assert_kind(services.content.info(&stray.digest).await, Kind::NotFound, "info of garbage");

    services.images.delete(&parse("name"), Deletion::Synchronous).await.unwrap();
    for gone in [&parent, &child] {
        assert_kind(services.content.info(&gone.digest).await, Kind::NotFound, "info of garbage");
    }
    services.content.info(&rooted.digest).await.expect("a root by label stays");
}

pub async fn snapshots_stay_while_something_refers_to_them(host: &dyn Host) {
    let leased = leased(host, "default").await;
    let snapshotter = leased.snapshotter(None).unwrap().0.to_owned();
    commit_snapshot(&leased, "base", None, Labels::new()).await;
    commit_snapshot(&leased, "top", Some("base"), Labels::new()).await;
    commit_snapshot(&leased, "stray", Some("base"), Labels::new()).await;
    let config = bring(&leased, "config", Labels::new().with(gc::snapshot_label(&snapshotter), "top")).await;
    leased.images.put(&Image::new(parse("name"), config)).await.unwrap();

    let services = services(host, "default").await;
    leased.release(Deletion::Synchronous).await.unwrap();
    assert!(has_snapshot(&services, "top").await && has_snapshot(&services, "base").await);
    assert!(!has_snapshot(&services, "stray").await, "garbage goes");
    services.images.delete(&parse("name"), Deletion::Synchronous).await.unwrap();
    assert!(!has_snapshot(&services, "top").await && !has_snapshot(&services, "base").await);
}

pub async fn what_another_lease_holds_stays(host: &dyn Host) {
    let (one, two) = (leased(host, "default").await, leased(host, "default").await);
    let descriptor = bring(&one, "content", Labels::new()).await;
    let resource = lease::Resource { kind: ResourceKind::Content, id: descriptor.digest.to_string() };
    two.leases.add_resource(two.lease(), &resource).await.unwrap();
    one.release(Deletion::Synchronous).await.unwrap();
    two.content.info(&descriptor.digest).await.expect("the second lease holds it");
    let services = services(host, "default").await;
    two.release(Deletion::Synchronous).await.unwrap();
    assert_kind(services.content.info(&descriptor.digest).await, Kind::NotFound, "info");
}

/// containerd's back references: the tied object names what it belongs to, which knows nothing of it.
pub async fn what_tied_itself_to_something_stays_as_long(host: &dyn Host) {
    let leased = leased(host, "default").await;
    let subject = bring(&leased, "subject", Labels::new()).await;
    let tie = |key: &str, to: String| Labels::new().with(key, to);
    let signature = bring(&leased, "signature", tie(gc::BREF_CONTENT, subject.digest.to_string())).await;
    let key = format!("{}.report", gc::BREF_IMAGE);
    let report = bring(&leased, "report", tie(&key, "name".to_owned())).await;
    let stray = bring(&leased, "stray", tie(gc::BREF_IMAGE, "another name".to_owned())).await;
    commit_snapshot(&leased, "cache", None, tie(gc::BREF_CONTENT, report.digest.to_string())).await;
    leased.images.put(&Image::new(parse("name"), subject)).await.unwrap();

    let services = services(host, "default").await;
    leased.release(Deletion::Synchronous).await.unwrap();
    for kept in [&signature, &report] {
        services.content.info(&kept.digest).await.expect("what it is tied to is here");
    }
    assert!(has_snapshot(&services, "cache").await);
    assert_kind(services.content.info(&stray.digest).await, Kind::NotFound, "what it is tied to is not here");

    services.images.delete(&parse("name"), Deletion::Synchronous).await.unwrap();
    for gone in [&signature, &report] {
        assert_kind(services.content.info(&gone.digest).await, Kind::NotFound, "info of garbage");
    }
    assert!(!has_snapshot(&services, "cache").await);
}
