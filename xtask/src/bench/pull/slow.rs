//! A registry that gives every connection only so much: nginx before the other one.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::room::{NEEDED, Room};
use crate::bench::measure;
use crate::peer::{Registry, free_address};
use crate::{packages, process};

/// What a connection is given: 40 MB a second, as nginx writes it.
const RATE: &str = "40m";
/// How long nginx may take to answer.
const START: Duration = Duration::from_secs(10);

/// The options of `dist` that bring everything through one connection.
const ONE: [&str; 6] =
    ["--max-concurrent-downloads", "1", "--max-concurrent-ranges", "1", "--max-connections-per-host", "1"];

/// Returns how long `dist fetch` takes as it is by default, divided by how long it takes with one connection.
pub(super) fn ratio(dist: &Path, registry: &Registry, name: &str, room: &mut Room) -> Result<f64> {
    let place = room.place(NEEDED)?;
    let slow = Slow::start(&place.join("nginx"), registry.address())?;
    let reference = format!("{}/{name}", slow.address);
    let run = |root: &str, options: &[&str]| {
        measure::cold()?;
        let mut fetch = Command::new(dist);
        fetch.arg("--root").arg(place.join(root)).args(["--progress", "none", "fetch"]).args(options).arg(&reference);
        Ok::<_, anyhow::Error>(measure::wall(&mut fetch)?.as_secs_f64())
    };
    let one = run("one", &ONE).context("fetch through one connection")?;
    let parallel = run("parallel", &[]).context("fetch as by default")?;
    println!("{name} at {RATE}B/s a connection: {one:.2} s through one, {parallel:.2} s as by default");
    Room::give_back(&place)?;
    Ok(parallel / one)
}

/// A running nginx; it is stopped when this is dropped.
struct Slow {
    child: Child,
    address: SocketAddr,
}

impl Slow {
    fn start(directory: &Path, registry: SocketAddr) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let address = free_address()?;
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, text(directory, address, registry))
            .with_context(|| format!("write {}", configuration.display()))?;
        let log = directory.join("log");
        let mut nginx = Command::new(packages::find("nginx").context("nginx is not installed")?);
        nginx.arg("-e").arg(&log).arg("-c").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null());
        let child = nginx.spawn().with_context(|| format!("start `{}`", process::show(&nginx)))?;
        let mut slow = Self { child, address };
        let began = Instant::now();
        while TcpStream::connect_timeout(&slow.address, Duration::from_secs(1)).is_err() {
            if slow.child.try_wait()?.is_some() || began.elapsed() > START {
                bail!("nginx does not answer on {address}\nhint: {} may say why", log.display());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(slow)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process, nothing kept on the disk, and no more than the rate for an answer.
fn text(directory: &Path, address: SocketAddr, registry: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\nmaster_process off;\npid {directory}/pid;\nevents {{ worker_connections 256; }}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path {directory}/body;\n  proxy_temp_path {directory}/proxy;\n  fastcgi_temp_path {directory}/fastcgi;\n  \
         uwsgi_temp_path {directory}/uwsgi;\n  scgi_temp_path {directory}/scgi;\n  \
         server {{\n    listen {address};\n    location / {{\n      proxy_pass http://{registry};\n      proxy_http_version 1.1;\n      \
         proxy_set_header Host $http_host;\n      proxy_max_temp_file_size 0;\n      limit_rate {RATE};\n    }}\n  }}\n}}\n"
    )
}
