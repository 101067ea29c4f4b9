//! Archives of images: what is exported is imported again, and what is wrong leaves nothing.

use std::io::Write as _;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde_json::json;
use windlass_core::content::DROPPED_LABEL;
use windlass_core::field::FieldMask;
use windlass_core::gc::Deletion;
use windlass_core::image::Image as Record;
use windlass_core::media_type::Compression;
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::{ByteStream, Digest, Error, Kind, Namespace, Platform, Result};
use windlass_testkit::image::{Bundle, Image, Index, Layer, Tamper};
use windlass_transfer::export::Docker;
use windlass_transfer::import::Digests;
use windlass_transfer::{Export, Import, Imported, Naming, Unpack};

use crate::site::{Held, Site, three_layers};

const OTHER: &str = "linux/s390x";

fn site() -> Site {
    Site::serving(&three_layers().build())
}

/// Cuts an archive into parts of an odd size.
fn parts(archive: &[u8]) -> ByteStream {
    let parts: Vec<Result<Bytes>> = archive.chunks(10_007).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    stream::iter(parts).boxed()
}

fn options() -> Import {
    Import::new(Naming::new("example.org/app"))
}

async fn import_with(site: &Site, archive: &[u8], options: &Import) -> Result<Imported> {
    windlass_transfer::import(&site.host, &Namespace::default(), parts(archive), options, &Tracker::new()).await
}

async fn import(site: &Site, archive: &[u8]) -> Result<Imported> {
    import_with(site, archive, &options()).await
}

async fn refused(archive: &[u8]) -> Error {
    refused_with(archive, &options()).await
}

/// Imports what is wrong, and looks that nothing is left of it.
async fn refused_with(archive: &[u8], options: &Import) -> Error {
    let site = site();
    let error = import_with(&site, archive, options).await.unwrap_err();
    assert_eq!(site.holds().await, Held::default(), "{error:?}");
    assert_eq!(site.directories(), 0, "{error:?}");
    error
}

async fn export_with(site: &Site, names: &[&str], options: &Export) -> Result<Vec<u8>> {
    let services = site.services().await;
    let mut images: Vec<Record> = Vec::new();
    for name in names {
        images.push(services.images.get(&name.parse().unwrap()).await.unwrap());
    }
    let mut archive = Vec::new();
    let namespace = Namespace::default();
    windlass_transfer::export(&site.host, &namespace, &images, options, &mut archive, &Tracker::new()).await?;
    Ok(archive)
}

async fn export(site: &Site, names: &[&str]) -> Vec<u8> {
    export_with(site, names, &Export::default()).await.unwrap()
}

fn blob(layer: Layer, bytes: &[u8]) -> Layer {
    layer.file(&format!("blobs/sha256/{}", Digest::sha256(bytes).hex()), bytes)
}

