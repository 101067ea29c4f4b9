//! Running other programs, with errors that name the command as one would type it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Returns the workspace's root directory.
pub(crate) fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Returns the cargo that runs this program, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Returns the compiler that goes with it.
pub(crate) fn rustc() -> Command {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(workspace());
    command
}

/// Returns the directory that cargo builds into.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("read what cargo metadata says")?;
    let target = metadata.get("target_directory").and_then(|directory| directory.as_str());
    target.map(PathBuf::from).context("cargo metadata names no target directory")
}

/// Builds the command `dist` as it is released, and returns where it is.
pub(crate) fn build_dist() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "windlass-cli", "--bin", "dist"]))?;
    let dist = target()?.join("release/dist");
    if !dist.is_file() {
        bail!("cargo built no {}", dist.display());
    }
    Ok(dist)
}

/// Runs a command with the terminal as its own.
///
/// # Errors
/// When it cannot be started or does not succeed: both name the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("start `{shown}`"))?;
    succeeded(&shown, status, "")
}

/// Runs a command and returns what it wrote to stdout; what it writes to stderr is part of the error, if there is one.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start `{shown}`"))?;
    succeeded(&shown, output.status, &String::from_utf8_lossy(&output.stderr))?;
    String::from_utf8(output.stdout).with_context(|| format!("read what `{shown}` says"))
}

fn succeeded(shown: &str, status: ExitStatus, stderr: &str) -> Result<()> {
    if !status.success() {
        let said = stderr.trim();
        bail!("`{shown}` failed ({status}){}{said}", if said.is_empty() { "" } else { ": " });
    }
    Ok(())
}

/// Returns the command as one would type it in a shell.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = if program.file_stem().is_some_and(|stem| stem == "cargo") {
        "cargo".into()
    } else {
        program.to_string_lossy().into_owned()
    };
    let words = command.get_args().map(|word| quote(&word.to_string_lossy()));
    std::iter::once(quote(&program)).chain(words).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for the shell where it needs it.
fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("/usr/bin/chroot");
        command.args(["/a dir", "/bin/sh", "-c", "echo 'hi'", ""]);
        assert_eq!(show(&command), r"/usr/bin/chroot '/a dir' /bin/sh -c 'echo '\''hi'\''' ''");
    }

    #[test]
    fn a_failing_command_is_named_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo no room >&2; exit 3"])).unwrap_err().to_string();
        assert_eq!(error, "`sh -c 'echo no room >&2; exit 3'` failed (exit status: 3): no room");
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let error = run(&mut Command::new("no-such-program-here")).unwrap_err().to_string();
        assert_eq!(error, "start `no-such-program-here`");
    }
}
