//! The suite of [`lease::Manager`](windlass_core::lease::Manager).

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use windlass_core::gc::{Deletion, EXPIRE};
use windlass_core::lease::{Id, Manager, Options, Resource, ResourceKind};
use windlass_core::{Digest, Kind, Labels, timestamp};

use super::{ROUNDING, assert_kind, assert_recent, parse};

/// Expands to the tests of a lease manager; see [`suite`](crate::suite).
#[macro_export]
macro_rules! lease_suite {
    ($name:ident, $make:expr $(, except [$($out:ident)*])? $(,)?) => {
        mod $name {
            use super::*;
            $crate::suite_cases!(lease, dyn $crate::contract::lease::Manager, $make, [
                a_lease_is_created_as_it_was_asked_for
                a_lease_without_an_identity_gets_a_new_one
                a_taken_identity_is_refused
                any_identity_is_only_a_name
                an_expiry_counts_from_now
                a_label_says_when_a_lease_ends
                leases_by_filter
                a_deleted_lease_is_gone
                delete_of_an_absent_lease_is_not_found
                every_kind_of_resource_is_held
                a_resource_added_twice_is_held_once
                a_resource_can_be_taken_out
                resources_of_one_lease_are_not_those_of_another
                an_absent_lease_holds_nothing
                a_lease_made_again_holds_nothing
                long_labels_of_a_lease_are_refused
            ], except [$($($out)*)?]);
        }
    };
}

fn named(id: &str) -> Options {
    Options { id: Some(parse(id)), ..Options::default() }
}

fn resources() -> Vec<Resource> {
    let resource = |kind, id: &str| Resource { kind, id: id.to_owned() };
    vec![
        resource(ResourceKind::Content, &Digest::sha256(b"x").to_string()),
        resource(ResourceKind::Ingest, "layer-sha256:abc"),
        resource(ResourceKind::Snapshot("overlayfs".into()), "some/key"),
        resource(ResourceKind::Snapshot("native".into()), "some/key"),
        resource(ResourceKind::Image, "docker.io/library/redis:7"),
    ]
}

async fn held(leases: &dyn Manager, id: &Id) -> BTreeSet<Resource> {
    let resources = leases.resources(id).await.unwrap();
    let count = resources.len();
    let set: BTreeSet<_> = resources.into_iter().collect();
    assert_eq!(set.len(), count, "a resource is listed twice");
    set
}

pub async fn a_lease_is_created_as_it_was_asked_for(leases: &dyn Manager) {
    let before = SystemTime::now();
    let labels = Labels::new().with("containerd.io/gc.flat", "x");
    let lease = leases.create(Options { labels: labels.clone(), ..named("mine") }).await.unwrap();
    assert_eq!((lease.id.as_str(), &lease.labels, lease.expires_at), ("mine", &labels, None));
    assert_recent(lease.created_at, before);
    assert_eq!(leases.list(&[]).await.unwrap(), [lease]);
}

pub async fn a_lease_without_an_identity_gets_a_new_one(leases: &dyn Manager) {
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let lease = leases.create(Options::default()).await.unwrap();
        let valid: Id = parse(lease.id.as_str());
        assert!(ids.insert(valid), "an identity was given twice");
    }
    assert_eq!(leases.list(&[]).await.unwrap().len(), 20);
}

pub async fn a_taken_identity_is_refused(leases: &dyn Manager) {
    leases.create(named("taken")).await.unwrap();
    assert_kind(leases.create(named("taken")).await, Kind::AlreadyExists, "create");
}

pub async fn any_identity_is_only_a_name(leases: &dyn Manager) {
    // The first are as containerd's clients make them up.
    let ids = ["280609800-_V5k", "907385507-WzZ_", "a--b", "a/b", "../a", "-", "a,b==\"c\" d\\e"];
    for id in ids {
        let lease = leases.create(named(id)).await.unwrap();
        assert_eq!(lease.id.as_str(), id);
        leases.add_resource(&lease.id, &resources()[0]).await.unwrap();
    }
    assert_eq!(leases.list(&[]).await.unwrap().len(), ids.len());
    for id in ids {
        assert_eq!(held(leases, &parse(id)).await.len(), 1, "{id}");
        leases.delete(&parse(id), Deletion::Background).await.unwrap();
    }
    assert!(leases.list(&[]).await.unwrap().is_empty());
}

pub async fn an_expiry_counts_from_now(leases: &dyn Manager) {
    let before = SystemTime::now();
    let hour = Duration::from_hours(1);
    let lease = leases.create(Options { expiry: Some(hour), ..Options::default() }).await.unwrap();
    let expires = lease.expires_at.expect("the lease expires");
    assert!(expires + ROUNDING >= before + hour && expires <= SystemTime::now() + hour + ROUNDING, "{expires:?}");
}

