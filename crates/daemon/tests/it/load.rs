//! Many clients, and clients that do not do their part.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use windlass_core::content::{Expected, IngesterExt as _};
use windlass_core::{Descriptor, Digest, Labels, MediaType, Services};
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

/// Waits until as few files are open as before.
async fn settle(before: usize) -> usize {
    for _ in 0..50 {
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
    let after = settle(before + 4).await;
    assert!(after <= before + 4, "{after} files are open, {before} were");
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