fn layout(bundle: &Bundle, names: &[&str]) -> Layer {
    let manifests: Vec<_> = names
        .iter()
        .map(|name| {
            let mut root = json!(bundle.root);
            root["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
            root
        })
        .collect();
    let manifests = if names.is_empty() { vec![json!(bundle.root)] } else { manifests };
    let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    let layer = bundle.blobs.values().fold(Layer::new().dir("blobs", 0o755), |layer, bytes| blob(layer, bytes));
    layer.file("index.json", index).file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn names(imported: &Imported) -> Vec<String> {
    imported.images.iter().map(|image| image.name.to_string()).collect()
}

/// What `docker save` wrote for years: layers in directories, one of them a link, and files for older versions.
fn saved(layers: &[Layer]) -> Layer {
    let encoded: Vec<_> = layers.iter().map(|layer| layer.encode(Compression::None)).collect();
    let diff_ids: Vec<_> = encoded.iter().chain(encoded.last()).map(|layer| layer.diff_id.to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let id = |number: usize| number.to_string().repeat(64);
    let mut archive = Layer::new();
    let mut paths = Vec::new();
    for (number, layer) in encoded.iter().enumerate() {
        let directory = id(number);
        archive = archive.dir(&directory, 0o755).file(&format!("{directory}/VERSION"), "1.0");
        archive = archive.file(&format!("{directory}/json"), "{}");
        archive = archive.file(&format!("{directory}/layer.tar"), &layer.bytes);
        paths.push(format!("{directory}/layer.tar"));
    }
    let (last, linked) = (paths.last().unwrap().clone(), format!("{}/layer.tar", id(9)));
    archive = archive.symlink(&linked, &format!("../{last}"));
    paths.push(linked);
    let list = json!([{ "Config": "config.json", "RepoTags": ["quay.io/x/y:1", "quay.io/x/y:2"], "Layers": paths }]);
    archive.file("config.json", config.to_string()).file("manifest.json", list.to_string()).file("repositories", "{}")
}

fn two_layers() -> Vec<Layer> {
    vec![Layer::new().file("a", "1"), Layer::new().file("b", "2")]
}

#[tokio::test]
async fn a_layout_is_imported_under_its_names_and_unpacked() {
    let (site, bundle) = (site(), three_layers().build());
    let archive = layout(&bundle, &["1", "quay.io/other/name:2"]).tar();
    let imported = import(&site, &archive).await.unwrap();
    assert_eq!(names(&imported), ["example.org/app:1", "quay.io/other/name:2"]);
    assert!(imported.images.iter().all(|image| image.target == bundle.root), "{imported:?}");
    assert_eq!(imported.images[0].snapshots, [bundle.image().chain_ids()[2].clone()]);
    assert_eq!(imported.totals.downloaded, bundle.size());
    let blobs = bundle.blobs.len();
    assert_eq!(site.holds().await, Held { blobs, images: 2, snapshots: 3, ..Held::default() });
    let again = import(&site, &archive).await.unwrap();
    assert_eq!((again.totals.downloaded, again.totals.reused), (0, bundle.size()));
}

#[tokio::test]
async fn what_it_is_compressed_with_is_told_by_its_bytes() {
    let archive = layout(&three_layers().build(), &["1"]);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let site = site();
        import(&site, &archive.encode(compression).bytes).await.unwrap();
        assert_eq!(site.holds().await.images, 1, "{compression:?}");
    }
}

#[tokio::test]
async fn what_is_exported_is_imported_again_and_the_bytes_are_the_same() {
    let (first, second) = (site(), site());
    let bundle = three_layers().build();
    import(&first, &layout(&bundle, &["1", "quay.io/x/y:2"]).tar()).await.unwrap();
    let all = ["example.org/app:1", "quay.io/x/y:2"];
    let archive = export(&first, &all).await;
    let imported = import(&second, &archive).await.unwrap();
    assert_eq!(names(&imported), all);
    assert!(imported.images.iter().all(|image| image.target == bundle.root), "{imported:?}");
    assert_eq!(second.holds().await, first.holds().await);
    assert!(export(&second, &all).await == archive, "the same images make the same bytes");
}

#[tokio::test]
async fn an_archive_of_docker_is_imported_and_links_lead_to_layers() {
    let site = site();
    let imported = import(&site, &saved(&two_layers()).tar()).await.unwrap();
    assert_eq!(names(&imported), ["quay.io/x/y:1", "quay.io/x/y:2"]);
    let snapshots = &imported.images[0].snapshots;
    assert_eq!((snapshots.len(), site.holds().await.snapshots), (1, 3));
    // A manifest, a config, and two layers, one of which is there twice.
    assert_eq!(site.holds().await.blobs, 4);
    let archive = export(&site, &["quay.io/x/y:1"]).await;
    let entries: Vec<String> = tar::Archive::new(&archive[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .filter(|path| !path.starts_with("blobs"))
        .collect();
    assert_eq!(entries, ["oci-layout", "index.json", "manifest.json"]);
}

#[tokio::test]
async fn layers_of_docker_may_be_compressed_and_have_to_be_those_of_the_config() {
    let [one, two] = [Layer::new().file("a", "1"), Layer::new().file("b", "2")];
    let archive = |layer: &Layer, compression| {
        let diff_id = one.encode(Compression::None).diff_id.to_string();
        let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "diff_ids": [diff_id] } });
        let list = json!([{ "Config": "c.json", "RepoTags": ["quay.io/x:1"], "Layers": ["l.tar"] }]).to_string();
        let layer = layer.encode(compression).bytes;
        Layer::new().file("manifest.json", list).file("c.json", config.to_string()).file("l.tar", layer).tar()
    };
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        import(&site(), &archive(&one, compression)).await.unwrap();
    }
    assert_eq!(refused(&archive(&two, Compression::None)).await.kind(), Kind::FailedPrecondition);
    assert_eq!(refused(&archive(&two, Compression::Gzip)).await.kind(), Kind::DataLoss);
}

#[tokio::test]
async fn a_blob_that_is_not_what_it_is_called_is_refused() {
    let bundle = three_layers().build();
    let wrong = bundle.blobs.iter().fold(Layer::new(), |layer, (digest, bytes)| {
        let bytes =
            if digest == &bundle.image().layers[1].digest { Bytes::from_static(b"other bytes") } else { bytes.clone() };
        layer.file(&format!("blobs/sha256/{}", digest.hex()), bytes)
    });
    let error = refused(&wrong.tar()).await;
    assert_eq!(error.kind(), Kind::DataLoss);
    assert!(error.to_string().contains(bundle.image().layers[1].digest.hex()), "{error}");
}

