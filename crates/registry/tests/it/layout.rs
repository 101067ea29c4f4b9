//! Directories in OCI layout as remotes.

use std::fs;
use std::os::unix::fs::symlink;

use windlass_core::content::Commit;
use windlass_core::remote::{ByteRange, Push, Resolver as _};
use windlass_core::{Descriptor, Kind, MediaType};

use crate::sample::{self, Sample};
use crate::support::{assert_hints, assert_says, fetch, remote, resolve};

async fn descriptor(reference: &str) -> Descriptor {
    let resolved = resolve(&remote(), reference).await.unwrap();
    assert_eq!(resolved.name.as_str(), reference);
    resolved.descriptor
}

fn bare(sample: &Sample) -> String {
    format!("oci:{}", sample.path().display())
}

#[tokio::test]
async fn a_tag_a_digest_and_the_only_entry_are_found() {
    let sample = sample::layout();
    assert_eq!(descriptor(&sample.reference("multi")).await, sample.index);
    assert_eq!(descriptor(&sample.reference("single")).await, sample.manifest);
    let by_digest = format!("{}@{}", bare(&sample), sample.manifest.digest);
    assert_eq!(descriptor(&by_digest).await, sample.manifest);
    // A tag that comes with a digest is a remark.
    let pinned = format!("{}@{}", sample.reference("multi"), sample.manifest.digest);
    assert_eq!(descriptor(&pinned).await, sample.manifest);

    sample.set_entries(&[(&sample.index, None)]);
    assert_eq!(descriptor(&bare(&sample)).await, sample.index);
    // Below the index, the entry of a manifest is not in index.json.
    assert_eq!(descriptor(&by_digest).await, sample.manifest);
}

#[tokio::test]
async fn the_beginning_of_a_digest_is_enough_when_it_is_the_only_one() {
    let sample = sample::layout();
    let digest = sample.manifest.digest.to_string();
    assert_eq!(descriptor(&format!("{}@{}", bare(&sample), &digest[..25])).await, sample.manifest);
    let many = resolve(&remote(), &format!("{}@sha256:", bare(&sample))).await;
    assert_says(many, Kind::InvalidArgument, &["digests in layout", "begin with sha256:"]);
    let taken = fs::read_dir(sample.path().join("blobs/sha256")).unwrap().map(|e| e.unwrap().file_name());
    let taken: Vec<String> = taken.map(|name| name.into_string().unwrap()[..3].to_owned()).collect();
    let free = (0..4096).map(|n| format!("{n:03x}")).find(|beginning| !taken.contains(beginning)).unwrap();
    let none = resolve(&remote(), &format!("{}@sha256:{free}", bare(&sample))).await;
    assert_says(none, Kind::NotFound, &[&free]);
}

#[tokio::test]
async fn what_is_missing_or_ambiguous_is_said_with_what_there_is() {
    let sample = sample::layout();
    let missing = resolve(&remote(), &sample.reference("other")).await;
    let error = assert_says(missing, Kind::NotFound, &["tag \"other\"", &sample.path().display().to_string()]);
    assert_hints(&error, ":multi");
    assert_hints(&error, ":single");
    let which = resolve(&remote(), &bare(&sample)).await;
    let error = assert_says(which, Kind::InvalidArgument, &["has 2 manifests"]);
    assert_hints(&error, ":multi");
    let unknown = Descriptor::of("", b"unknown").digest;
    assert_says(
        resolve(&remote(), &format!("{}@{unknown}", bare(&sample))).await,
        Kind::NotFound,
        &[&unknown.to_string()],
    );
    sample.set_entries(&[(&sample.index, Some("same")), (&sample.manifest, Some("same"))]);
    let twice = resolve(&remote(), &sample.reference("same")).await;
    assert_says(twice, Kind::FailedPrecondition, &["ambiguous", &sample.index.digest.to_string()]);
    sample.set_entries(&[]);
    assert_says(resolve(&remote(), &bare(&sample)).await, Kind::NotFound, &["is empty"]);
}

