//! What an engine publishes, and how it does without those who do not read.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use tempfile::TempDir;
use windlass::core::any::Any;
use windlass::core::container::{Container, Runtime};
use windlass::core::content::IngesterExt;
use windlass::core::event::{Envelope, Event, Exchange, Missed};
use windlass::core::field::FieldMask;
use windlass::core::gc::Deletion;
use windlass::core::image::Image;
use windlass::core::progress::Tracker;
use windlass::core::{Descriptor, Host, Labels, Listing, MediaType, Namespace, Platform, Services};
use windlass::transfer::{self, Pull};
use windlass::{Engine, NATIVE};
use windlass_testkit::image::Layer;
use windlass_testkit::memory::Remote;

async fn engine() -> (TempDir, Engine, Services) {
    let root = TempDir::new().unwrap();
    let engine = Engine::builder(root.path().join("root")).default_snapshotter(NATIVE).open().await.unwrap();
    let services = engine.services(&Namespace::default().into()).await.unwrap();
    (root, engine, services)
}

/// Reads the events that are there, as lines.
fn seen(events: &mut Listing<Envelope>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(event) = futures::FutureExt::now_or_never(events.next()).flatten() {
        let envelope = event.unwrap();
        assert!(envelope.timestamp.elapsed().unwrap() < Duration::from_mins(1));
        seen.push(format!("{} {}", envelope.namespace, shown(&envelope.event)));
    }
    seen
}

fn shown(event: &Event) -> String {
    let what = match event {
        Event::ContentCreate { digest, size } => format!("{} {size}", &digest.to_string()[..12]),
        Event::ContentDelete { digest } => digest.to_string()[..12].to_owned(),
        Event::ImageCreate { name, labels } | Event::ImageUpdate { name, labels } => format!("{name} {labels:?}"),
        Event::ImageDelete { name } => name.to_string(),
        Event::NamespaceCreate { name, labels } | Event::NamespaceUpdate { name, labels } => {
            format!("{name} {labels:?}")
        }
        Event::NamespaceDelete { name } => name.to_string(),
        Event::SnapshotPrepare { snapshotter, key, parent } => format!("{snapshotter} {key} {parent:?}"),
        Event::SnapshotCommit { snapshotter, key, name } => format!("{snapshotter} {key} {name}"),
        Event::SnapshotRemove { snapshotter, key } => format!("{snapshotter} {key}"),
        Event::ContainerCreate { id, image, runtime } => format!("{id} {image:?} {}", runtime.name),
        Event::ContainerUpdate { id, labels, .. } => format!("{id} {labels:?}"),
        Event::ContainerDelete { id } => id.clone(),
        other => format!("{other:?}"),
    };
    format!("{} {what}", event.topic())
}

#[tokio::test]
async fn a_writer_that_is_published_can_do_what_it_could() {
    let (_root, _engine, services) = engine().await;
    let bytes = bytes::Bytes::from_static(b"half");
    let whole = Descriptor::of("text/plain", b"halfhalf");
    let mut writer = services.content.writer(&whole.ingest_ref(), (&whole).into()).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    assert_eq!(writer.digest().await.unwrap(), Some(Descriptor::of("text/plain", &bytes).digest));
    assert!(writer.tail().await.unwrap().is_some());
    assert!(writer.sparse().await.unwrap().is_some());
}

