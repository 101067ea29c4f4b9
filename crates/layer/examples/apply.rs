//! Applies layers to directories, all at once:
//! `cargo run --release -p windlass-layer --example apply -- [--erofs] LAYER DIRECTORY [LAYER DIRECTORY]...`; with `--erofs`
//! it makes an EROFS image of each there.
//!
//! The shortest way through the crate, and what its speed is measured with.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use windlass_core::diff::{Applied, Whiteouts};
use windlass_core::error::IoResultExt as _;
use windlass_core::snapshot::{EROFS_LAYER, Mount};
use windlass_core::{Error, Result};
use windlass_layer::pipeline::{PART, Pipeline};
use windlass_layer::writeback::Writeback;
use windlass_layer::{Destination, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let image = arguments.first().is_some_and(|first| first.as_os_str() == "--erofs");
    arguments.drain(..usize::from(image));
    let (pairs, rest) = arguments.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Error::invalid_argument("pairs of arguments are wanted: a layer and a directory"));
    }
    let begun = Instant::now();
    let writeback = Writeback::default();
    let layers = pairs.iter().map(|[layer, directory]| apply(layer, directory, image, &writeback));
    for applied in futures::future::try_join_all(layers).await? {
        println!("{applied:?}");
    }
    println!("extracted after {:.2} s", begun.elapsed().as_secs_f64());
    for [_, directory] in pairs {
        let attempt = || format!("sync {}", directory.display());
        rustix::fs::syncfs(std::fs::File::open(directory).attempt(attempt)?).attempt(attempt)?;
    }
    println!("on the disk after {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

async fn apply(layer: &Path, directory: &Path, image: bool, writeback: &Writeback) -> Result<Applied> {
    let mount = Mount {
        kind: if image { EROFS_LAYER } else { "bind" }.into(),
        source: directory.to_string_lossy().into_owned(),
        target: String::new(),
        options: vec!["rw".into(), "rbind".into()],
    };
    let destination = Destination::of(&[mount], Whiteouts::AsMounted)?;
    let mut pipeline = Pipeline::start(destination, &Options::default(), Some(writeback.clone()))?;
    let mut file = std::fs::File::open(layer).attempt(|| format!("open {}", layer.display()))?;
    loop {
        let mut part = vec![0; PART];
        let count = file.read(&mut part).attempt(|| format!("read {}", layer.display()))?;
        part.truncate(count);
        if count == 0 || !pipeline.push(Bytes::from(part)).await {
            break;
        }
    }
    pipeline.finish().await
}