#[tokio::test]
async fn an_archive_that_is_cut_off_is_refused_wherever_that_is() {
    let archive = layout(&three_layers().build(), &["1"]);
    let tar = archive.tar();
    for length in [0, 1, 511, 512, 700, tar.len() / 3, tar.len() / 2, tar.len() - 1536] {
        let error = refused(&tar[..length]).await;
        assert!(matches!(error.kind(), Kind::DataLoss | Kind::FailedPrecondition), "{length}: {error:?}");
    }
    let gzip = archive.encode(Compression::Gzip).bytes;
    for length in [10, gzip.len() / 2, gzip.len() - 1] {
        assert_eq!(refused(&gzip[..length]).await.kind(), Kind::DataLoss, "{length}");
    }
}

#[tokio::test]
async fn tricks_with_paths_are_refused() {
    let link = |target: &str| {
        let list = r#"[{"Config":"c.json","RepoTags":["x/y:1"],"Layers":["l/layer.tar"]}]"#;
        let config =
            r#"{"rootfs":{"diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#;
        Layer::new().file("manifest.json", list).file("c.json", config).symlink("l/layer.tar", target).tar()
    };
    for archive in [
        Layer::new().file("../outside", "x").tar(),
        Layer::new().file("a/../../outside", "x").tar(),
        Layer::new().file("blobs/sha256/../../x", "x").file("blobs/sha256/short", "x").tar(),
        link("../../etc/passwd"),
        link("../l/layer.tar"),
        link("nowhere"),
        Layer::new().file("index.json", vec![b' '; 5 << 20]).tar(),
        Layer::new().file("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#).tar(),
        Layer::new().file("something", "else").tar(),
        b"no archive at all".to_vec(),
    ] {
        let error = refused(&archive).await;
        assert_ne!(error.kind(), Kind::Internal, "{error:?}");
    }
}

#[tokio::test]
async fn an_archive_that_lacks_what_it_refers_to_is_refused() {
    let bundle = three_layers().build();
    for missing in [&bundle.image().layers[1].digest, &bundle.image().config.digest, &bundle.root.digest] {
        let mut less = bundle.clone();
        less.blobs.remove(missing);
        let error = refused(&layout(&less, &["1"]).tar()).await;
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
        assert!(error.to_string().contains(&missing.to_string()), "{error}");
    }
}

#[tokio::test]
async fn an_image_whose_config_does_not_list_its_layers_is_imported_and_not_unpacked() {
    let bundle = three_layers().tamper(Tamper::MissingDiffId).build();
    let archive = layout(&bundle, &["1"]).tar();
    let error = refused(&archive).await;
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("lists 2 diff ids for 3 layers"), "{error}");

    let site = site();
    let options = Import { unpack: Unpack::No, ..options() };
    let imported = import_with(&site, &archive, &options).await.unwrap();
    assert_eq!(names(&imported), ["example.org/app:1"]);
    let services = site.services().await;
    for layer in &bundle.image().layers {
        services.content.info(&layer.digest).await.unwrap();
    }
}

#[tokio::test]
async fn images_without_names_are_imported_under_digests_or_as_one_index() {
    let bundle = three_layers().build();
    let archive = layout(&bundle, &[]).tar();
    assert_eq!(refused(&archive).await.kind(), Kind::NotFound);
    let by_digest = Import { naming: Naming { digests: Digests::Unnamed, ..options().naming }, ..options() };
    let imported = import_with(&site(), &archive, &by_digest).await.unwrap();
    assert_eq!(names(&imported), [format!("example.org/app@{}", bundle.root.digest)]);
    let index = Import { naming: Naming { index: Some("all:1".parse().unwrap()), ..options().naming }, ..options() };
    let site = site();
    let imported = import_with(&site, &archive, &index).await.unwrap();
    assert_eq!(names(&imported), ["all:1"]);
    assert_eq!(site.holds().await.blobs, bundle.blobs.len() + 1, "the index is kept");
    let error = refused_with(&saved(&two_layers()).tar(), &index).await;
    assert_eq!(error.kind(), Kind::FailedPrecondition);
}

fn two_platforms() -> Bundle {
    let image = |platform: &str| Image::new(platform).layer(Layer::new().file("platform", platform)).build();
    Index::new().bundle(&image(&Platform::host().to_string())).bundle(&image(OTHER)).build()
}

#[tokio::test]
async fn the_platforms_that_are_wanted_are_kept() {
    let bundle = two_platforms();
    let archive = layout(&bundle, &["1"]).tar();
    for (platforms, blobs) in [
        (Selection::default(), 4),
        (Selection::Best(vec![OTHER.parse().unwrap()]), 4),
        (Selection::All, bundle.blobs.len()),
    ] {
        let site = site();
        import_with(&site, &archive, &Import { platforms, ..options() }).await.unwrap();
        site.host.collect(&Namespace::default());
        assert_eq!(site.holds().await.blobs, blobs);
    }
    let arm = Import { platforms: Selection::Best(vec!["linux/riscv64".parse().unwrap()]), ..options() };
    assert_eq!(refused_with(&archive, &arm).await.kind(), Kind::NotFound);
}

