//! The limit: what the work costs whoever does it, with the best program for each part, if two cores were never idle.
//!
//! Hash the compressed layers, inflate them, hash what comes out, make the files, write the compressed layers to the disk.
//! The sum of the CPU time of these programs, halved, is what a pull is compared with. A program runs for all layers in
//! one measurement, because the clock of a short run is too coarse.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::bench::measure::{self, Cost};
use crate::peer::Layout;

/// How many cores the limit has.
pub(super) const CORES: f64 = 2.0;

/// Each program with the arguments of the shell's loop over the compressed layers; `$n` counts them.
const PROGRAMS: [&str; 5] = [
    r#"sha256sum "$@""#,
    r#"for layer; do n=$((n + 1)); igzip -dc "$layer" >"$n.tar"; done"#,
    "sha256sum *.tar",
    r#"for layer; do n=$((n + 1)); mkdir "$n"; tar --extract --numeric-owner --file "$n.tar" --directory "$n"; done"#,
    r#"for layer; do n=$((n + 1)); dd if="$layer" of="$n.blob" bs=1M conv=fsync status=none; done"#,
];

/// Runs the programs, and returns what they cost together.
pub(super) fn cost(layout: &Layout, place: &Path, scratch: &Path) -> Result<Cost> {
    let layers = layout.layers()?;
    let mut sum = Cost::default();
    for program in PROGRAMS {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("set -e; cd \"$0\"; n=0; {program}")).arg(place).args(&layers);
        sum = sum + measure::cost(&shell, scratch, None)?;
    }
    Ok(sum)
}
