//! Pushes and copies by the real command into Debian's registry, with skopeo beside it: digests are what they were.

use std::process::Command;

use serde_json::Value;
use windlass_core::Platform;
use windlass_testkit::image::{Bundle, Image, Index, Layer};
use windlass_testkit::registry::{DockerRegistry, Fake, Taking};

use crate::dist::Dist;
use crate::remote::Daemon;

fn bundle() -> Bundle {
    let image =
        |platform: &str| Image::new(platform).layer(Layer::new().file("platform", platform.repeat(20_000))).build();
    let other = if Platform::host().architecture == "amd64" { "linux/arm64" } else { "linux/amd64" };
    Index::new().bundle(&image(&Platform::host().to_string())).bundle(&image(other)).build()
}

/// A layout with the bundle, and the reference to it.
fn layout(dist: &Dist, bundle: &Bundle) -> String {
    let layout = dist.path("layout");
    bundle.write_layout(&layout, "1").unwrap();
    format!("oci:{}:1", layout.display())
}

/// Returns what skopeo reads under a reference.
fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn raw_by_skopeo(reference: &str) -> Vec<u8> {
    skopeo(&["inspect", "--raw", "--tls-verify=false", "--no-creds", &format!("docker://{reference}")])
}

#[test]
fn skopeo_pulls_what_was_pushed_with_every_digest_as_it_was() {
    let (dist, registry, bundle) = (Dist::new(), DockerRegistry::start(), bundle());
    let from = layout(&dist, &bundle);
    dist.ok(&format!("fetch --all-platforms {from}"));
    let to = format!("{}/a/b:1", registry.host());
    let pushed = dist.json(&format!("push {to} {from}"));
    assert_eq!(pushed["digest"], bundle.root.digest.to_string());
    assert_eq!((&pushed["uploaded"], &pushed["existing"]), (&bundle.size().into(), &0.into()));
    assert_eq!(raw_by_skopeo(&to), bundle.blobs[&bundle.root.digest]);
    let copy = dist.path("copy");
    skopeo(&[
        "--insecure-policy",
        "copy",
        "--all",
        "--quiet",
        "--src-tls-verify=false",
        "--src-no-creds",
        &format!("docker://{to}"),
        &format!("dir:{}", copy.display()),
    ]);
    for image in &bundle.images {
        for descriptor in image.layers.iter().chain([&image.config]) {
            assert_eq!(std::fs::read(copy.join(descriptor.digest.hex())).unwrap(), bundle.blobs[&descriptor.digest]);
        }
    }
    // Again there is nothing to do, and another repository takes it over.
    assert_eq!(dist.json(&format!("push {to} {from}"))["existing"], bundle.size());
    let other = dist.json(&format!("push {}/other:1 {from}", registry.host()));
    let documents: u64 = bundle.images.iter().map(|image| image.manifest.size).sum::<u64>() + bundle.root.size;
    assert_eq!((&other["uploaded"], &other["mounted"]), (&documents.into(), &(bundle.size() - documents).into()));
    // Another machine pulls it.
    let elsewhere = Dist::new();
    let pulled = elsewhere.json(&format!("fetch --all-platforms {}/other:1", registry.host()));
    assert_eq!(
        (&pulled["digest"], &pulled["downloaded"]),
        (&bundle.root.digest.to_string().into(), &bundle.size().into())
    );
}

#[test]
fn an_image_is_copied_from_registry_to_registry_to_a_directory_and_back() {
    let (dist, one, two, bundle) = (Dist::new(), DockerRegistry::start(), DockerRegistry::start(), bundle());
    layout(&dist, &bundle);
    one.push_layout(format!("{}:1", dist.path("layout").display()), "a/b:1");
    let (from, to) = (format!("{}/a/b:1", one.host()), format!("{}/c:2", two.host()));
    let back = format!("oci:{}:back", dist.path("back").display());
    for (from, to) in [(&from, &to), (&to, &back), (&back, &format!("{}/d:3", two.host()))] {
        let copied = dist.json(&format!("copy {from} {to}"));
        assert_eq!(copied["digest"], bundle.root.digest.to_string(), "{from} to {to}");
    }
    assert_eq!(raw_by_skopeo(&to), bundle.blobs[&bundle.root.digest]);
    let digest = skopeo(&["inspect", "--raw", &back]);
    assert_eq!(digest, bundle.blobs[&bundle.root.digest]);
    // Within one registry nothing but documents goes.
    let copied = dist.json(&format!("copy {to} {}/e:4", two.host()));
    assert!(copied["mounted"].as_u64().unwrap() > copied["uploaded"].as_u64().unwrap(), "{copied}");
    // One platform goes without the index.
    let image = &bundle.images[0];
    let platform = image.manifest.platform.as_ref().unwrap();
    let copied = dist.json(&format!("copy --platform {platform} {to} {}/f:5", two.host()));
    assert_eq!(copied["digest"], image.manifest.digest.to_string());
    // Nothing was kept here.
    assert!(!dist.root().exists());
}

