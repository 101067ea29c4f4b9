//! Transfers: what containerd 2's clients pull, push and tag with. Archives are in `archives.rs`.

use std::collections::HashMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use prost::Message as _;
use prost_types::Any;
use tonic::Request;
use tonic::metadata::MetadataValue;
use windlass::registry::ForeignUrls;
use windlass_core::{Descriptor, Digest, Host as _, Kind, Labels, Namespace, Platform, Result, Scope, lease, snapshot};
use windlass_grpc::streaming::{pack, unpack};
use windlass_grpc::transfer::PullOptions;
use windlass_grpc::{Client, error};
use windlass_proto::containerd::services::streaming::v1::streaming_client::StreamingClient;
use windlass_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use windlass_proto::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use windlass_proto::containerd::types as platforms;
use windlass_proto::containerd::types::transfer::{
    ImageImportStream, ImageStore, OciRegistry, Progress, RegistryResolver, UnpackConfiguration,
};
use windlass_proto::prost::Name;
use windlass_testkit::image::{Bundle, Image, Index, Layer};
use windlass_testkit::registry::{DockerRegistry, Fake, Fault};

use crate::serving::{Place, start};

pub(crate) const NAME: &str = "registry.test/app:1";

pub(crate) fn bundle() -> Bundle {
    Image::new(&Platform::host().to_string())
        .layer(Layer::new().dir("etc", 0o755).file("etc/a", "a\n"))
        .layer(Layer::new().file("etc/b", "b\n"))
        .build()
}

/// Serves an image, and returns its reference.
pub(crate) fn serve(bundle: &Bundle) -> (DockerRegistry, String) {
    let layout = tempfile::tempdir().unwrap();
    bundle.write_layout(layout.path(), "1").unwrap();
    let registry = DockerRegistry::start();
    registry.push_layout(layout.path(), "app:1");
    let reference = format!("{}/app:1", registry.host());
    (registry, reference)
}

/// A client of a daemon, and everything that transfers need.
pub(crate) struct Caller {
    pub(crate) client: Client,
    transfers: TransferClient<tonic::transport::Channel>,
}

impl Caller {
    pub(crate) async fn new(place: &Place) -> Self {
        let channel = place.channel().await;
        Self { client: Client::new(channel.clone()), transfers: TransferClient::new(channel) }
    }

    /// Transfers between ends that may be none.
    async fn send(&self, source: Option<Any>, destination: Option<Any>) -> Result<()> {
        self.answer(source, destination).await.map_err(|status| error::from_status(&status))
    }

    /// Does the same, and returns the answer as it is.
    pub(crate) async fn answer(&self, source: Option<Any>, destination: Option<Any>) -> Result<(), tonic::Status> {
        let mut request = Request::new(TransferRequest { source, destination, options: None });
        request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
        self.transfers.clone().transfer(request).await.map(|_| ())
    }

    pub(crate) async fn transfer<S: Name, D: Name>(&self, source: &S, destination: &D, progress: &str) -> Result<()> {
        let mut request = Request::new(TransferRequest {
            source: Some(pack(source)),
            destination: Some(pack(destination)),
            options: Some(TransferOptions { progress_stream: progress.to_owned() }),
        });
        request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
        let answer = self.transfers.clone().transfer(request).await;
        answer.map(|_| ()).map_err(|status| error::from_status(&status))
    }
}

