//! Debian's containerd as a process of our own: its root, state and socket are in a directory that is thrown away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{packages, process};

/// How long it may take to answer.
const START: Duration = Duration::from_secs(20);
/// The name of the image that the others are made of.
pub(in crate::bench) const BASE: &str = "example.org/base:1";
/// What would touch the machine outside of the directory.
const UNUSED: [&str; 2] = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"];

/// A running containerd; it is stopped when this is dropped.
pub(in crate::bench) struct Containerd {
    child: Child,
    directory: PathBuf,
}

impl Containerd {
    /// Starts one that keeps everything below a directory.
    pub(in crate::bench) fn start(directory: &Path) -> Result<Self> {
        let mut command = configure(directory)?;
        let log = fs::File::create(directory.join("log")).context("create the log of containerd")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start `{}`", process::show(&command)))?;
        let mut this = Self { child, directory: directory.to_owned() };
        this.wait_until_it_answers()?;
        Ok(this)
    }

    /// Returns its client.
    pub(in crate::bench) fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.directory.join("socket"));
        ctr
    }

    /// Returns its version, as it says it.
    pub(super) fn version() -> Result<String> {
        let text = process::output(Command::new("containerd").arg("--version"))?;
        Ok(text.split_whitespace().nth(2).unwrap_or("of unknown version").to_owned())
    }

    /// Makes images, as [`make_images`] does.
    pub(super) fn make_images(&self, images: u64) -> Result<()> {
        make_images(&self.directory, || self.ctr(), images)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let began = Instant::now();
        while process::output(self.ctr().args(["namespaces", "ls"])).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("containerd ended ({status})\nhint: {} says why", self.directory.join("log").display());
            }
            if began.elapsed() > START {
                bail!("containerd does not answer after {} s", START.as_secs());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the configuration of a containerd that keeps everything below a directory, its socket as `socket`, and returns the
/// command that starts it.
pub(in crate::bench) fn configure(directory: &Path) -> Result<Command> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let [root, state, socket] = ["root", "state", "socket"].map(|name| directory.join(name).display().to_string());
    let configuration = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [{}]\n[grpc]\n  address = {socket:?}\n",
        UNUSED.map(|plugin| format!("{plugin:?}")).join(", ")
    );
    let file = directory.join("config.toml");
    fs::write(&file, configuration).context("write the configuration of containerd")?;
    let mut command = Command::new(packages::find("containerd").context("containerd is not installed")?);
    command.arg("--config").arg(file);
    Ok(command)
}

/// Makes images through a client: one that is imported, without layers, and names that are tagged onto it.
pub(in crate::bench) fn make_images(directory: &Path, ctr: impl Fn() -> Command, images: u64) -> Result<()> {
    let archive = directory.join("image.tar");
    write_image(&directory.join("layout"), &archive)?;
    process::output(ctr().args(["images", "import", "--no-unpack"]).arg(&archive)).context("import an image")?;
    let names: Vec<String> = (1..images).map(|number| format!("example.org/image-{number:06}:latest")).collect();
    for names in names.chunks(1000) {
        process::output(ctr().args(["images", "tag", BASE]).args(names)).context("tag images")?;
    }
    Ok(())
}

/// Writes an image without layers as an archive of an OCI layout.
fn write_image(layout: &Path, archive: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
    let blob = |media_type: &str, value: &serde_json::Value| -> Result<serde_json::Value> {
        let (text, new) = (value.to_string(), layout.join("new"));
        fs::write(&new, &text).with_context(|| format!("write {}", new.display()))?;
        let sum = process::output(Command::new("sha256sum").arg(&new))?;
        let hex = sum.split_whitespace().next().context("sha256sum says nothing")?;
        fs::rename(&new, blobs.join(hex)).with_context(|| format!("rename {}", new.display()))?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": text.len()}))
    };
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = blob("application/vnd.oci.image.config.v1+json", &config)?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": []});
    let mut manifest = blob(media_type, &manifest)?;
    if let Some(manifest) = manifest.as_object_mut() {
        manifest.insert("annotations".to_owned(), json!({"io.containerd.image.name": BASE}));
    }
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).context("write index.json")?;
    fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())
        .context("write oci-layout")?;
    process::run(Command::new("tar").arg("--create").arg("--file").arg(archive).arg("--directory").arg(layout).arg("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_that_is_written_is_one_that_skopeo_reads() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("image.tar");
        write_image(&directory.path().join("layout"), &archive).unwrap();
        let mut inspect = Command::new("skopeo");
        inspect.args(["inspect", "--raw"]).arg(format!("oci-archive:{}", archive.display()));
        let manifest = process::output(&mut inspect).unwrap();
        assert!(manifest.contains("application/vnd.oci.image.config.v1+json"), "{manifest}");
    }
}
