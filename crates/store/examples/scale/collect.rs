//! A collection of a full root, and what a writer beside it notices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_core::gc::Collector as _;
use windlass_core::{Result, Scope};
use windlass_store::Store;

use super::{open, statistics};

/// How long the writer is watched on its own, before and between collections.
const ALONE: Duration = Duration::from_secs(3);
/// How long the writer rests between two changes.
const REST: Duration = Duration::from_millis(1);
/// How often is collected.
const ROUNDS: u32 = 3;

/// Collects while somebody writes.
pub(crate) async fn run(root: &Path) -> Result<Value> {
    let store = open(root).await?;
    let mut alone = watched(&store, async {
        tokio::time::sleep(ALONE).await;
        Ok(())
    })
    .await?
    .1;
    let (mut beside, mut seconds, mut marking, mut pause) = (Vec::new(), Vec::new(), Vec::new(), Duration::ZERO);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let (collected, waits) = watched(&store, store.collect()).await?;
        seconds.push(began.elapsed());
        marking.push(collected.marking);
        pause = pause.max(collected.longest_pause);
        beside.extend(waits);
    }
    Ok(json!({
        "seconds": middle(seconds),
        "marking_seconds": middle(marking),
        "longest_pause_seconds": pause.as_secs_f64(),
        "alone": statistics::of(&mut alone),
        "beside": statistics::of(&mut beside),
    }))
}

/// Returns the middle one, in seconds.
fn middle(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

/// Does something while a writer changes a record again and again, and returns how long each change took as well.
async fn watched<T>(store: &Store, work: impl Future<Output = Result<T>>) -> Result<(T, Vec<Duration>)> {
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (namespaces, done, namespace) = (store.namespaces(), done.clone(), Scope::default().namespace);
        async move {
            let mut waits = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                namespaces.set_label(&namespace, "written", &waits.len().to_string()).await?;
                waits.push(began.elapsed());
                tokio::time::sleep(REST).await;
            }
            Ok(waits)
        }
    });
    let result = work.await;
    done.store(true, Ordering::Relaxed);
    let waits = writer.await.map_err(|error| windlass_core::Error::internal("the writer panicked").source(error))??;
    Ok((result?, waits))
}