pub async fn a_label_says_when_a_lease_ends(leases: &dyn Manager) {
    let until = |time: &str| Options { labels: Labels::new().with(EXPIRE, time), ..named("labelled") };
    assert_kind(leases.create(until("soon")).await, Kind::InvalidArgument, "create");
    let lease = leases.create(until("2999-01-01T01:00:00+01:00")).await.unwrap();
    assert_eq!(lease.expires_at, timestamp::parse("2999-01-01T00:00:00Z"));
    assert_eq!(lease.labels, until("2999-01-01T01:00:00+01:00").labels);
}

pub async fn leases_by_filter(leases: &dyn Manager) {
    leases.create(Options { labels: Labels::new().with("a", "1"), ..named("one") }).await.unwrap();
    leases.create(Options { labels: Labels::new().with("a", "2"), ..named("two") }).await.unwrap();
    leases.create(named("three")).await.unwrap();
    let listed = async |texts: &[&str]| {
        let filters: Vec<_> = texts.iter().map(|text| parse(text)).collect();
        let leases = leases.list(&filters).await.unwrap();
        leases.into_iter().map(|lease| lease.id.to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(listed(&["labels.a"]).await, ["one", "two"].map(str::to_owned).into());
    assert_eq!(listed(&["labels.a==2", "id==three"]).await, ["two", "three"].map(str::to_owned).into());
    assert!(listed(&["id==none"]).await.is_empty());
}

pub async fn a_deleted_lease_is_gone(leases: &dyn Manager) {
    for deletion in [Deletion::Background, Deletion::Synchronous] {
        leases.create(named("gone")).await.unwrap();
        leases.delete(&parse("gone"), deletion).await.unwrap();
        assert!(leases.list(&[]).await.unwrap().is_empty());
    }
}

pub async fn delete_of_an_absent_lease_is_not_found(leases: &dyn Manager) {
    for deletion in [Deletion::Background, Deletion::Synchronous] {
        assert_kind(leases.delete(&parse("absent"), deletion).await, Kind::NotFound, "delete");
    }
}

pub async fn every_kind_of_resource_is_held(leases: &dyn Manager) {
    let id = leases.create(named("holder")).await.unwrap().id;
    for resource in resources() {
        leases.add_resource(&id, &resource).await.unwrap();
    }
    assert_eq!(held(leases, &id).await, resources().into_iter().collect());
}

pub async fn a_resource_added_twice_is_held_once(leases: &dyn Manager) {
    let id = leases.create(named("holder")).await.unwrap().id;
    for resource in resources().into_iter().chain(resources()) {
        leases.add_resource(&id, &resource).await.unwrap();
    }
    assert_eq!(held(leases, &id).await.len(), resources().len());
}

pub async fn a_resource_can_be_taken_out(leases: &dyn Manager) {
    let id = leases.create(named("holder")).await.unwrap().id;
    for resource in resources() {
        leases.add_resource(&id, &resource).await.unwrap();
    }
    let mut left: BTreeSet<_> = resources().into_iter().collect();
    for resource in resources() {
        leases.delete_resource(&id, &resource).await.unwrap();
        left.remove(&resource);
        assert_eq!(held(leases, &id).await, left);
    }
}

pub async fn resources_of_one_lease_are_not_those_of_another(leases: &dyn Manager) {
    let one = leases.create(named("a")).await.unwrap().id;
    let two = leases.create(named("a.b")).await.unwrap().id;
    let all = resources();
    leases.add_resource(&one, &all[0]).await.unwrap();
    leases.add_resource(&two, &all[1]).await.unwrap();
    assert_eq!(held(leases, &one).await, [all[0].clone()].into());
    leases.delete(&one, Deletion::Background).await.unwrap();
    assert_eq!(held(leases, &two).await, [all[1].clone()].into());
}

pub async fn an_absent_lease_holds_nothing(leases: &dyn Manager) {
    let absent = parse("absent");
    let resource = &resources()[0];
    assert_kind(leases.add_resource(&absent, resource).await, Kind::NotFound, "add_resource");
    assert_kind(leases.delete_resource(&absent, resource).await, Kind::NotFound, "delete_resource");
    assert_kind(leases.resources(&absent).await, Kind::NotFound, "resources");
}

pub async fn a_lease_made_again_holds_nothing(leases: &dyn Manager) {
    let id = leases.create(named("again")).await.unwrap().id;
    leases.add_resource(&id, &resources()[0]).await.unwrap();
    leases.delete(&id, Deletion::Background).await.unwrap();
    leases.create(named("again")).await.unwrap();
    assert!(held(leases, &id).await.is_empty());
}

pub async fn long_labels_of_a_lease_are_refused(leases: &dyn Manager) {
    let labels = Labels::new().with("key", "v".repeat(Labels::MAX_LEN));
    let options = Options { labels, ..named("labelled") };
    assert_kind(leases.create(options).await, Kind::InvalidArgument, "create");
    assert!(leases.list(&[]).await.unwrap().is_empty());
}
