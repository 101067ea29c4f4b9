//! The suite of [`namespace::Store`](windlass_core::namespace::Store). What makes a namespace non-empty is in the suite
//! of hosts.

use windlass_core::namespace::{Namespace, Store};
use windlass_core::{Kind, Labels};

use super::{assert_kind, parse};

/// Expands to the tests of a namespace store; see [`suite`](crate::suite).
#[macro_export]
macro_rules! namespace_suite {
    ($name:ident, $make:expr $(, except [$($out:ident)*])? $(,)?) => {
        mod $name {
            use super::*;
            $crate::suite_cases!(namespace, dyn $crate::contract::namespace::Store, $make, [
                a_namespace_is_created_with_its_labels
                a_taken_namespace_is_refused
                an_absent_namespace_is_not_found
                namespaces_are_listed_by_name
                a_label_is_set_replaced_and_removed
                a_label_of_a_namespace_that_is_not_there_is_not_found
                long_labels_of_a_namespace_are_refused
                a_deleted_namespace_is_gone
            ], except [$($($out)*)?]);
        }
    };
}

fn name(text: &str) -> Namespace {
    parse(text)
}

pub async fn a_namespace_is_created_with_its_labels(store: &dyn Store) {
    let labels = Labels::new().with("a", "1").with("b.c/d", "2");
    store.create(&name("k8s.io"), labels.clone()).await.unwrap();
    assert_eq!(store.labels(&name("k8s.io")).await.unwrap(), labels);
}

pub async fn a_taken_namespace_is_refused(store: &dyn Store) {
    store.create(&name("taken"), Labels::new().with("a", "1")).await.unwrap();
    assert_kind(store.create(&name("taken"), Labels::new()).await, Kind::AlreadyExists, "create");
    assert_eq!(store.labels(&name("taken")).await.unwrap().get("a"), Some("1"));
}

pub async fn an_absent_namespace_is_not_found(store: &dyn Store) {
    assert_kind(store.labels(&name("absent")).await, Kind::NotFound, "labels");
    assert_kind(store.set_label(&name("absent"), "a", "1").await, Kind::NotFound, "set_label");
    assert_kind(store.delete(&name("absent")).await, Kind::NotFound, "delete");
}

pub async fn namespaces_are_listed_by_name(store: &dyn Store) {
    for text in ["moby", "buildkit", "k8s.io"] {
        store.create(&name(text), Labels::new()).await.unwrap();
    }
    let listed: Vec<String> = store.list().await.unwrap().iter().map(ToString::to_string).collect();
    assert!(listed.is_sorted(), "{listed:?}");
    for text in ["moby", "buildkit", "k8s.io"] {
        assert_eq!(listed.iter().filter(|name| *name == text).count(), 1, "{text} in {listed:?}");
    }
}

pub async fn a_label_is_set_replaced_and_removed(store: &dyn Store) {
    let name = name("labelled");
    store.create(&name, Labels::new().with("kept", "1")).await.unwrap();
    store.set_label(&name, "a.b/c", "1").await.unwrap();
    store.set_label(&name, "a.b/c", "2").await.unwrap();
    assert_eq!(store.labels(&name).await.unwrap(), Labels::new().with("kept", "1").with("a.b/c", "2"));
    store.set_label(&name, "a.b/c", "").await.unwrap();
    store.set_label(&name, "never there", "").await.unwrap();
    assert_eq!(store.labels(&name).await.unwrap(), Labels::new().with("kept", "1"));
}

pub async fn a_label_of_a_namespace_that_is_not_there_is_not_found(store: &dyn Store) {
    assert_kind(store.set_label(&name("nowhere"), "a", "1").await, Kind::NotFound, "set_label");
    assert_kind(store.labels(&name("nowhere")).await, Kind::NotFound, "labels");
}

pub async fn long_labels_of_a_namespace_are_refused(store: &dyn Store) {
    let long = "v".repeat(Labels::MAX_LEN);
    let labels = Labels::new().with("key", long.clone());
    assert_kind(store.create(&name("long"), labels).await, Kind::InvalidArgument, "create");
    store.create(&name("long"), Labels::new()).await.unwrap();
    assert_kind(store.set_label(&name("long"), "key", &long).await, Kind::InvalidArgument, "set_label");
    assert!(store.labels(&name("long")).await.unwrap().is_empty());
}

pub async fn a_deleted_namespace_is_gone(store: &dyn Store) {
    store.create(&name("gone"), Labels::new().with("a", "1")).await.unwrap();
    store.delete(&name("gone")).await.unwrap();
    assert_kind(store.labels(&name("gone")).await, Kind::NotFound, "labels");
    assert!(!store.list().await.unwrap().contains(&name("gone")));
    store.create(&name("gone"), Labels::new()).await.unwrap();
    assert!(store.labels(&name("gone")).await.unwrap().is_empty(), "labels do not come back");
}
