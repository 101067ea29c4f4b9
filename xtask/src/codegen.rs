//! The code of the wire's messages, made of their descriptions.
//!
//! The generator is a test of the crate, which otherwise compares: so whoever changes a description and forgets this command
//! hears of it, and nobody builds a generator to build the crate.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Writes the generated code.
pub(crate) fn run() -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--package", "windlass-proto", "--test", "it", "codegen"])
        .env("WINDLASS_CODEGEN", "write")
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "the code could not be made");
    Ok(())
}