#[tokio::test]
async fn an_index_is_exported_for_the_platforms_that_are_wanted() {
    let (first, bundle) = (site(), two_platforms());
    let everything = Import { platforms: Selection::All, unpack: Unpack::No, ..options() };
    import_with(&first, &layout(&bundle, &["1"]).tar(), &everything).await.unwrap();
    let name = ["example.org/app:1"];
    let one = export(&first, &name).await;
    let all = Export { platforms: Selection::All, docker: Docker::No, ..Export::default() };
    let all = export_with(&first, &name, &all).await.unwrap();
    let second = site();
    let imported = import_with(&second, &one, &everything).await.unwrap();
    assert_eq!(imported.images[0].target, bundle.root, "the index stays as it is");
    assert_eq!(second.holds().await.blobs, 4);
    let less =
        export_with(&second, &name, &Export { platforms: Selection::All, ..Export::default() }).await.unwrap_err();
    assert_eq!(less.kind(), Kind::NotFound);
    assert!(less.to_string().contains(OTHER), "{less}");
    let third = site();
    import_with(&third, &all, &everything).await.unwrap();
    assert_eq!(third.holds().await.blobs, bundle.blobs.len());
}

#[tokio::test]
async fn a_layer_that_was_not_kept_is_said_by_name() {
    let (site, bundle) = (site(), three_layers().build());
    import(&site, &layout(&bundle, &["1"]).tar()).await.unwrap();
    let content = site.services().await.content;
    let layer = &bundle.image().layers[1].digest;
    content.delete(layer).await.unwrap();
    let error = export_with(&site, &["example.org/app:1"], &Export::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains(&layer.to_string()) && error.hint_text().is_some(), "{error}");
    let mut info = content.info(&bundle.root.digest).await.unwrap();
    info.labels.set(format!("{DROPPED_LABEL}1"), layer.to_string());
    content.update(&info, &FieldMask::parse(["labels"]).unwrap()).await.unwrap();
    let error = export_with(&site, &["example.org/app:1"], &Export::default()).await.unwrap_err();
    assert!(error.to_string().contains("was not kept"), "{error}");
    assert_eq!(site.holds().await.leases, 0);
    // Importing the same archive brings it back, and the label goes.
    import(&site, &layout(&bundle, &["1"]).tar()).await.unwrap();
    let labels = content.info(&bundle.root.digest).await.unwrap().labels;
    assert!(!labels.iter().any(|(key, _)| key.starts_with(DROPPED_LABEL)), "{labels:?}");
}

#[tokio::test]
async fn two_images_of_one_name_are_refused() {
    let [one, two] = ["a", "b"].map(|file| Image::new("linux/amd64").layer(Layer::new().file(file, file)).build());
    let named = |bundle: &Bundle| {
        let mut root = json!(bundle.root);
        root["annotations"] = json!({ "org.opencontainers.image.ref.name": "same" });
        root
    };
    let index = json!({ "schemaVersion": 2, "manifests": [named(&one), named(&two)] }).to_string();
    let archive = [&one, &two]
        .iter()
        .flat_map(|bundle| bundle.blobs.values())
        .fold(Layer::new(), |layer, bytes| blob(layer, bytes));
    let error = refused(&archive.file("index.json", index).tar()).await;
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("example.org/app:same"), "{error}");
}

#[tokio::test]
async fn what_comes_after_the_end_does_not_matter_and_nothing_else_is_kept() {
    let (site, bundle) = (site(), three_layers().build());
    let mut archive = layout(&bundle, &["1"]).file("empty", "").tar();
    archive.write_all(&vec![0; 100_000]).unwrap();
    import(&site, &archive).await.unwrap();
    assert_eq!(site.holds().await.images, 1);
    site.services().await.images.delete(&"example.org/app:1".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(site.holds().await, Held::default());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_is_wrong_with_an_archive_it_is_imported_or_nothing_is_left(
        docker in proptest::prelude::any::<bool>(),
        changes in proptest::collection::vec((0..20_000usize, proptest::prelude::any::<u8>()), 1..4),
    ) {
        let image = Image::new(&Platform::host().to_string()).layer(Layer::new().file("a", "1")).build();
        let mut archive = if docker { saved(&two_layers()).tar() } else { layout(&image, &["1"]).tar() };
        for (at, byte) in changes {
            let length = archive.len();
            archive[at % length] = byte;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = site();
            match import(&site, &archive).await {
                Ok(imported) => assert!(!imported.images.is_empty()),
                Err(error) => {
                    assert_ne!(error.kind(), Kind::Internal, "{error:?}");
                    assert_eq!(site.holds().await, Held::default(), "{error:?}");
                }
            }
        });
    }
}
