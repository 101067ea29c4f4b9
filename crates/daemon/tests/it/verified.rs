//! What a daemon that is configured to verify does not let in: by its own transfers, and by clients that bring content themselves.

use bytes::Bytes;
use futures::TryStreamExt as _;
use windlass_core::field::FieldMask;
use windlass_core::image::Image;
use windlass_core::{Descriptor, Host as _, Kind, Labels, Result, Scope};
use windlass_grpc::streaming::window::{self, Sender};
use windlass_proto::containerd::types::transfer::{ImageExportStream, ImageImportStream, OciRegistry};

use crate::serving::{Place, start};
use crate::transfer::{Caller, NAME, bundle, serve, store};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configured_verifiers_refuse_is_neither_pulled_nor_imported() {
    let (place, bundle) = (Place::new(), bundle());
    let (_registry, reference) = serve(&bundle);
    let programs = place.path("verifiers");
    std::fs::create_dir(&programs).unwrap();
    // It allows what is called so, and no other name.
    let program = programs.join("by-name");
    std::fs::write(&program, "#!/bin/sh\ncase $2 in *app:1) exit 0;; esac\necho not called right\nexit 1\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = place.config();
    config.verification.bin_dir = Some(programs);
    let daemon = start(config).await;
    let caller = Caller::new(&place).await;
    let by_digest = format!("{}@{}", reference.strip_suffix(":1").unwrap(), bundle.root.digest);
    let from = OciRegistry { reference: by_digest, resolver: None };
    // What counts is where it comes from, not what it would be called here.
    let error = caller.transfer(&from, &store(NAME), "").await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("verifier by-name (exit code 1): not called right"), "{error}");
    let services = place.services().await;
    assert_eq!(services.images.list(&[]).try_collect::<Vec<_>>().await.unwrap(), []);
    caller.transfer(&OciRegistry { reference, resolver: None }, &store(NAME), "").await.unwrap();

    let stream = caller.client.open_stream(&Scope::default(), "out").await.unwrap();
    let archive = tokio::spawn(window::receive(stream).try_collect::<Vec<Bytes>>());
    let to = ImageExportStream { stream: "out".into(), all_platforms: true, ..ImageExportStream::default() };
    caller.transfer(&store(NAME), &to, "").await.unwrap();
    let archive = Bytes::from(archive.await.unwrap().unwrap().concat());
    let mut sender = Sender::new(caller.client.open_stream(&Scope::default(), "in").await.unwrap());
    let sent = tokio::spawn(async move {
        // The import may be refused before it has read all.
        let _ = sender.send(archive).await;
        let _ = sender.finish().await;
    });
    let from = ImageImportStream { stream: "in".into(), ..ImageImportStream::default() };
    let error = caller.transfer(&from, &store("registry.test/app:2"), "").await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    sent.await.unwrap();
    let names: Vec<String> =
        services.images.list(&[]).map_ok(|image| image.name.to_string()).try_collect().await.unwrap();
    assert_eq!(names, [NAME]);
    daemon.stop().await;
}

/// What a client records by itself, with content that it has brought, or that is not here at all.
#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_made_or_changed_to_what_the_configured_verifiers_refuse() {
    let place = Place::new();
    let programs = place.path("verifiers");
    std::fs::create_dir(&programs).unwrap();
    let (good, bad) = (Descriptor::of("x/y", b"good"), Descriptor::of("x/y", b"bad"));
    // It writes down what it is asked about.
    let (program, asked) = (programs.join("by-digest"), place.path("asked"));
    let script = format!(
        "#!/bin/sh\necho \"$2\" >> {}\ncase $4 in {}) exit 0;; esac\necho not that\nexit 1\n",
        asked.display(),
        good.digest
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = place.config();
    config.verification.bin_dir = Some(programs);
    let daemon = start(config).await;
    let images = place.services().await.images;
    let image = |name: &str, target: &Descriptor| Image::new(name.parse().unwrap(), target.clone());
    let refused = |outcome: Result<Image>| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), Kind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("is refused by verifier by-digest (exit code 1): not that"), "{error}");
    };
    refused(images.create(&image("a:1", &bad)).await);
    images.create(&image("a:1", &good)).await.unwrap();
    let taken = images.create(&image("a:1", &bad)).await.unwrap_err();
    assert_eq!(taken.kind(), Kind::AlreadyExists);
    for mask in [FieldMask::all(), FieldMask::parse(["target"]).unwrap()] {
        refused(images.update(&image("a:1", &bad), &mask).await);
    }
    let absent = images.update(&image("b:1", &good), &FieldMask::all()).await.unwrap_err();
    assert_eq!(absent.kind(), Kind::NotFound);
    assert_eq!(images.get(&"a:1".parse().unwrap()).await.unwrap().target.digest, good.digest);

    // What does not change its target is asked about no more.
    std::fs::remove_file(&asked).unwrap();
    let labels = Labels::new().with("a", "b");
    images.update(&Image { labels, ..image("a:1", &good) }, &FieldMask::all()).await.unwrap();
    images.update(&image("a:1", &bad), &FieldMask::parse(["labels"]).unwrap()).await.unwrap();
    assert!(!asked.exists(), "{}", std::fs::read_to_string(&asked).unwrap());
    // Another name is, whoever gives it.
    let caller = Caller::new(&place).await;
    caller.transfer(&store("a:1"), &store("c:1"), "").await.unwrap();
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), "c:1\n");
    // One that was there before anybody was asked cannot get another name.
    let before = daemon.engine().services(&Scope::default()).await.unwrap().images;
    before.create(&image("old:1", &bad)).await.unwrap();
    let error = caller.transfer(&store("old:1"), &store("new:1"), "").await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied, "{error}");
    let names: Vec<String> = images.list(&[]).map_ok(|image| image.name.to_string()).try_collect().await.unwrap();
    assert_eq!(names, ["a:1", "c:1", "old:1"]);
    daemon.stop().await;
}