#[tokio::test]
async fn every_change_is_published_when_it_was_made() {
    let (_root, _engine, services) = engine().await;
    let all = ["namespace".parse().unwrap()];
    let mut events = services.events.subscribe(&all).await.unwrap();

    let blob = Descriptor::of(MediaType::OCTET_STREAM, b"x");
    services.content.write_blob(&blob, "x".into(), Labels::new()).await.unwrap();
    services.content.write_blob(&blob, "x".into(), Labels::new()).await.unwrap();
    let image = Image { labels: Labels::new().with("a", "1"), ..Image::new("redis".parse().unwrap(), blob.clone()) };
    services.images.create(&image).await.unwrap();
    services.images.create(&image).await.unwrap_err();
    services.images.update(&image, &FieldMask::all()).await.unwrap();
    services.images.delete(&image.name, Deletion::Background).await.unwrap();
    services.content.delete(&blob.digest).await.unwrap();
    let (_, snapshots) = services.snapshotter(None).unwrap();
    let (active, name) = ("active".parse().unwrap(), "name".parse().unwrap());
    snapshots.prepare(&active, None, Labels::new()).await.unwrap();
    snapshots.commit(&name, &active, snapshot_commit()).await.unwrap();
    snapshots.view(&"view".parse().unwrap(), Some(&name), Labels::new()).await.unwrap();
    snapshots.remove(&"view".parse().unwrap()).await.unwrap();
    services.containers.create(&container()).await.unwrap();
    services.containers.update(&container(), &FieldMask::all()).await.unwrap();
    services.containers.delete("c1").await.unwrap();
    let other: Namespace = "other".parse().unwrap();
    services.namespaces.create(&other, Labels::new()).await.unwrap();
    services.namespaces.set_label(&other, "b", "2").await.unwrap();
    services.namespaces.delete(&other).await.unwrap();

    assert_eq!(
        seen(&mut events),
        [
            "default /content/create sha256:2d711 1",
            r#"default /images/create redis Labels({"a": "1"})"#,
            r#"default /images/update redis Labels({"a": "1"})"#,
            "default /images/delete redis",
            "default /content/delete sha256:2d711",
            "default /snapshot/prepare native active None",
            "default /snapshot/commit native active name",
            "default /snapshot/remove native view",
            "default /containers/create c1 None io.containerd.runc.v2",
            "default /containers/update c1 Labels({})",
            "default /containers/delete c1",
            "other /namespaces/create other Labels({})",
            r#"other /namespaces/update other Labels({"b": "2"})"#,
            "other /namespaces/delete other",
        ]
    );
}

fn snapshot_commit() -> windlass::core::snapshot::Commit {
    windlass::core::snapshot::Commit::default()
}

fn container() -> Container {
    Container {
        id: "c1".to_owned(),
        labels: Labels::new(),
        image: None,
        runtime: Runtime { name: "io.containerd.runc.v2".to_owned(), options: None },
        spec: None,
        snapshotter: None,
        snapshot_key: None,
        sandbox_id: None,
        extensions: std::collections::BTreeMap::new(),
        created_at: SystemTime::now(),
        updated_at: SystemTime::now(),
    }
}

#[tokio::test]
async fn a_pull_publishes_its_content_snapshots_and_image() {
    let (_root, engine, services) = engine().await;
    let mut events = services.events.subscribe(&[]).await.unwrap();
    let layers = [Layer::new().file("a", "a\n"), Layer::new().file("b", "b\n")];
    let [one, two] = layers;
    let bundle = windlass_testkit::image::Image::new(&Platform::host().to_string()).layer(one).layer(two).build();
    let (remote, reference) = (Remote::new(), "registry.test/app:1".parse().unwrap());
    remote.serve(&reference, &bundle);
    let pull = async || {
        let options = Pull::default();
        transfer::pull(&engine, &Namespace::default(), &remote, &reference, &options, &Tracker::new()).await.unwrap()
    };
    pull().await;
    let seen_of = |topics: Vec<String>, topic: &str| topics.iter().filter(|line| line.contains(topic)).count();
    let topics = seen(&mut events);
    let counted = ["/content/create", "/snapshot/prepare", "/snapshot/commit", "/images/create", "/images/update"]
        .map(|topic| seen_of(topics.clone(), topic));
    // The index or manifest, the config and two layers; a snapshot for each layer.
    assert_eq!(counted[1..], [2, 2, 1, 0], "{topics:#?}");
    assert!(counted[0] >= 4, "{topics:#?}");
    assert!(topics.last().unwrap().contains("/images/create"), "the image comes last: {topics:#?}");
    pull().await;
    let again = seen(&mut events);
    assert!(again.len() == 1 && again[0].contains("/images/update"), "the second pull: {again:?}");
}

