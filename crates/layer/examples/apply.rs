//! Applies one layer to a directory: `cargo run --release -p windlass-layer --example apply -- LAYER DIRECTORY`.
//!
//! The shortest way through the crate, and what its speed is measured with.

use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use windlass_core::diff::Whiteouts;
use windlass_core::error::IoResultExt as _;
use windlass_core::snapshot::Mount;
use windlass_core::{Error, Result};
use windlass_layer::Options;
use windlass_layer::pipeline::{PART, Pipeline};
use windlass_layer::target::Target;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(layer), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err(Error::invalid_argument("two arguments are wanted: a layer and a directory"));
    };
    let mount = Mount {
        kind: "bind".into(),
        source: directory.to_string_lossy().into_owned(),
        target: String::new(),
        options: vec!["rw".into(), "rbind".into()],
    };
    let target = Target::of(&[mount], Whiteouts::AsMounted)?;
    let mut pipeline = Pipeline::start(target, &Options::default())?;
    let mut file = std::fs::File::open(&layer).attempt(|| format!("open {}", layer.display()))?;
    loop {
        let mut part = vec![0; PART];
        let count = file.read(&mut part).attempt(|| format!("read {}", layer.display()))?;
        part.truncate(count);
        if count == 0 || !pipeline.push(Bytes::from(part)).await {
            break;
        }
    }
    println!("{:?}", pipeline.finish().await?);
    Ok(())
}
