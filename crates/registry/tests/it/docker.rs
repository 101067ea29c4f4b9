//! Debian's `docker-registry`, filled by skopeo.

use windlass_core::remote::ByteRange;
use windlass_core::{Descriptor, Kind, MediaType};
use windlass_testkit::registry::DockerRegistry;

use crate::sample;
use crate::support::{assert_hints, assert_says, fetch, password, remote, remote_with, resolve};

#[tokio::test]
async fn an_index_and_all_below_it_come_out_as_they_went_in() {
    let (registry, sample) = (DockerRegistry::start(), sample::layout());
    registry.push_layout(format!("{}:multi", sample.path().display()), "a/b:7");
    let remote = remote();
    let name = format!("{}/a/b:7", registry.host());

    let resolved = resolve(&remote, &name).await.unwrap();
    assert_eq!(resolved.name.as_str(), name);
    assert_eq!(resolved.descriptor, sample.index);
    let by_digest = format!("{}/a/b@{}", registry.host(), sample.manifest.digest);
    assert_eq!(resolve(&remote, &by_digest).await.unwrap().descriptor, sample.manifest);

    for descriptor in [&sample.index, &sample.manifest, &sample.config, &sample.layer] {
        let (offset, size, bytes) = fetch(&remote, &name, descriptor, ByteRange::default()).await.unwrap();
        assert_eq!((offset, size), (0, Some(descriptor.size)), "{descriptor:?}");
        assert_eq!(Descriptor::of(descriptor.media_type.as_str(), &bytes), *descriptor);
    }
    // What is not known to be a manifest is found all the same.
    let opaque = Descriptor::new(MediaType::OCTET_STREAM, sample.manifest.digest.clone(), 0);
    let (_, _, bytes) = fetch(&remote, &name, &opaque, ByteRange::default()).await.unwrap();
    assert_eq!(bytes.len() as u64, sample.manifest.size);
}

#[tokio::test]
async fn parts_of_a_blob_are_those_that_were_asked_for() {
    let (registry, sample) = (DockerRegistry::start(), sample::layout());
    registry.push_layout(format!("{}:single", sample.path().display()), "a/b:7");
    let (remote, name) = (remote(), format!("{}/a/b:7", registry.host()));
    let size = sample.layer.size;
    for (start, end) in [(1, None), (size - 1, None), (0, Some(1)), (1000, Some(2000)), (1000, Some(size + 1000))] {
        let range = ByteRange { start, end };
        let (offset, whole, bytes) = fetch(&remote, &name, &sample.layer, range).await.unwrap();
        assert_eq!((offset, whole), (start, Some(size)));
        let expected = usize::try_from(start).unwrap()..usize::try_from(end.unwrap_or(size).min(size)).unwrap();
        assert_eq!(bytes, sample.layer_bytes[expected], "{range:?}");
    }
    let past = fetch(&remote, &name, &sample.layer, ByteRange::from(size + 1)).await;
    assert_says(past, Kind::OutOfRange, &[registry.host(), &sample.layer.digest.to_string()]);
}

#[tokio::test]
async fn a_docker_schema_2_image_is_what_it_is() {
    let (registry, sample) = (DockerRegistry::start(), sample::layout());
    registry.push_as_docker_schema_2(format!("{}:single", sample.path().display()), "a/b:docker");
    let (remote, name) = (remote(), format!("{}/a/b:docker", registry.host()));
    let target = resolve(&remote, &name).await.unwrap().descriptor;
    assert_eq!(target.media_type.as_str(), MediaType::DOCKER_MANIFEST);
    let (_, _, bytes) = fetch(&remote, &name, &target, ByteRange::default()).await.unwrap();
    assert_eq!(Descriptor::of(MediaType::DOCKER_MANIFEST, &bytes), target);
}

#[tokio::test]
async fn a_real_registry_is_asked_which_of_repository_and_tag_is_missing() {
    let (registry, sample) = (DockerRegistry::start(), sample::layout());
    registry.push_layout(format!("{}:single", sample.path().display()), "a/b:7");
    let (remote, host) = (remote(), registry.host());
    let error = assert_says(
        resolve(&remote, &format!("{host}/a/b:8")).await,
        Kind::NotFound,
        &["tag \"8\" is not in repository a/b", host],
    );
    assert_hints(&error, "the tags 7");
    assert_says(resolve(&remote, &format!("{host}/a/c:7")).await, Kind::NotFound, &["repository a/c is not at", host]);
    let missing = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"nowhere");
    assert_says(
        resolve(&remote, &format!("{host}/a/b@{}", missing.digest)).await,
        Kind::NotFound,
        &["is not in repository a/b", &missing.digest.to_string()],
    );
    let name = format!("{host}/a/b:7");
    assert_says(
        fetch(&remote, &name, &missing, ByteRange::default()).await,
        Kind::NotFound,
        &[&format!("blob {}", missing.digest), "repository a/b", host],
    );
}

#[tokio::test]
async fn a_real_registry_that_wants_a_password_gets_it() {
    let (registry, sample) = (DockerRegistry::start_with_password(), sample::layout());
    registry.push_layout(format!("{}:single", sample.path().display()), "a/b:7");
    let name = format!("{}/a/b:7", registry.host());
    let (user, secret) = registry.credentials().unwrap();

    let remote = remote_with(password(user, secret));
    assert_eq!(resolve(&remote, &name).await.unwrap().descriptor, sample.manifest);
    let (_, _, bytes) = fetch(&remote, &name, &sample.layer, ByteRange::default()).await.unwrap();
    assert_eq!(bytes, sample.layer_bytes);

    let anonymous = assert_says(
        resolve(&crate::support::remote(), &name).await,
        Kind::Unauthenticated,
        &[registry.host(), "wants credentials", "a/b"],
    );
    assert_hints(&anonymous, "dist login");
    let wrong = assert_says(
        resolve(&remote_with(password(user, "wrong horse")), &name).await,
        Kind::Unauthenticated,
        &[registry.host(), "refuses the credentials"],
    );
    assert!(!format!("{wrong:?}").contains("wrong horse"), "{wrong:?}");
}
