//! The generated code is what the generator makes of the descriptions.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{home, ours};

/// Set by `cargo xtask codegen`: the code is written instead of compared.
const WRITE: &str = "WINDLASS_CODEGEN";

/// Fields that carry contents, which are not copied.
const CONTENTS: [&str; 2] = [".containerd.services.content.v1", ".containerd.types.transfer.Data"];

#[test]
fn the_generated_code_is_current() {
    let made = tempfile::tempdir().unwrap();
    let mut config = prost_build::Config::new();
    config.enable_type_names().bytes(CONTENTS);
    tonic_prost_build::configure()
        .out_dir(made.path())
        .include_file("mod.rs")
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(ours(), config)
        .unwrap();
    let made = files(made.path());
    let kept = home().join("src/generated");
    if std::env::var_os(WRITE).is_some() {
        for name in files(&kept).keys().filter(|name| !made.contains_key(*name)) {
            std::fs::remove_file(kept.join(name)).unwrap();
        }
        for (name, text) in &made {
            std::fs::write(kept.join(name), text).unwrap();
        }
    }
    let kept = files(&kept);
    assert_eq!(made.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>(), "run cargo xtask codegen");
    for (name, text) in &made {
        assert!(
            kept.get(name) == Some(text),
            "src/generated/{name} is not what the descriptions say: run cargo xtask codegen"
        );
    }
}

fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
        .collect()
}
