//! The suite of [`container::Store`](windlass_core::container::Store).

use std::collections::BTreeSet;
use std::time::SystemTime;

use windlass_core::any::Any;
use windlass_core::container::{Container, Runtime, Store};
use windlass_core::field::FieldMask;
use windlass_core::{Kind, Labels};

use super::{assert_kind, assert_recent, collect, mask, parse};

/// Expands to the tests of a container store; see [`suite`](crate::suite).
#[macro_export]
macro_rules! container_suite {
    ($name:ident, $make:expr $(, except [$($out:ident)*])? $(,)?) => {
        mod $name {
            use super::*;
            $crate::suite_cases!(container, dyn $crate::contract::container::Store, $make, [
                a_created_container_is_found_by_its_identity
                an_absent_container_is_not_found
                a_taken_identity_of_a_container_is_refused
                an_identity_out_of_the_rule_is_refused
                the_store_sets_the_times_of_a_container
                containers_by_filter
                update_of_a_container_with_an_empty_mask
                update_of_a_container_by_mask
                update_of_an_unknown_field_of_a_container_is_refused
                update_of_an_absent_container_is_not_found
                long_labels_of_a_container_are_refused
                a_deleted_container_is_gone
            ], except [$($($out)*)?]);
        }
    };
}

fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        labels: Labels::new().with("a", "1").with("b", "2"),
        image: Some(parse("docker.io/library/redis:7")),
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: Some(Any::new("options", &b"o"[..])) },
        spec: Some(Any::new("spec", &b"{}"[..])),
        snapshotter: Some("overlayfs".into()),
        snapshot_key: Some(parse("key")),
        sandbox_id: Some("sandbox".into()),
        extensions: [("x.y/z".to_owned(), Any::new("extension", &b"\0\xff"[..]))].into(),
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
    }
}

/// Returns the record with the times of another, which the store sets.
fn at_times_of(container: Container, times: &Container) -> Container {
    Container { created_at: times.created_at, updated_at: times.updated_at, ..container }
}

pub async fn a_created_container_is_found_by_its_identity(store: &dyn Store) {
    let created = store.create(&container("c1")).await.unwrap();
    assert_eq!(created, at_times_of(container("c1"), &created));
    assert_eq!(store.get("c1").await.unwrap(), created);
}

pub async fn an_absent_container_is_not_found(store: &dyn Store) {
    assert_kind(store.get("absent").await, Kind::NotFound, "get");
    assert_kind(store.delete("absent").await, Kind::NotFound, "delete");
}

pub async fn a_taken_identity_of_a_container_is_refused(store: &dyn Store) {
    store.create(&container("taken")).await.unwrap();
    assert_kind(store.create(&container("taken")).await, Kind::AlreadyExists, "create");
}

pub async fn an_identity_out_of_the_rule_is_refused(store: &dyn Store) {
    for id in ["", "a/b", "a b", "-a", &"x".repeat(77)] {
        assert_kind(store.create(&container(id)).await, Kind::InvalidArgument, id);
    }
    assert!(collect(store.list(&[])).await.is_empty());
}

pub async fn the_store_sets_the_times_of_a_container(store: &dyn Store) {
    let before = SystemTime::now();
    let created = store.create(&container("times")).await.unwrap();
    assert_recent(created.created_at, before);
    assert_recent(created.updated_at, before);
    let updated = store.update(&container("times"), &mask(["labels"])).await.unwrap();
    assert_eq!(updated.created_at, created.created_at);
    assert!(updated.updated_at >= created.updated_at);
}

pub async fn containers_by_filter(store: &dyn Store) {
    for (id, team) in [("one", "db"), ("two", "web"), ("three", "db")] {
        let labels = Labels::new().with("org.example/team", team);
        store.create(&Container { labels, ..container(id) }).await.unwrap();
    }
    let ids = async |texts: &[&str]| {
        let filters: Vec<_> = texts.iter().map(|text| parse(text)).collect();
        collect(store.list(&filters)).await.into_iter().map(|container| container.id).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&[]).await.len(), 3);
    assert_eq!(ids(&[r#"labels."org.example/team"==db"#]).await, ["one", "three"].map(str::to_owned).into());
    assert_eq!(ids(&["id==one", "id==two"]).await, ["one", "two"].map(str::to_owned).into());
    assert_eq!(ids(&["runtime.name==io.containerd.runc.v2"]).await.len(), 3);
    assert!(ids(&["image==other"]).await.is_empty());
}

pub async fn update_of_a_container_with_an_empty_mask(store: &dyn Store) {
    store.create(&container("c1")).await.unwrap();
    let mut change = container("c1");
    change.labels = Labels::new().with("c", "3");
    change.spec = Some(Any::new("spec", &b"{\"changed\":true}"[..]));
    change.extensions.clear();
    let updated = store.update(&change, &FieldMask::all()).await.unwrap();
    assert_eq!(updated, at_times_of(change, &updated));
    assert_eq!(store.get("c1").await.unwrap(), updated);
}

pub async fn update_of_a_container_by_mask(store: &dyn Store) {
    store.create(&container("c1")).await.unwrap();
    let mut change = container("c1");
    change.labels = Labels::new().with("a", "changed").with("b", "ignored");
    change.spec = None;
    change.extensions.clear();
    let updated = store.update(&change, &mask(["labels.a"])).await.unwrap();
    let mut wanted = container("c1");
    wanted.labels = Labels::new().with("a", "changed").with("b", "2");
    assert_eq!(updated, at_times_of(wanted.clone(), &updated));
    let updated = store.update(&change, &mask(["extensions"])).await.unwrap();
    wanted.extensions.clear();
    assert_eq!(updated, at_times_of(wanted, &updated));
}

pub async fn update_of_an_unknown_field_of_a_container_is_refused(store: &dyn Store) {
    let before = store.create(&container("c1")).await.unwrap();
    let mut change = container("c1");
    change.labels = Labels::new();
    for unknown in ["id", "label", "created_at"] {
        assert_kind(store.update(&change, &mask(["labels", unknown])).await, Kind::InvalidArgument, unknown);
    }
    assert_eq!(store.get("c1").await.unwrap(), before);
}

pub async fn update_of_an_absent_container_is_not_found(store: &dyn Store) {
    assert_kind(store.update(&container("absent"), &FieldMask::all()).await, Kind::NotFound, "update");
}

pub async fn long_labels_of_a_container_are_refused(store: &dyn Store) {
    let labels = Labels::new().with("key", "v".repeat(Labels::MAX_LEN));
    let result = store.create(&Container { labels, ..container("labelled") }).await;
    assert_kind(result, Kind::InvalidArgument, "create");
}

pub async fn a_deleted_container_is_gone(store: &dyn Store) {
    store.create(&container("gone")).await.unwrap();
    store.delete("gone").await.unwrap();
    assert_kind(store.get("gone").await, Kind::NotFound, "get");
    store.create(&container("gone")).await.expect("the identity is free again");
}