pub(crate) fn store(name: &str) -> ImageStore {
    ImageStore { name: name.to_owned(), ..ImageStore::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_under_the_name_that_is_asked_for_unpacked_and_told_about() {
    let (place, bundle) = (Place::new(), bundle());
    let (_registry, reference) = serve(&bundle);
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let mut stream = caller.client.open_stream(&Scope::default(), "progress").await.unwrap();
    let told = tokio::spawn(async move {
        let mut told: Vec<Progress> = Vec::new();
        while let Some(any) = stream.receive().await.unwrap() {
            told.push(unpack(&any).unwrap().unwrap());
        }
        (told, stream)
    });
    let unpack = UnpackConfiguration { platform: None, snapshotter: "native".into() };
    let labels = HashMap::from([("team".to_owned(), "a".to_owned())]);
    let to = ImageStore { labels, unpacks: vec![unpack], ..store(NAME) };
    let from = OciRegistry { reference: reference.clone(), resolver: Some(RegistryResolver::default()) };
    let began = std::time::Instant::now();
    caller.transfer(&from, &to, "progress").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "who reads progress and does not close is not waited for");

    let services = place.services().await;
    let images: Vec<_> = services.images.list(&[]).try_collect().await.unwrap();
    let [image] = images.as_slice() else { panic!("{images:?}") };
    assert_eq!((image.name.as_str(), image.labels.get("team")), (NAME, Some("a")));
    let native = services.snapshotters.get("native").unwrap();
    let snapshots: Vec<snapshot::Info> = native.walk(&[]).try_collect().await.unwrap();
    assert_eq!(snapshots.iter().filter(|it| it.state == snapshot::State::Committed).count(), 2);

    let (told, _open) = told.await.unwrap();
    assert!(told[0].event.starts_with("Resolving from"), "{told:?}");
    assert!(told.last().unwrap().event.starts_with("Completed pull"), "{told:?}");
    for layer in &bundle.image().layers {
        let name = format!("layer-{}", layer.digest);
        let last = told.iter().rev().find(|it| it.name == name).unwrap();
        assert_eq!(last.event, "complete", "{told:?}");
        assert_eq!(last.desc.as_ref().unwrap().digest.parse::<Digest>().unwrap(), layer.digest);
        assert_eq!(last.parents, [reference.as_str()], "it stands below what is pulled");
    }
    let saved = told.iter().rev().find(|it| it.name == reference).unwrap();
    assert_eq!(saved.event, "saved", "{told:?}");
    let target = saved.desc.as_ref().unwrap();
    assert_eq!(
        (&target.media_type, &target.digest),
        (&bundle.root.media_type.to_string(), &bundle.root.digest.to_string())
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_and_told_about() {
    let (place, bundle) = (Place::new(), bundle());
    let (registry, reference) = serve(&bundle);
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    caller.transfer(&OciRegistry { reference, resolver: None }, &store(NAME), "").await.unwrap();

    let mut stream = caller.client.open_stream(&Scope::default(), "progress").await.unwrap();
    let told = tokio::spawn(async move {
        let mut told: Vec<Progress> = Vec::new();
        while let Some(any) = stream.receive().await.unwrap() {
            told.push(unpack(&any).unwrap().unwrap());
        }
        told
    });
    let elsewhere = DockerRegistry::start();
    for (host, event) in [(elsewhere.host(), "complete"), (registry.host(), "mounted from app")] {
        let to = OciRegistry { reference: format!("{host}/pushed:2"), resolver: Some(RegistryResolver::default()) };
        let progress = if event == "complete" { "progress" } else { "" };
        caller.transfer(&store(NAME), &to, progress).await.unwrap();
        // It comes back as it went.
        caller.transfer(&to, &store("registry.test/back:2"), "").await.unwrap();
        let services = place.services().await;
        let back = services.images.get(&"registry.test/back:2".parse().unwrap()).await.unwrap();
        assert_eq!(back.target.digest, bundle.root.digest);
    }
    let told = told.await.unwrap();
    assert!(told[0].event.starts_with("Pushing to"), "{told:?}");
    let last = told.last().unwrap();
    assert!(last.event.starts_with("Completed push"), "{told:?}");
    assert_eq!(u64::try_from(last.progress).unwrap(), bundle.size());
    for layer in &bundle.image().layers {
        let name = format!("layer-{}", layer.digest);
        assert_eq!(told.iter().rev().find(|it| it.name == name).unwrap().event, "complete", "{told:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_client_is_gone_stops_and_leaves_no_lease_and_no_tag() {
    let (place, bundle) = (Place::new(), bundle());
    let (_registry, reference) = serve(&bundle);
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    caller.transfer(&OciRegistry { reference, resolver: None }, &store(NAME), "").await.unwrap();
    let services = place.services().await;
    let leases = async || services.leases.list(&[]).await.unwrap();

    // It takes the first blob and never says so.
    let slow = Fake::start().await;
    slow.fault_method("PUT", "/v2/pushed/blobs/", Fault::Silence, 1);
    let to = OciRegistry { reference: format!("{}/pushed:2", slow.host()), resolver: None };
    let client = Caller::new(&place).await;
    let destination = to.clone();
    let push = tokio::spawn(async move { client.transfer(&store(NAME), &destination, "").await });
    let sent = || slow.requests().iter().any(|request| request.method == "PUT");
    soon(async || sent()).await;
    assert_eq!(leases().await.len(), 1, "what is pushed is held");
    push.abort();
    soon(async || leases().await.is_empty()).await;
    assert!(
        slow.manifest("pushed", "2").is_none() && slow.manifest("pushed", &bundle.root.digest.to_string()).is_none()
    );
    slow.forget_requests();
    caller.transfer(&store(NAME), &to, "").await.unwrap();
    assert_eq!(slow.manifest("pushed", "2").unwrap().1, bundle.blobs[&bundle.root.digest]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_says_so_to_who_waits_for_a_transfer_and_keeps_what_it_brought() {
    let (place, bundle) = (Place::new(), bundle());
    let daemon = place.start().await;
    let slow = Fake::start().await;
    for (digest, bytes) in &bundle.blobs {
        if digest == &bundle.root.digest {
            slow.add_manifest("app", Some("2"), bundle.root.media_type.as_str(), bytes.clone());
        } else {
            slow.add_blob("app", "application/octet-stream", bytes.clone());
        }
    }
    let layer = bundle.image().layers[1].digest.clone();
    slow.fault(format!("/v2/app/blobs/{layer}"), Fault::Silence);
    let from = OciRegistry { reference: format!("{}/app:2", slow.host()), resolver: None };
    let caller = Caller::new(&place).await;
    let pull = tokio::spawn(async move { caller.answer(Some(pack(&from)), Some(pack(&store(NAME)))).await });
    let asked = || slow.requests().iter().any(|request| request.path.ends_with(&layer.to_string()));
    soon(async || asked()).await;
    daemon.stop().await;
    let status = pull.await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(status.message().contains("the daemon is stopping (do it again"), "{status:?}");
    let daemon = place.start().await;
    let there = place.services().await.content.info(&bundle.image().layers[0].digest).await;
    assert!(there.is_ok(), "{there:?}");
    daemon.stop().await;
}

/// As every transfer of containerd 2's client has a lease.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_is_held_by_the_lease_of_the_client_too() {
    let (place, bundle) = (Place::new(), bundle());
    let (_registry, reference) = serve(&bundle);
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let services = place.services().await;
    let from = OciRegistry { reference, resolver: None };
    let pull = async |lease: &str| {
        let mut request = Request::new(TransferRequest {
            source: Some(pack(&from)),
            destination: Some(pack(&store(NAME))),
            options: None,
        });
        request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
        request.metadata_mut().insert("containerd-lease", lease.parse().unwrap());
        caller.transfers.clone().transfer(request).await.map_err(|status| error::from_status(&status))
    };
    let absent = pull("absent").await.unwrap_err();
    assert_eq!(absent.kind(), Kind::NotFound, "{absent}");
    assert!(services.images.get(&NAME.parse().unwrap()).await.is_err(), "nothing is begun");

    let options = lease::Options { id: Some("mine".parse().unwrap()), expiry: None, labels: Labels::new() };
    let mine = services.leases.create(options).await.unwrap();
    pull("mine").await.unwrap();
    let layer = &bundle.image().layers[0].digest;
    services.images.delete(&NAME.parse().unwrap(), windlass_core::image::Deletion::Synchronous).await.unwrap();
    services.content.info(layer).await.unwrap();
    services.leases.delete(&mine.id, windlass_core::gc::Deletion::Synchronous).await.unwrap();
    assert_eq!(services.content.info(layer).await.unwrap_err().kind(), Kind::NotFound);
    daemon.stop().await;
}

/// Waits until something is so.
async fn soon(is_so: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not come about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_asks_nobody_that_an_image_names_when_that_is_not_wanted() {
    let (registry, elsewhere, bundle) = (Fake::start().await, Fake::start().await, bundle());
    let layer = bundle.image().layers[0].digest.clone();
    let manifest = String::from_utf8(bundle.blobs[&bundle.root.digest].to_vec()).unwrap();
    let digest = format!("\"digest\":\"{layer}\"");
    let urls = format!("{digest},\"urls\":[\"{}/v2/files/blobs/{layer}\"]", elsewhere.url());
    assert_eq!(manifest.matches(&digest).count(), 1, "{manifest}");
    let manifest = manifest.replace(&digest, &urls);
    for (digest, bytes) in &bundle.blobs {
        let (place, repository) = if *digest == layer { (&elsewhere, "files") } else { (&registry, "app") };
        place.add_blob(repository, "", bytes.clone());
    }
    registry.add_manifest("app", Some("1"), bundle.root.media_type.as_str(), manifest);
    for wanted in [ForeignUrls::Refused, ForeignUrls::Asked] {
        let place = Place::new();
        let mut config = place.config();
        config.registry.foreign_urls = wanted;
        let daemon = start(config).await;
        let from = OciRegistry { reference: format!("{}/app:1", registry.host()), resolver: None };
        let pulled = Caller::new(&place).await.transfer(&from, &store(NAME), "").await;
        if wanted == ForeignUrls::Refused {
            let error = pulled.unwrap_err();
            assert_eq!((error.kind(), error.code()), (Kind::FailedPrecondition, "foreign-url-refused"), "{error}");
            assert_eq!(elsewhere.requests().len(), 0);
        } else {
            pulled.unwrap();
            assert_ne!(elsewhere.requests().len(), 0);
        }
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_other_platforms_comes_without_their_layers_and_layers_are_kept_as_configured() {
    let other = Image::new("linux/s390x").layer(Layer::new().file("other", "x")).build();
    let (place, own) = (Place::new(), bundle());
    let (_registry, reference) = serve(&Index::new().bundle(&own).bundle(&other).build());
    let mut config = place.config();
    config.content.layers = windlass::transfer::Content::Drop;
    let daemon = start(config).await;
    let caller = Caller::new(&place).await;
    let host = Platform::host();
    let platform = platforms::Platform { os: host.os, architecture: host.architecture, ..Default::default() };
    let unpack = UnpackConfiguration { platform: None, snapshotter: "native".into() };
    let to = ImageStore { platforms: vec![platform], all_metadata: true, unpacks: vec![unpack], ..store(NAME) };
    caller.transfer(&OciRegistry { reference, resolver: None }, &to, "").await.unwrap();
    let services = place.services().await;
    let here = async |descriptor: &Descriptor| services.content.info(&descriptor.digest).await.is_ok();
    for image in [own.image(), other.image()] {
        assert!(here(&image.manifest).await && here(&image.config).await);
        for layer in &image.layers {
            assert!(!here(layer).await, "{}", layer.digest);
        }
    }
    daemon.stop().await;
}

/// Everywhere where a value says its own type: an end of a transfer, the beginning of a stream, and what comes over it.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_type_that_is_not_meant_are_refused() {
    let place = Place::new();
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let refused = |outcome: Result<()>, kind: Kind, part: &str| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let strange = Progress::default();
    refused(caller.transfer(&strange, &store(NAME), "").await, Kind::Unimplemented, "Progress");
    refused(caller.transfer(&store(NAME), &strange, "").await, Kind::Unimplemented, "Progress");
    // The right type, and bytes that are something else.
    let lie = Any { type_url: OciRegistry::full_name(), value: vec![0x0a, 0xff] };
    refused(caller.send(Some(lie), Some(pack(&store(NAME)))).await, Kind::InvalidArgument, "OCIRegistry");
    refused(caller.send(None, Some(pack(&store(NAME)))).await, Kind::InvalidArgument, "no source");
    refused(caller.send(Some(pack(&store(NAME))), None).await, Kind::InvalidArgument, "no destination");

    let first = futures::stream::iter([pack(&strange)]);
    let mut request = Request::new(first);
    request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
    let opened = StreamingClient::new(place.channel().await).stream(request).await;
    assert_eq!(opened.unwrap_err().code(), tonic::Code::InvalidArgument);

    let mut stream = caller.client.open_stream(&Scope::default(), "in").await.unwrap();
    stream.send(&strange).await.unwrap();
    let from = ImageImportStream { stream: "in".into(), ..ImageImportStream::default() };
    refused(caller.transfer(&from, &store(NAME), "").await, Kind::InvalidArgument, "bytes were expected");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_of_ours_says_of_a_pull_is_checked() {
    let place = Place::new();
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let registry = OciRegistry { reference: "127.0.0.1:1/app:1".into(), resolver: None };
    let with = async |options: &[u8]| {
        let mut request = Request::new(TransferRequest {
            source: Some(pack(&registry)),
            destination: Some(pack(&store(NAME))),
            options: None,
        });
        request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
        request.metadata_mut().insert_bin("windlass-pull-bin", MetadataValue::from_bytes(options));
        caller.transfers.clone().transfer(request).await.unwrap_err()
    };
    let none_at_once = PullOptions { concurrent_downloads: Some(0), ..PullOptions::default() };
    let small = PullOptions { part_size: Some(1), ..PullOptions::default() };
    for (options, part) in [
        (vec![0xff], "windlass-pull-bin"),
        (none_at_once.encode_to_vec(), "no downloads at once"),
        (small.encode_to_vec(), "too small"),
    ] {
        let status = with(&options).await;
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        assert!(status.message().contains(part), "{status}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_transferred_is_said() {
    let place = Place::new();
    let daemon = place.start().await;
    let caller = Caller::new(&place).await;
    let registry = OciRegistry { reference: "127.0.0.1:1/app:1".into(), resolver: None };
    let refused = async |outcome: Result<()>, kind: Kind, part: &str| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(caller.transfer(&store(NAME), &registry, "").await, Kind::NotFound, NAME).await;
    refused(caller.transfer(&registry, &registry, "").await, Kind::Unimplemented, "to a registry").await;
    refused(caller.transfer(&store(NAME), &store("x"), "").await, Kind::NotFound, NAME).await;
    refused(caller.transfer(&registry, &store(NAME), "no stream").await, Kind::NotFound, "no stream").await;
    let strange = Progress::default();
    refused(caller.transfer(&strange, &registry, "").await, Kind::Unimplemented, "Progress").await;
    for directory in ["/no/such/directory", "relative"] {
        let hosts = RegistryResolver { host_dir: directory.into(), ..RegistryResolver::default() };
        let registry = OciRegistry { resolver: Some(hosts), ..registry.clone() };
        refused(caller.transfer(&registry, &store(NAME), "").await, Kind::InvalidArgument, directory).await;
    }
    // Nothing was recorded.
    let scope: Scope = Namespace::default().into();
    let services = caller.client.services(&scope).await.unwrap();
    assert_eq!(services.images.list(&[]).try_collect::<Vec<_>>().await.unwrap(), []);
    daemon.stop().await;
}

#[tokio::test]
async fn the_hosts_in_the_directory_of_a_client_are_asked() {
    let (place, bundle) = (Place::new(), bundle());
    let daemon = place.start().await;
    let (registry, _) = serve(&bundle);
    let caller = Caller::new(&place).await;
    let hosts = tempfile::tempdir().unwrap();
    std::fs::create_dir(hosts.path().join("a.test")).unwrap();
    std::fs::write(hosts.path().join("a.test/hosts.toml"), format!("server = \"http://{}\"\n", registry.host()))
        .unwrap();
    let host_dir = hosts.path().display().to_string();
    let resolver = Some(RegistryResolver { host_dir, ..RegistryResolver::default() });
    let from = OciRegistry { reference: "a.test/app:1".to_owned(), resolver };
    caller.transfer(&from, &store(NAME), "").await.unwrap();
    let scope: Scope = Namespace::default().into();
    let services = caller.client.services(&scope).await.unwrap();
    assert_eq!(services.images.get(&NAME.parse().unwrap()).await.unwrap().target.digest, bundle.root.digest);
    daemon.stop().await;
}
