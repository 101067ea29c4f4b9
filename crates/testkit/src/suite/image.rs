//! The suite of [`image::Store`](windlass_core::image::Store).

use std::time::{Duration, SystemTime};

use windlass_core::field::FieldMask;
use windlass_core::image::{Deletion, Image, Name, Store, StoreExt as _};
use windlass_core::{Descriptor, Kind, Labels, MediaType};

use super::{assert_kind, assert_recent, collect, mask, parse};

/// Expands to the tests of an image store; see [`suite`](crate::suite).
#[macro_export]
macro_rules! image_suite {
    ($name:ident, $make:expr $(, except [$($out:ident)*])? $(,)?) => {
        mod $name {
            use super::*;
            $crate::suite_cases!(image, dyn $crate::contract::image::Store, $make, [
                a_created_image_is_found_by_its_name
                a_target_is_recorded_with_what_its_referrer_says_of_it
                an_absent_image_is_not_found
                a_taken_name_is_refused
                any_name_is_only_a_name
                the_store_sets_the_times_of_an_image
                images_are_listed_by_name
                images_by_filter
                update_with_an_empty_mask_changes_target_and_labels
                update_changes_only_the_target_when_it_is_named
                update_changes_labels_by_mask
                update_changes_annotations_of_the_target_by_mask
                update_of_an_unknown_field_changes_nothing
                update_of_an_absent_image_is_not_found
                long_labels_of_an_image_are_refused
                a_deleted_image_is_gone
                delete_of_an_absent_image_is_not_found
                put_creates_and_then_points_elsewhere
            ], except [$($($out)*)?]);
        }
    };
}

fn target(content: &str) -> Descriptor {
    Descriptor::of(MediaType::OCI_MANIFEST, content.as_bytes())
}

fn image(name: &str, content: &str) -> Image {
    Image::new(parse(name), target(content))
}

pub async fn a_created_image_is_found_by_its_name(store: &dyn Store) {
    let mut image = image("docker.io/library/redis:7", "redis");
    image.labels = Labels::new().with("a", "1").with("b.c/d", "");
    image.target.annotations.insert("org.example.k".into(), "v".into());
    let created = store.create(&image).await.unwrap();
    assert_eq!((&created.name, &created.target, &created.labels), (&image.name, &image.target, &image.labels));
    assert_eq!(store.get(&image.name).await.unwrap(), created);
}

pub async fn a_target_is_recorded_with_what_its_referrer_says_of_it(store: &dyn Store) {
    let mut image = image("docker.io/library/redis:7", "redis");
    image.target.platform = Some(parse("linux/arm64"));
    image.target.urls.push("https://example.org/x".into());
    assert_eq!(store.create(&image).await.unwrap().target, image.target);
    assert_eq!(store.get(&image.name).await.unwrap().target, image.target);
}

pub async fn an_absent_image_is_not_found(store: &dyn Store) {
    assert_kind(store.get(&parse("absent")).await, Kind::NotFound, "get");
}

pub async fn a_taken_name_is_refused(store: &dyn Store) {
    let first = store.create(&image("name", "first")).await.unwrap();
    assert_kind(store.create(&image("name", "second")).await, Kind::AlreadyExists, "create");
    assert_eq!(store.get(&first.name).await.unwrap(), first);
}

pub async fn any_name_is_only_a_name(store: &dyn Store) {
    let longest = "x".repeat(Name::MAX_LEN);
    let odd = ["../../etc/passwd", "/", ".", "oci:/srv/images:7", "a b", "ä", "A", "a", "a@sha256:b", &longest];
    for name in odd {
        store.create(&image(name, name)).await.unwrap();
    }
    for name in odd {
        assert_eq!(store.get(&parse(name)).await.unwrap().target, target(name), "{name:?}");
    }
    assert_eq!(collect(store.list(&[])).await.len(), odd.len());
}

pub async fn the_store_sets_the_times_of_an_image(store: &dyn Store) {
    let before = SystemTime::now();
    let mut image = image("times", "1");
    image.created_at = SystemTime::UNIX_EPOCH;
    image.updated_at = SystemTime::now() + Duration::from_hours(24);
    let created = store.create(&image).await.unwrap();
    assert_recent(created.created_at, before);
    assert_recent(created.updated_at, before);
    let updated = store.update(&image, &FieldMask::all()).await.unwrap();
    assert_eq!(updated.created_at, created.created_at);
    assert!(updated.updated_at >= created.updated_at);
    assert_recent(updated.updated_at, before);
}

async fn names(store: &dyn Store, texts: &[&str]) -> Vec<String> {
    let filters: Vec<_> = texts.iter().map(|text| parse(text)).collect();
    collect(store.list(&filters)).await.into_iter().map(|image| image.name.into()).collect()
}

pub async fn images_are_listed_by_name(store: &dyn Store) {
    for name in ["b:1", "a:2", "c", "a:10", "a"] {
        store.create(&image(name, name)).await.unwrap();
    }
    assert_eq!(names(store, &[]).await, ["a", "a:10", "a:2", "b:1", "c"]);
}

