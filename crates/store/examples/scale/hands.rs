//! Bytes that come at several places at once become a blob, as those of a pull do: in parts of the network's size, of which
//! some are written together.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_core::content::{Commit, Expected, ReaderAt, SparseWriter};
use windlass_core::{Error, Result, Scope};

use super::open;

/// What the network brings at once.
const PART: usize = 64 << 10;
/// How many of that are written together.
const TOGETHER: usize = 8;
/// How much one hand writes in order.
const RANGE: u64 = 8 << 20;

/// Writes so many MiB with so many hands, or appends them.
pub(crate) async fn run(root: &Path, mib: u64, hands: u64, follow: bool) -> Result<Value> {
    let store = open(root).await?;
    let content = store.content(&Scope::default());
    let size = mib << 20;
    let part: Bytes = (0..PART).map(|at| u8::try_from(at * 7 % 251).unwrap_or_default()).collect();
    let began = (Instant::now(), cpu());
    let declared = Expected { digest: None, size: Some(size) };
    let mut writer = content.writer(&format!("measured-{}", std::process::id()).parse()?, declared).await?;
    let mut tasks = tokio::task::JoinSet::new();
    if follow && let Some(tail) = writer.tail().await? {
        tasks.spawn(read(tail));
    }
    if hands == 0 {
        for _ in 0..size / PART as u64 {
            writer.write(part.clone()).await?;
        }
    } else if let Some(sparse) = writer.sparse().await? {
        let next = Arc::new(AtomicU64::new(0));
        for _ in 0..hands {
            tasks.spawn(write(sparse.clone(), part.clone(), size, next.clone()));
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Error::internal("a task panicked").source(error))??;
    }
    let written = began.0.elapsed();
    let info = writer.commit(Commit::default()).await?;
    Ok(json!({
        "bytes": info.size,
        "seconds": began.0.elapsed().as_secs_f64(),
        "written": written.as_secs_f64(),
        "cpu": cpu() - began.1,
    }))
}

async fn write(sparse: Arc<dyn SparseWriter>, part: Bytes, size: u64, next: Arc<AtomicU64>) -> Result<()> {
    loop {
        let start = next.fetch_add(RANGE, Ordering::Relaxed);
        if start >= size {
            return Ok(());
        }
        for at in (start..(start + RANGE).min(size)).step_by(PART * TOGETHER) {
            sparse.write_parts_at(at, vec![part.clone(); TOGETHER]).await?;
        }
    }
}

async fn read(tail: Arc<dyn ReaderAt>) -> Result<()> {
    let mut at = 0;
    loop {
        let part = tail.read_at(at, 1 << 20).await?;
        if part.is_empty() {
            return Ok(());
        }
        at += part.len() as u64;
    }
}

/// Returns the seconds that this process has worked.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 of proc(5), in hundredths of a second; the name in parentheses comes before.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / 100.0
}
