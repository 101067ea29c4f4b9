//! The peers that run beside us: Debian's registry as a process of our own, and skopeo to put an image into it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{packages, process};

/// How long the registry may take to answer.
const START: Duration = Duration::from_secs(20);

/// A running `docker-registry` on a free loopback port; it is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    address: SocketAddr,
    configuration: PathBuf,
}

impl Registry {
    /// Starts a registry that keeps everything below a directory.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let storage = directory.join("storage");
        std::fs::create_dir_all(&storage).with_context(|| format!("create {}", storage.display()))?;
        let address = free_address()?;
        let configuration = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            storage.display()
        );
        std::fs::write(&configuration, text).with_context(|| format!("write {}", configuration.display()))?;
        let log = directory.join("registry.log");
        let log = std::fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = serve(&configuration)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start `{}`", process::show(&command)))?;
        let mut registry = Self { child, address, configuration };
        registry.wait_until_it_answers()?;
        Ok(registry)
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the command that starts it again, on the same address and with the same storage.
    pub(crate) fn again(&self) -> Result<String> {
        Ok(process::show(&serve(&self.configuration)?))
    }

    /// Returns the reference that an image will have here, and the command that puts it here.
    pub(crate) fn push(&self, layout: &Layout, name: &str) -> (String, Command) {
        let reference = format!("{}/{name}", self.address);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
        skopeo.arg(layout.skopeo()).arg(format!("docker://{reference}"));
        (reference, skopeo)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "docker-registry ended ({status})\nhint: {} is its configuration, registry.log beside it says why",
                    self.configuration.display()
                );
            }
            if began.elapsed() > START {
                bail!("docker-registry does not answer on {} after {} s", self.address, START.as_secs());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(configuration: &Path) -> Result<Command> {
    let program = packages::find("docker-registry").context("docker-registry is not installed")?;
    let mut command = Command::new(program);
    command.arg("serve").arg(configuration);
    Ok(command)
}

/// Returns a loopback address on which nobody listens at this moment.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free loopback port")?;
    listener.local_addr().context("find a free loopback port")
}

/// An image in an OCI layout directory.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The layout.
    pub(crate) directory: PathBuf,
    /// The image's tag in it.
    pub(crate) tag: String,
}

impl Layout {
    /// Returns the image as skopeo names it.
    pub(crate) fn skopeo(&self) -> String {
        format!("oci:{}:{}", self.directory.display(), self.tag)
    }

    /// Returns the files of the layers, from the lowest up.
    ///
    /// # Errors
    /// When the layout is not one, or has an index of several images under the tag.
    pub(crate) fn layers(&self) -> Result<Vec<PathBuf>> {
        let read = |path: PathBuf| -> Result<serde_json::Value> {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
        };
        let index = read(self.directory.join("index.json"))?;
        let manifests = index.pointer("/manifests").and_then(serde_json::Value::as_array);
        let tagged = |manifest: &&serde_json::Value| {
            let name = manifest.pointer("/annotations/org.opencontainers.image.ref.name");
            name.and_then(serde_json::Value::as_str) == Some(&self.tag)
        };
        let manifest = manifests.and_then(|manifests| manifests.iter().find(tagged));
        let manifest =
            manifest.and_then(|manifest| self.blob(manifest)).with_context(|| format!("find {}", self.skopeo()))?;
        let manifest = read(manifest)?;
        let layers =
            manifest.pointer("/layers").and_then(serde_json::Value::as_array).context("the manifest has no layers")?;
        layers.iter().map(|layer| self.blob(layer).context("a layer has no digest")).collect()
    }

    fn blob(&self, descriptor: &serde_json::Value) -> Option<PathBuf> {
        let (algorithm, hex) = descriptor.get("digest")?.as_str()?.split_once(':')?;
        Some(self.directory.join("blobs").join(algorithm).join(hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_into_the_registry_is_served_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout { directory: directory.path().join("layout"), tag: "empty".to_owned() };
        let image = format!("{}:{}", layout.directory.display(), layout.tag);
        process::run(Command::new("umoci").args(["init", "--layout"]).arg(&layout.directory)).unwrap();
        process::run(Command::new("umoci").args(["new", "--image", &image])).unwrap();

        let registry = Registry::start(&directory.path().join("registry")).unwrap();
        let (reference, mut push) = registry.push(&layout, "test/empty:1");
        process::run(&mut push).unwrap();
        let mut inspect = Command::new("skopeo");
        inspect.args(["inspect", "--raw", "--tls-verify=false"]).arg(format!("docker://{reference}"));
        let manifest = process::output(&mut inspect).unwrap();
        assert!(manifest.contains("application/vnd.oci.image.config.v1+json"), "{manifest}");

        let address = registry.address();
        drop(registry);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn the_layers_of_a_layout_are_found_by_its_tag() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, json: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, json).unwrap();
        };
        write(
            "index.json",
            r#"{"manifests":[{"digest":"sha256:aa"},{"digest":"sha256:bb","annotations":{"org.opencontainers.image.ref.name":"small"}}]}"#,
        );
        write("blobs/sha256/bb", r#"{"layers":[{"digest":"sha256:11"},{"digest":"sha512:22"}]}"#);
        let layout = |tag: &str| Layout { directory: directory.path().to_owned(), tag: tag.to_owned() };
        let blob = |path: &str| directory.path().join("blobs").join(path);
        assert_eq!(layout("small").layers().unwrap(), [blob("sha256/11"), blob("sha512/22")]);
        assert!(layout("large").layers().unwrap_err().to_string().contains("large"));
    }
}