pub async fn images_by_filter(store: &dyn Store) {
    for (name, team) in [("docker.io/library/redis:7", "db"), ("docker.io/library/nginx:1", "web"), ("other", "db")] {
        let mut image = image(name, name);
        image.labels = Labels::new().with("org.example/team", team);
        store.create(&image).await.unwrap();
    }
    let digest = format!("target.digest=={}", target("other").digest);
    assert_eq!(names(store, &["name==other"]).await, ["other"]);
    assert_eq!(names(store, &["name~=redis|nginx"]).await, ["docker.io/library/nginx:1", "docker.io/library/redis:7"]);
    assert_eq!(names(store, &[r#"labels."org.example/team"==db,name~=docker"#]).await, ["docker.io/library/redis:7"]);
    assert_eq!(names(store, &[&digest, "name~=nginx"]).await, ["docker.io/library/nginx:1", "other"]);
    assert!(names(store, &["name==none"]).await.is_empty());
}

pub async fn update_with_an_empty_mask_changes_target_and_labels(store: &dyn Store) {
    let mut before = image("name", "old");
    before.labels = Labels::new().with("a", "1").with("b", "2");
    before.target.annotations.insert("old".into(), "1".into());
    store.create(&before).await.unwrap();
    let mut change = image("name", "new");
    change.labels = Labels::new().with("c", "3");
    let updated = store.update(&change, &FieldMask::all()).await.unwrap();
    assert_eq!((&updated.target, &updated.labels), (&change.target, &change.labels));
    assert_eq!(store.get(&updated.name).await.unwrap(), updated);
}

pub async fn update_changes_only_the_target_when_it_is_named(store: &dyn Store) {
    let mut before = image("name", "old");
    before.labels = Labels::new().with("a", "1");
    store.create(&before).await.unwrap();
    let mut change = image("name", "new");
    change.labels = Labels::new().with("a", "ignored");
    let updated = store.update(&change, &mask(["target"])).await.unwrap();
    assert_eq!((&updated.target, &updated.labels), (&change.target, &before.labels));
}

pub async fn update_changes_labels_by_mask(store: &dyn Store) {
    let mut before = image("name", "old");
    before.labels = Labels::new().with("a.b/c", "1").with("b", "2").with("c", "3");
    store.create(&before).await.unwrap();
    let mut change = image("name", "ignored");
    change.labels = Labels::new().with("a.b/c", "changed").with("b", "ignored");
    let updated = store.update(&change, &mask(["labels.a.b/c", "labels.c"])).await.unwrap();
    assert_eq!(updated.labels, Labels::new().with("a.b/c", "changed").with("b", "2"));
    assert_eq!(updated.target, before.target);
    let updated = store.update(&change, &mask(["labels"])).await.unwrap();
    assert_eq!((&updated.target, &updated.labels), (&before.target, &change.labels));
}

pub async fn update_changes_annotations_of_the_target_by_mask(store: &dyn Store) {
    let annotated = |content: &str, pairs: &[(&str, &str)]| {
        let mut image = image("name", content);
        image.target.annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        image
    };
    let before = annotated("old", &[("a.b", "1"), ("b", "2")]);
    store.create(&before).await.unwrap();
    let change = annotated("ignored", &[("a.b", "changed"), ("b", "ignored"), ("c", "new")]);
    let updated = store.update(&change, &mask(["annotations.a.b", "annotations.c"])).await.unwrap();
    assert_eq!(updated.target, annotated("old", &[("a.b", "changed"), ("b", "2"), ("c", "new")]).target);
    let updated = store.update(&change, &mask(["annotations"])).await.unwrap();
    assert_eq!(updated.target.annotations, change.target.annotations);
    assert_eq!(updated.target.digest, before.target.digest);
}

pub async fn update_of_an_unknown_field_changes_nothing(store: &dyn Store) {
    let before = store.create(&image("name", "old")).await.unwrap();
    let mut change = image("name", "new");
    change.labels = Labels::new().with("a", "1");
    for unknown in ["name", "label", "target.digest", "created_at"] {
        let result = store.update(&change, &mask(["labels", "target", unknown])).await;
        assert_kind(result, Kind::InvalidArgument, unknown);
    }
    assert_eq!(store.get(&before.name).await.unwrap(), before);
}

pub async fn update_of_an_absent_image_is_not_found(store: &dyn Store) {
    assert_kind(store.update(&image("absent", "x"), &FieldMask::all()).await, Kind::NotFound, "update");
}

pub async fn long_labels_of_an_image_are_refused(store: &dyn Store) {
    let mut image = image("name", "x");
    image.labels = Labels::new().with("key", "v".repeat(Labels::MAX_LEN - 2));
    assert_kind(store.create(&image).await, Kind::InvalidArgument, "create");
    assert_kind(store.get(&image.name).await, Kind::NotFound, "get after a refused create");
    store.create(&Image { labels: Labels::new(), ..image.clone() }).await.unwrap();
    assert_kind(store.update(&image, &FieldMask::all()).await, Kind::InvalidArgument, "update");
}

pub async fn a_deleted_image_is_gone(store: &dyn Store) {
    for (name, deletion) in [("background", Deletion::Background), ("synchronous", Deletion::Synchronous)] {
        let image = image(name, "x");
        store.create(&image).await.unwrap();
        store.delete(&image.name, deletion).await.unwrap();
        assert_kind(store.get(&image.name).await, Kind::NotFound, "get");
        store.create(&image).await.expect("the name is free again");
    }
    store.delete(&parse("background"), Deletion::Synchronous).await.unwrap();
    assert_eq!(names(store, &[]).await, ["synchronous"]);
}

pub async fn delete_of_an_absent_image_is_not_found(store: &dyn Store) {
    for deletion in [Deletion::Background, Deletion::Synchronous] {
        assert_kind(store.delete(&parse("absent"), deletion).await, Kind::NotFound, "delete");
    }
}

pub async fn put_creates_and_then_points_elsewhere(store: &dyn Store) {
    let first = store.put(&image("name", "first")).await.unwrap();
    let second = store.put(&image("name", "second")).await.unwrap();
    assert_eq!((first.target, second.target.clone()), (target("first"), target("second")));
    assert_eq!(store.get(&second.name).await.unwrap(), second);
    assert_eq!(second.created_at, first.created_at);
}
