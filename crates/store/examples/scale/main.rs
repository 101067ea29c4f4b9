//! What `cargo xtask bench store` runs in a process of its own, against the store alone: fills a root with records, and
//! measures lookups, opening, collections, ingests and many writers. Each command prints one JSON object.

mod collect;
mod fill;
mod hands;
mod ingest;
mod lookup;
mod statistics;
mod writers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_core::{Error, Result, ResultExt as _};
use windlass_store::{LockWait, RootLock, Store};

const USAGE: &str = "\
usage: scale fill ROOT IMAGES       records of so many images, each with ten blobs, without their bytes
       scale open ROOT ROUNDS       how long opening takes
       scale lookup ROOT IMAGES     how long a lookup takes, of images and blobs of a filled root
       scale collect ROOT           how long a collection takes, and how long others wait for it
       scale ingest ROOT FILE       how long a file takes to become a blob
       scale hands ROOT MIB N       how much work so many MiB are that N hands write at once, 0: append
       scale follow ROOT MIB N      the same with a reader behind
       scale writers ROOT N BLOBS   how long N tasks take to make so many small blobs
       scale die ROOT               ends in the middle of changes, as a crash does";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = match arguments.as_slice() {
        ["fill", root, images] => fill::run(Path::new(root), number(images)).await,
        ["open", root, rounds] => opening(Path::new(root), number(rounds)).await,
        ["lookup", root, images] => lookup::run(Path::new(root), number(images)).await,
        ["collect", root] => collect::run(Path::new(root)).await,
        ["ingest", root, file] => ingest::run(Path::new(root), PathBuf::from(file)).await,
        ["hands", root, mib, hands] => hands::run(Path::new(root), number(mib), number(hands), false).await,
        ["follow", root, mib, hands] => hands::run(Path::new(root), number(mib), number(hands), true).await,
        ["writers", root, writers, blobs] => writers::run(Path::new(root), number(writers), number(blobs)).await,
        ["die", root] => writers::die(Path::new(root)).await,
        _ => Err(Error::invalid_argument(USAGE)),
    };
    match measured {
        Ok(value) => println!("{value}"),
        Err(error) => {
            eprintln!("error: {error}");
            return std::process::ExitCode::FAILURE;
        }
    }
    std::process::ExitCode::SUCCESS
}

/// Reads a count; what is none counts as nothing, which every command survives.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

/// Opens a root without snapshotters.
async fn open(root: &Path) -> Result<Store> {
    // What the last owner of the root still writes may take a moment.
    let lock = RootLock::acquire(root, LockWait::UpTo(Duration::from_secs(30))).await?;
    Store::open(lock, BTreeMap::new()).await.context(|| format!("open {}", root.display()))
}

/// Measures opening, from the lock to the store.
async fn opening(root: &Path, rounds: u64) -> Result<Value> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let store = open(root).await?;
        times.push(began.elapsed());
        drop(store);
    }
    Ok(json!({ "open": statistics::of(&mut times) }))
}
