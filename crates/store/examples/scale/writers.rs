//! Many small blobs, by one task or by many at once; each is durable before its task makes the next one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use windlass_core::content::IngesterExt as _;
use windlass_core::{Descriptor, Error, Labels, Result, Scope, content};

use super::{open, statistics};

/// How large a blob is.
const SIZE: usize = 4096;

/// Makes blobs, with so many tasks at a time.
pub(crate) async fn run(root: &Path, writers: u64, blobs: u64) -> Result<Value> {
    let store = open(root).await?;
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..writers {
        let (content, next) = (store.content(&Scope::default()), next.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= blobs {
                    return Ok(times);
                }
                let began = Instant::now();
                make(&*content, writers, number).await?;
                times.push(began.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        let of_task: Result<Vec<_>> = joined.map_err(|error| Error::internal("a writer panicked").source(error))?;
        times.extend(of_task?);
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({ "blobs": blobs, "seconds": seconds, "commit": statistics::of(&mut times) }))
}

/// Ends in the middle of changes.
pub(crate) async fn die(root: &Path) -> Result<Value> {
    let store = open(root).await?;
    let content = store.content(&Scope::default());
    for number in 0..8 {
        make(&*content, 0, number).await?;
    }
    let _unfinished = tokio::spawn(async move { make(&*content, 0, 8).await });
    tokio::task::yield_now().await;
    std::process::abort();
}

/// Makes a blob that no other call makes.
async fn make(content: &dyn content::Store, series: u64, number: u64) -> Result<()> {
    let mut bytes = format!("blob {number} of series {series}\n").into_bytes();
    bytes.resize(SIZE, b'.');
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    content.write_blob(&descriptor, Bytes::from(bytes), Labels::new()).await
}
