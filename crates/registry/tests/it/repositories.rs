//! What is in a repository, and what is deleted from it.

use futures::TryStreamExt as _;
use windlass_core::{Kind, MediaType, Result};
use windlass_registry::Remote;
use windlass_testkit::registry::{DockerRegistry, Fake, Fault, Taking};

use crate::sample;
use crate::support::{assert_hints, assert_says, assert_tells, one_image, remote, resolve};

async fn tags(remote: &Remote, name: &str) -> Result<Vec<String>> {
    remote.tags(&name.parse().unwrap()).try_collect().await
}

#[tokio::test]
async fn tags_are_listed_page_by_page() {
    let fake = Fake::start().await;
    let name = format!("{}/a/b:1", fake.host());
    let remote = remote();
    let error = assert_says(tags(&remote, &name).await, Kind::NotFound, &["repository a/b", &fake.host()]);
    assert_tells(&error, "repository-not-found", &fake.host(), 404);
    let all: Vec<String> = (0..2500).map(|number| format!("t{number:04}")).collect();
    for tag in &all {
        fake.add_manifest("a/b", Some(tag), MediaType::OCI_INDEX, "{}");
    }
    fake.forget_requests();
    assert_eq!(tags(&remote, &name).await.unwrap(), all);
    assert_eq!(fake.count("/v2/a/b/tags/list"), 3);

    for (link, kind) in [
        ("</v2/a/b/tags/list?n=1000>; rel=\"next\"".to_owned(), Kind::ResourceExhausted),
        ("<http://other.test/x>; rel=\"next\"".to_owned(), Kind::FailedPrecondition),
    ] {
        fake.fault("/v2/a/b/tags", Fault::header("link", link));
        assert_says(tags(&remote, &name).await, kind, &["list of tags", "a/b", &fake.host()]);
    }
    fake.clear_faults();
    fake.fault("/v2/a/b/tags", Fault::Bytes("<html>".into()));
    assert_says(tags(&remote, &name).await, Kind::Unavailable, &["malformed"]);
}

#[tokio::test]
async fn a_tag_or_a_manifest_is_deleted() {
    let (fake, name, target) = one_image().await;
    let remote = remote();
    let delete = async |name: &str| remote.delete(&name.parse().unwrap()).await;
    let error = assert_says(delete(&name).await, Kind::Unimplemented, &["does not delete tag \"1\"", &fake.host()]);
    assert_hints(&error, "NAME@DIGEST");
    fake.take(Taking { deletes_tags: true, ..Taking::default() });
    delete(&name).await.unwrap();
    assert!(fake.manifest("a/b", "1").is_none() && fake.manifest("a/b", &target.digest.to_string()).is_some());
    let by_digest = format!("{}/a/b@{}", fake.host(), target.digest);
    fake.fault_method("DELETE", "/v2/", Fault::error(405, "UNSUPPORTED", "off"), 1);
    let error = assert_says(delete(&by_digest).await, Kind::Unimplemented, &["does not delete"]);
    assert_hints(&error, "switched off");
    assert_tells(&error, "not-offered", &fake.host(), 405);
    delete(&by_digest).await.unwrap();
    assert_says(delete(&by_digest).await, Kind::NotFound, &[&target.digest.to_string()]);
    assert_says(delete(&format!("{name}@{}", target.digest)).await, Kind::InvalidArgument, &["a tag or a manifest"]);
}

#[tokio::test]
async fn a_real_registry_lists_and_deletes() {
    let (registry, sample) = (DockerRegistry::start(), sample::layout());
    registry.push_layout(format!("{}:multi", sample.path().display()), "a/b:7");
    registry.push_layout(format!("{}:single", sample.path().display()), "a/b:8");
    let remote = remote();
    let name = |object: &str| format!("{}/a/b{object}", registry.host());
    let mut found = tags(&remote, &name("")).await.unwrap();
    found.sort();
    assert_eq!(found, ["7", "8"]);
    remote.delete(&name(&format!("@{}", sample.index.digest)).parse().unwrap()).await.unwrap();
    assert_eq!(resolve(&remote, &name(":7")).await.unwrap_err().kind(), Kind::NotFound);
    // Of tags alone it knows nothing.
    let error = remote.delete(&name(":8").parse().unwrap()).await;
    assert_hints(
        &assert_says(error, Kind::Unimplemented, &["does not delete tag \"8\"", registry.host()]),
        "NAME@DIGEST",
    );
}
