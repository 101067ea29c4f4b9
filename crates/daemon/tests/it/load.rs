//! Many clients, and clients that do not do their part.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use windlass_core::any::Any;
use windlass_core::content::{Expected, IngesterExt as _};
use windlass_core::event::{Envelope, Event, Missed};
use windlass_core::{Descriptor, Digest, Host as _, Labels, MediaType, Namespace, Services};
use windlass_daemon::{Daemon, Process};
use windlass_proto::containerd::services::content::v1::ReadContentRequest;
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;

use crate::serving::Place;

const MIB: usize = 1 << 20;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Returns the memory of this process that is in use, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

async fn write(services: &Services, blob: Bytes) -> Digest {
    let digest = Digest::sha256(&blob);
    let descriptor = Descriptor::new(MediaType::from("x/y"), digest.clone(), blob.len() as u64);
    services.content.write_blob(&descriptor, blob, Labels::new().with("containerd.io/gc.root", "test")).await.unwrap();
    digest
}

/// Waits until as few files are open as before. Other tests of this process open some, too, and close them.
async fn settle(before: usize) -> usize {
    for _ in 0..300 {
        if open_files() <= before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    open_files()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_at_once_are_served_and_leave_no_file_open() {
    let place = Place::new();
    let daemon = place.start().await;
    let services = place.services().await;
    write(&services, Bytes::from_static(b"first")).await;
    let before = open_files();
    let one = |number: usize| {
        let services = services.clone();
        async move {
            let blob = Bytes::from(format!("blob {number}"));
            let mut writer =
                services.content.writer(&format!("w{number}").parse().unwrap(), Expected::default()).await?;
            writer.write(blob).await?;
            Ok::<_, windlass_core::Error>(writer)
        }
    };
    let writers: Vec<_> = join_all((0..1000).map(one)).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(services.content.statuses(&[]).await.unwrap().len(), 1000, "all of them are open");
    assert_eq!(services.namespaces.list().await.unwrap().len(), 1, "and others are answered");
    drop(writers);
    // Whatever a stream leaves open is there a thousand times.
    let after = settle(before + 100).await;
    assert!(after <= before + 100, "{after} files are open, {before} were");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_reading_take_little_memory_and_hold_nobody_up() {
    const SLOW: usize = 40;
    const BLOB: usize = 48 * MIB;
    let place = Place::new();
    let daemon = place.start().await;
    let services = place.services().await;
    let digest = write(&services, Bytes::from(vec![7; BLOB])).await;
    let files = open_files();
    let before = resident();
    let mut stuck = Vec::new();
    for _ in 0..SLOW {
        let mut client = ContentClient::new(place.channel().await);
        let request = ReadContentRequest { digest: digest.to_string(), ..ReadContentRequest::default() };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("containerd-namespace", "default".parse().unwrap());
        // Not one message of it is read.
        stuck.push((client.read(request).await.unwrap(), client));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = resident().saturating_sub(before);
    // All of it would be 1.9 GB. Buffers of both ends are in this process.
    assert!(grown < SLOW * 6 * MIB, "{} MiB for {SLOW} clients", grown / MIB);
    let answered = tokio::time::timeout(Duration::from_secs(5), services.namespaces.list());
    answered.await.expect("others are answered").unwrap();
    drop(stuck);
    let after = settle(files + 4).await;
    assert!(after <= files + 4, "{after} files are open, {files} were");
    daemon.stop().await;
}

/// Ten events a millisecond for two seconds, through sockets that nobody reads, and one that somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_a_second_pass_subscribers_that_stopped_reading() {
    const STALLED: usize = 20;
    const EVENTS: u64 = 20_000;
    let place = Place::new();
    let daemon = place.start().await;
    let services = place.services().await;
    let publisher = daemon.engine().services(&Namespace::default().into()).await.unwrap().events;
    let (files, before) = (open_files(), resident());
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let events = place.services().await.events;
        stalled.push(events.subscribe(&[]).await.unwrap());
    }
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
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    for number in 0..EVENTS {
        let payload = Any::new("type.example/Number", vec![7; 256]);
        let event = Event::Other { topic: "/test/event".to_owned(), payload };
        publisher.publish(Envelope::now(Namespace::default(), event)).await.unwrap();
        if number % 10 == 9 {
            tokio::time::sleep(Duration::from_millis(number / 10).saturating_sub(began.elapsed())).await;
        }
        if number % 2000 == 0 {
            let asked = Instant::now();
            services.namespaces.list().await.unwrap();
            slowest = slowest.max(asked.elapsed());
        }
    }
    // Two seconds, and what a machine has to do beside it.
    assert!(began.elapsed() < Duration::from_secs(20), "publishing took {:?}", began.elapsed());
    assert!(slowest < Duration::from_secs(3), "a call took {slowest:?}");
    let (read, missed) = tokio::time::timeout(Duration::from_secs(30), reader).await.unwrap().unwrap();
    assert_eq!(read + missed, EVENTS, "every event is read or counted");
    assert!(read > EVENTS / 20, "{read} were read, {missed} missed");
    // What waits for one is bounded: 4096 events of a third of a KiB, and the windows of its connection.
    let grown = resident().saturating_sub(before);
    assert!(grown < STALLED * 8 * MIB, "{} MiB for {STALLED} subscribers", grown / MIB);
    drop(stalled);
    let after = settle(files + 4).await;
    assert!(after <= files + 4, "{after} files are open, {files} were");
    daemon.stop().await;
}

/// Clients that begin to write and say nothing more: others write, and what was sent can be continued when they are gone.
#[tokio::test(flavor = "multi_thread")]
async fn writers_that_stop_writing_hold_up_nobody_but_themselves() {
    let place = Place::new();
    let daemon = place.start().await;
    let files = open_files();
    let mut stuck = Vec::new();
    for number in 0..50 {
        let services = place.services().await;
        let ingest = format!("stuck{number}").parse().unwrap();
        let mut writer = services.content.writer(&ingest, Expected::default()).await.unwrap();
        writer.write(Bytes::from_static(b"half")).await.unwrap();
        stuck.push((services, writer));
    }
    let services = place.services().await;
    let work = async {
        write(&services, Bytes::from_static(b"another")).await;
        services.content.statuses(&[]).await.unwrap()
    };
    let statuses = tokio::time::timeout(Duration::from_secs(5), work).await.expect("others are answered");
    assert_eq!(statuses.len(), 50);
    drop(stuck);
    let reference = "stuck7".parse().unwrap();
    let began = Instant::now();
    let mut writer = loop {
        match services.content.writer(&reference, Expected::default()).await {
            Ok(writer) => break writer,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(5), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(writer.status().await.unwrap().offset, 4);
    drop(writer);
    // One more connection is there, and the thread that serves it.
    let after = settle(files + 10).await;
    assert!(after <= files + 10, "{after} files are open, {files} were");
    daemon.stop().await;
}

/// How many threads of this process serve connections.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that has ended meanwhile has no name any more.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "windlass-serve").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_share_threads_which_end_when_nobody_needs_them() {
    let place = Place::new();
    let daemon = place.start().await;
    assert_threads(1).await;
    let connected = join_all((0..200).map(|_| place.services())).await;
    assert_threads(64).await;
    for services in &connected {
        services.namespaces.list().await.unwrap();
    }
    drop(connected);
    assert_threads(1).await;
    place.services().await.namespaces.list().await.unwrap();
    daemon.stop().await;
    assert_threads(0).await;
}

/// How many different sets of processors the threads of this process have.
fn sets_of_processors() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    let sets = statuses.filter_map(|status| {
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed:"))?;
        Some(line.to_owned())
    });
    sets.collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn who_makes_one_call_after_another_has_a_processor_for_as_long_as_he_does() {
    if std::thread::available_parallelism().unwrap().get() == 1 {
        // There is none to keep off.
        return;
    }
    let place = Place::new();
    let process = Process { alone: true, ..Process::default() };
    let daemon = Daemon::start(place.config(), process).await.unwrap();
    let services = place.services().await;
    let began = Instant::now();
    while sets_of_processors() == 1 {
        for _ in 0..100 {
            services.namespaces.list().await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    while sets_of_processors() > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(began.elapsed() < Duration::from_mins(1));
    }
    daemon.stop().await;
}

/// Waits until there are so many: a thread has its name some time after it was started.
async fn assert_threads(wanted: usize) {
    for _ in 0..300 {
        if threads() == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(threads(), wanted);
}
