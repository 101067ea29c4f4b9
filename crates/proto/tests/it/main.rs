//! The generated code and the descriptions it is made of.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod codegen;
mod published;

use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

/// Returns the directory of the crate.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every description below a directory, as paths relative to it.
fn descriptions(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![below.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                found.push(path.strip_prefix(below).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Compiles our own descriptions.
fn ours() -> FileDescriptorSet {
    let directory = home().join("proto");
    protox::compile(descriptions(&directory), [directory]).unwrap()
}