#[test]
fn what_is_not_here_is_named_and_can_be_streamed() {
    let (dist, one, two, bundle) = (Dist::new(), DockerRegistry::start(), DockerRegistry::start(), bundle());
    layout(&dist, &bundle);
    one.push_layout(format!("{}:1", dist.path("layout").display()), "a/b:1");
    let name = format!("{}/a/b:1", one.host());
    dist.ok(&format!("fetch {name}"));
    let to = format!("{}/c:1", two.host());
    let failed = dist.run(&format!("push {to} {name}"));
    assert_eq!(failed.code, Some(1));
    assert!(
        failed.stderr.contains("the image for linux/") && failed.stderr.contains("--fetch-missing"),
        "{}",
        failed.stderr
    );
    let here = &bundle.images[0];
    let platform = here.manifest.platform.as_ref().unwrap();
    assert_eq!(
        dist.json(&format!("push --platform {platform} {to} {name}"))["digest"],
        here.manifest.digest.to_string()
    );
    let blobs = dist.json("content ls").as_array().unwrap().len();
    assert_eq!(dist.json(&format!("push --fetch-missing {to} {name}"))["digest"], bundle.root.digest.to_string());
    assert_eq!(raw_by_skopeo(&to), bundle.blobs[&bundle.root.digest]);
    assert_eq!(dist.json("content ls").as_array().unwrap().len(), blobs);
    // Layers that were not kept go without being asked for.
    let dropped = Dist::new();
    dropped.ok(&format!("pull --content drop {name}"));
    let pushed = dropped.json(&format!("push --platform {platform} {}/d:1 {name}", two.host()));
    assert_eq!(pushed["digest"], here.manifest.digest.to_string());
}

#[test]
fn objects_go_one_by_one() {
    let (dist, registry, bundle) = (Dist::new(), DockerRegistry::start(), bundle());
    let from = layout(&dist, &bundle);
    dist.ok(&format!("fetch {from}"));
    let (image, host) = (&bundle.images[0], registry.host());
    let manifest =
        format!("push-object {host}/a:1 {} --media-type {}", image.manifest.digest, image.manifest.media_type);
    let failed = dist.run(&manifest);
    assert!(failed.stderr.contains("lacks what"), "{}", failed.stderr);
    for blob in image.layers.iter().chain([&image.config]) {
        dist.ok(&format!("push-object {host}/a {}", blob.digest));
    }
    dist.ok(&manifest);
    assert_eq!(raw_by_skopeo(&format!("{host}/a:1")), bundle.blobs[&image.manifest.digest]);
    // By its digest, with all that it refers to.
    assert_eq!(
        dist.json(&format!("push {host}/b:1 {}", image.manifest.digest))["digest"],
        image.manifest.digest.to_string()
    );
}

#[test]
fn a_registry_is_looked_into_and_deleted_from() {
    let (dist, registry, bundle) = (Dist::new(), DockerRegistry::start(), bundle());
    let from = layout(&dist, &bundle);
    let repository = format!("{}/a/b", registry.host());
    for tag in ["1", "2"] {
        dist.ok(&format!("copy {from} {repository}:{tag}"));
    }
    let mut tags: Vec<String> = serde_json::from_value(dist.json(&format!("tags {repository}"))).unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    assert_eq!(dist.ok(&format!("tags {from}")), "1\n");

    let inspected = dist.json(&format!("inspect --all-platforms {repository}:1"));
    assert_eq!(inspected["digest"], bundle.root.digest.to_string());
    let sizes: Vec<u64> =
        inspected["tree"]["children"].as_array().unwrap().iter().map(|it| it["totalSize"].as_u64().unwrap()).collect();
    assert_eq!(sizes.iter().sum::<u64>() + bundle.root.size, bundle.size());
    let shown = dist.ok(&format!("inspect {repository}:1"));
    for part in [bundle.images[0].layers[0].digest.to_string(), "linux/arm64".to_owned(), "in all".to_owned()] {
        assert!(shown.contains(&part), "{part} is not in: {shown}");
    }

    let refused = dist.run(&format!("delete {repository}:1"));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("does not delete tag") && refused.stderr.contains("NAME@DIGEST"),
        "{}",
        refused.stderr
    );
    dist.ok(&format!("delete {repository}@{}", bundle.root.digest));
    let gone = dist.run(&format!("inspect {repository}:2"));
    assert!(gone.stderr.contains("is not in repository a/b"), "{}", gone.stderr);
    assert!(!dist.root().exists());
}

#[test]
fn what_is_on_a_daemon_is_pushed_from_there() {
    let (dist, registry, bundle) = (Dist::new(), DockerRegistry::start(), bundle());
    let from = layout(&dist, &bundle);
    let daemon = Daemon::start(&dist);
    dist.ok(&format!("fetch --all-platforms {from}"));
    let to = format!("{}/a/b:1", registry.host());
    assert_eq!(dist.json(&format!("push {to} {from}"))["digest"], bundle.root.digest.to_string());
    assert_eq!(raw_by_skopeo(&to), bundle.blobs[&bundle.root.digest]);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_shows_what_it_does() {
    let (dist, bundle) = (Dist::new(), bundle());
    let from = layout(&dist, &bundle);
    let fake = Fake::start().await;
    fake.take(Taking { largest: Some(1 << 20), ..Taking::default() });
    let to = format!("{}/a/b:1", fake.host());
    let shown = tokio::task::spawn_blocking(move || {
        let run = dist.run(&format!("--progress json copy {from} {to}"));
        run.stderr
    });
    let shown = shown.await.unwrap();
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = lines.last().unwrap();
    assert_eq!(
        (&end["type"], &end["ok"], &end["uploaded"]),
        (&"end".into(), &true.into(), &bundle.size().into()),
        "{shown}"
    );
    let root = format!("index-{}", bundle.root.digest);
    let states: Vec<&str> = lines.iter().filter(|it| it["id"] == root).filter_map(|it| it["state"].as_str()).collect();
    assert_eq!(states.last(), Some(&"done"), "{shown}");
}
