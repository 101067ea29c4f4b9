//! Applies one layer to a directory: `cargo run --release -p windlass-layer --example apply -- LAYER DIRECTORY`, or with a
//! third argument, `erofs`, makes an EROFS image of it there.
//!
//! The shortest way through the crate, and what its speed is measured with.

use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use windlass_core::diff::Whiteouts;
use windlass_core::error::IoResultExt as _;
use windlass_core::snapshot::{EROFS_LAYER, Mount};
use windlass_core::{Error, Result};
use windlass_layer::pipeline::{PART, Pipeline};
use windlass_layer::{Destination, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(layer), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err(Error::invalid_argument("two arguments are wanted: a layer and a directory"));
    };
    let image = arguments.next().is_some_and(|kind| kind.as_os_str() == "erofs");
    let mount = Mount {
        kind: if image { EROFS_LAYER } else { "bind" }.into(),
        source: directory.to_string_lossy().into_owned(),
        target: String::new(),
        options: vec!["rw".into(), "rbind".into()],
    };
    let destination = Destination::of(&[mount], Whiteouts::AsMounted)?;
    let mut pipeline = Pipeline::start(destination, &Options::default())?;
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