/// containerd says which images and snapshots a collection removed, after what caused it, and nothing of content and leases.
#[tokio::test]
async fn what_is_collected_is_published_as_containerd_does() {
    let (_root, engine, services) = engine().await;
    let layers = [Layer::new().file("a", "a\n"), Layer::new().file("b", "b\n")];
    let [one, two] = layers;
    let bundle = windlass_testkit::image::Image::new(&Platform::host().to_string()).layer(one).layer(two).build();
    let (remote, reference) = (Remote::new(), "registry.test/app:1".parse().unwrap());
    remote.serve(&reference, &bundle);
    let team: Namespace = "team".parse().unwrap();
    let pulled = transfer::pull(&engine, &team, &remote, &reference, &Pull::default(), &Tracker::new()).await.unwrap();
    let top = pulled.snapshots[0].to_string();
    let of_team = engine.services(&team.clone().into()).await.unwrap();
    let (_, snapshots) = of_team.snapshotter(None).unwrap();
    let bottom = snapshots.stat(&top.parse().unwrap()).await.unwrap().parent.unwrap();
    let mut events = services.events.subscribe(&["namespace".parse().unwrap()]).await.unwrap();
    of_team.images.delete(&pulled.name, Deletion::Synchronous).await.unwrap();
    let gone = [
        format!("team /images/delete {}", pulled.name),
        format!("team /snapshot/remove native {top}"),
        format!("team /snapshot/remove native {bottom}"),
    ];
    assert_eq!(seen(&mut events), gone);

    // What nobody deleted: its time was up.
    let blob = Descriptor::of(MediaType::OCTET_STREAM, b"x");
    services.content.write_blob(&blob, "x".into(), Labels::new()).await.unwrap();
    let over = Labels::new().with(windlass::core::gc::EXPIRE, "2001-02-03T04:05:06Z");
    let image = Image { labels: over, ..Image::new("old".parse().unwrap(), blob.clone()) };
    services.images.create(&image).await.unwrap();
    drop(seen(&mut events));
    engine.collector().collect().await.unwrap();
    assert_eq!(seen(&mut events), ["default /images/delete old"]);
    assert!(services.content.info(&blob.digest).await.is_err(), "and its content is gone, unsaid");
}

/// One subscriber never reads, one reads all the time: 10,000 events a second come for two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_a_second_pass_a_subscriber_that_does_not_read() {
    const EVENTS: u64 = 20_000;
    let (_root, _engine, services) = engine().await;
    let mut stalled = services.events.subscribe(&[]).await.unwrap();
    let mut quick = services.events.subscribe(&[]).await.unwrap();
    let reader = tokio::spawn(async move {
        let (mut read, mut missed) = (0, 0);
        while read + missed < EVENTS {
            match quick.next().await.unwrap() {
                Ok(_) => read += 1,
                Err(error) => missed += Missed::of(&error).unwrap().0,
            }
        }
        (read, missed)
    });
    let exchange: Arc<dyn Exchange> = services.events.clone();
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    for number in 0..EVENTS {
        let payload = Any::new("type.example/Number", number.to_le_bytes().to_vec());
        let event = Event::Other { topic: "/test/event".to_owned(), payload };
        let one = Instant::now();
        exchange.publish(Envelope::now(Namespace::default(), event)).await.unwrap();
        slowest = slowest.max(one.elapsed());
        // Ten of a millisecond, then the next.
        if number % 10 == 9 {
            let due = Duration::from_millis(number / 10);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(4), "publishing took {:?}", began.elapsed());
    assert!(slowest < Duration::from_millis(500), "one took {slowest:?}");
    let (read, missed) = tokio::time::timeout(Duration::from_secs(20), reader).await.unwrap().unwrap();
    assert_eq!((read, missed), (EVENTS, 0), "who reads misses nothing");

    // The stalled one reads what was kept, then hears of the rest, then goes on.
    let (mut kept, mut told) = (0, 0);
    while kept + told < EVENTS {
        match stalled.next().await.unwrap() {
            Ok(_) => kept += 1,
            Err(error) => told += Missed::of(&error).unwrap().0,
        }
    }
    assert!(kept > 0 && told > 0, "{kept} were kept, {told} missed");
    services.images.delete(&"absent".parse().unwrap(), Deletion::Background).await.unwrap_err();
    let image = Image::new("redis".parse().unwrap(), Descriptor::of(MediaType::OCTET_STREAM, b"x"));
    services.images.create(&image).await.unwrap();
    assert_eq!(seen(&mut stalled).len(), 1);
}
