//! Uploads to Debian's registry over a connection that is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use windlass_core::content::{Commit, copy};
use windlass_core::remote::{ByteRange, Push, Resolver as _};
use windlass_core::{Descriptor, Kind, MediaType};
use windlass_testkit::registry::DockerRegistry;

use crate::support::{fetch, noise, remote};

/// Passes on what it is sent, and cuts a connection each time that so many bytes have been sent in all.
async fn cutting(to: String, cuts: &'static [u64]) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (sent, mut connections) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&to).await.unwrap();
            connections.spawn(pass(client, server, sent.clone(), cuts));
        }
    });
    (address, tasks)
}

async fn pass(client: TcpStream, server: TcpStream, sent: Arc<AtomicU64>, cuts: &'static [u64]) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Ok(read @ 1..) = from_client.read(&mut buffer).await else { return };
            let before = sent.fetch_add(read as u64, Ordering::SeqCst);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            if cuts.iter().any(|cut| (before..before + read as u64).contains(cut)) {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_a_real_registry_that_is_cut_goes_on_or_begins_again() {
    let registry = DockerRegistry::start();
    let (proxy, _tasks) = cutting(registry.host().to_owned(), &[6_000_000, 16_000_000]).await;
    let bytes = noise(20_000_000);
    let blob = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes);
    let (remote, name) = (remote(), format!("{proxy}/a/b:1"));
    let pusher = remote.pusher(&name.parse().unwrap()).await.unwrap();
    let (mut source, mut continued) = (Bytes::from(bytes.clone()), Vec::new());
    'again: loop {
        let Push::Upload(mut writer) = pusher.push(&blob).await.unwrap() else { break };
        loop {
            match copy(&mut *writer, &mut source, None).await {
                // The end may be on its way yet.
                Ok(_) => match writer.commit(Commit::default()).await {
                    Ok(_) => break 'again,
                    Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
                },
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
                    // What the registry has been sent it may still be writing down.
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    continued.push(writer.status().await.unwrap().offset);
                    continue;
                }
            }
            continue 'again;
        }
    }
    let (_, _, back) = fetch(&remote, &name, &blob, ByteRange::default()).await.unwrap();
    assert!(back == bytes);
    assert!(!continued.is_empty());
    // distribution 2.8 forgets an upload of which a request was cut; a version that does not is gone on with.
    let begun = 1 + continued.iter().filter(|at| **at == 0).count();
    assert!(registry.log().matches("\"POST /v2/a/b/blobs/uploads/ ").count() >= begun, "{continued:?}");
    assert!(continued.iter().all(|at| *at == 0 || *at > 4_000_000), "{continued:?}");
}