#[tokio::test]
async fn a_directory_that_is_no_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("oci:{}:1", directory.path().display());
    assert_says(resolve(&remote(), &reference).await, Kind::NotFound, &["is not an OCI layout"]);
    let nowhere = format!("oci:{}/nowhere:1", directory.path().display());
    assert_says(resolve(&remote(), &nowhere).await, Kind::NotFound, &["nowhere"]);
    for (version, kind, words) in [
        (r#"{"imageLayoutVersion":"2.0.0"}"#, Kind::Unimplemented, "version 2.0.0"),
        ("{}", Kind::InvalidArgument, "malformed"),
    ] {
        fs::write(directory.path().join("oci-layout"), version).unwrap();
        let error = resolve(&remote(), &reference).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let sample = sample::layout();
    fs::write(sample.path().join("index.json"), r#"{"manifests":1}"#).unwrap();
    let error = resolve(&remote(), &sample.reference("multi")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn content_and_parts_of_it_are_read() {
    let sample = sample::layout();
    let name = sample.reference("multi");
    for wanted in [&sample.index, &sample.manifest, &sample.config, &sample.layer] {
        let (offset, size, bytes) = fetch(&remote(), &name, wanted, ByteRange::default()).await.unwrap();
        assert_eq!((offset, size), (0, Some(wanted.size)));
        assert_eq!(Descriptor::of(wanted.media_type.as_str(), &bytes), *wanted);
    }
    let size = sample.layer.size;
    for (start, end) in [(5, None), (0, Some(1)), (100, Some(200)), (size, None), (size - 1, Some(size + 9))] {
        let (offset, _, bytes) = fetch(&remote(), &name, &sample.layer, ByteRange { start, end }).await.unwrap();
        assert_eq!(offset, start);
        let expected = usize::try_from(start).unwrap()..usize::try_from(end.unwrap_or(size).min(size)).unwrap();
        assert_eq!(bytes, sample.layer_bytes[expected]);
    }
    let past = fetch(&remote(), &name, &sample.layer, ByteRange::from(size + 1)).await;
    assert_says(past, Kind::OutOfRange, &[&sample.layer.digest.to_string()]);
    let missing = Descriptor::of(MediaType::OCI_LAYER, b"missing");
    assert_says(
        fetch(&remote(), &name, &missing, ByteRange::default()).await,
        Kind::NotFound,
        &[&missing.digest.to_string()],
    );
}

#[tokio::test]
async fn a_large_blob_comes_in_several_pieces() {
    let sample = sample::layout();
    let bytes = crate::support::noise(3_500_000);
    let blob = sample.write(MediaType::OCI_LAYER, &bytes);
    let (_, _, received) = fetch(&remote(), &sample.reference("multi"), &blob, ByteRange::from(7)).await.unwrap();
    assert!(received == bytes[7..], "the bytes differ");
}

#[tokio::test]
async fn links_do_not_lead_out_of_the_directory() {
    let sample = sample::layout();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let blob = Descriptor::of(MediaType::OCI_LAYER, b"link");
    let path = sample.path().join("blobs/sha256").join(blob.digest.hex());
    for target in [secret.clone(), "../../../../../../../../etc/hostname".into()] {
        symlink(&target, &path).unwrap();
        let fetched = fetch(&remote(), &sample.reference("multi"), &blob, ByteRange::default()).await;
        assert_says(fetched, Kind::InvalidArgument, &["leads out of the directory"]);
        fs::remove_file(&path).unwrap();
    }
    // Within it they do.
    symlink(sample.layer.digest.hex(), &path).unwrap();
    let (_, _, bytes) = fetch(&remote(), &sample.reference("multi"), &blob, ByteRange::default()).await.unwrap();
    assert_eq!(bytes, sample.layer_bytes);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let fetched = fetch(&remote(), &sample.reference("multi"), &blob, ByteRange::default()).await;
    assert_eq!(fetched.unwrap_err().kind(), Kind::InvalidArgument);

    let index = sample.path().join("index.json");
    fs::remove_file(&index).unwrap();
    symlink(&secret, &index).unwrap();
    let error = resolve(&remote(), &sample.reference("multi")).await.unwrap_err();
    assert!(!error.to_string().contains("secret\""), "{error}");
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn damaged_content_is_found_when_a_digest_is_resolved() {
    let sample = sample::layout();
    sample.set_entries(&[]);
    let path = sample.path().join("blobs/sha256").join(sample.manifest.digest.hex());
    fs::write(&path, "{}").unwrap();
    let resolved = resolve(&remote(), &format!("{}@{}", bare(&sample), sample.manifest.digest)).await;
    assert_says(resolved, Kind::DataLoss, &[&sample.manifest.digest.to_string()]);
}

#[tokio::test]
async fn what_is_pushed_into_a_layout_is_there_under_its_tag() {
    let (sample, directory) = (sample::layout(), tempfile::tempdir().unwrap());
    let path = directory.path().join("new");
    let to = format!("oci:{}:one@{}", path.display(), sample.manifest.digest);
    let from = remote().fetcher(&sample.reference("multi").parse().unwrap()).await.unwrap();
    for _ in 0..2 {
        let pusher = remote().pusher(&to.parse().unwrap()).await.unwrap();
        for descriptor in [&sample.layer, &sample.config, &sample.manifest] {
            let Push::Upload(mut writer) = pusher.push(descriptor).await.unwrap() else { continue };
            let body = from.fetch(descriptor, ByteRange::default()).await.unwrap();
            writer.write(crate::support::read(body).await.unwrap().into()).await.unwrap();
            writer.commit(Commit::default()).await.unwrap();
        }
    }
    let resolved = resolve(&remote(), &format!("oci:{}:one", path.display())).await.unwrap();
    assert_eq!(resolved.descriptor, sample.manifest);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{index}");
    let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    // skopeo reads it, with every digest as it was.
    let output = std::process::Command::new("skopeo")
        .args(["inspect", "--raw", &format!("oci:{}:one", path.display())])
        .output()
        .unwrap();
    assert_eq!(Descriptor::of(MediaType::OCI_MANIFEST, &output.stdout).digest, sample.manifest.digest);
}

#[tokio::test]
async fn a_layout_takes_nothing_that_is_not_what_it_should_be() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("oci:{}:1", directory.path().join("new").display());
    let pusher = remote().pusher(&name.parse().unwrap()).await.unwrap();
    let descriptor = Descriptor::of("x/y", b"right");
    let write = async |bytes: &'static [u8]| {
        let Push::Upload(mut writer) = pusher.push(&descriptor).await.unwrap() else { panic!("it is there") };
        writer.write(bytes.into()).await?;
        writer.commit(Commit::default()).await
    };
    assert_says(write(b"wrong").await, Kind::DataLoss, &[&descriptor.digest.to_string()]);
    assert_eq!(write(b"righ").await.unwrap_err().kind(), Kind::FailedPrecondition);
    assert_eq!(write(b"right and more").await.unwrap_err().kind(), Kind::OutOfRange);
    assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 3);
    // A directory of something else is left alone.
    fs::write(directory.path().join("file"), "x").unwrap();
    let name = format!("oci:{}:1", directory.path().display());
    let Err(error) = remote().pusher(&name.parse().unwrap()).await else { panic!("there is a pusher") };
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    // Nothing is written through a link that leads out of it.
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(inside.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    symlink(outside.path(), inside.path().join("blobs")).unwrap();
    let name = format!("oci:{}:1", inside.path().display());
    let pusher = remote().pusher(&name.parse().unwrap()).await.unwrap();
    let pushed = async {
        let Push::Upload(mut writer) = pusher.push(&descriptor).await? else { panic!("it is there") };
        writer.write(b"right".as_slice().into()).await?;
        writer.commit(Commit::default()).await
    };
    assert_says(pushed.await, Kind::InvalidArgument, &["leads out of the directory"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
