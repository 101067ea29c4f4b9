//! A file becomes a blob, through the library.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use windlass_core::content::{Commit, Expected};
use windlass_core::error::IoResultExt as _;
use windlass_core::{Error, Result, Scope};

use super::open;

/// How much is read at once.
const PART: usize = 1 << 20;

/// Ingests the file, whose digest is not known before.
pub(crate) async fn run(root: &Path, path: PathBuf) -> Result<Value> {
    let store = open(root).await?;
    let content = store.content(&Scope::default());
    let began = Instant::now();
    let mut writer = content.writer(&"measured".parse()?, Expected::default()).await?;
    let (parts, mut read) = tokio::sync::mpsc::channel(2);
    let reading = tokio::task::spawn_blocking(move || -> Result<()> {
        let mut file = File::open(&path).attempt(|| format!("open {}", path.display()))?;
        loop {
            let mut part = Vec::with_capacity(PART);
            file.by_ref().take(PART as u64).read_to_end(&mut part).attempt(|| format!("read {}", path.display()))?;
            if part.is_empty() || parts.blocking_send(part).is_err() {
                return Ok(());
            }
        }
    });
    while let Some(part) = read.recv().await {
        writer.write(part.into()).await?;
    }
    reading.await.map_err(|error| Error::internal("the reader panicked").source(error))??;
    let info = writer.commit(Commit::default()).await?;
    Ok(json!({ "bytes": info.size, "seconds": began.elapsed().as_secs_f64() }))
}
