//! What `cargo xtask bench api` runs against a daemon, ours or containerd's, with the same client: how long single calls
//! take, alone and beside many writers, and how long a daemon takes until it answers. Each command prints one JSON object.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use windlass_core::content::IngesterExt as _;
use windlass_core::image::Name;
use windlass_core::{Descriptor, Error, Host as _, Labels, Leased, Namespace, Result, Services, gc, lease};
use windlass_grpc::Client;

const USAGE: &str = "\
usage: load get SOCKET IMAGE COUNT             how long it takes to look up an image, so many times
       load beside SOCKET IMAGE COUNT WRITERS RATE KIB
                                               the same while so many writers make blobs of so many KiB, so many a
                                               second in all, or as many as they can when that is 0
       load write SOCKET WRITERS RATE KIB      makes blobs until the input ends
       load ready SOCKET COMMAND...            how long a daemon takes from its start to its first answer";

/// How long to wait before asking again whether a daemon answers.
const STEP: Duration = Duration::from_micros(500);
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// On one thread: with more, half of a short call would be the hand-over from one to the other, with every daemon.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = match arguments.as_slice() {
        ["get", socket, image, count] => get(Path::new(socket), image, number(count)).await,
        ["beside", socket, image, count, writers, rate, kib] => {
            beside(Path::new(socket), image, number(count), &[writers, rate, kib]).await
        }
        ["write", socket, writers, rate, kib] => {
            write(Path::new(socket), number(writers), number(rate), number(kib)).await
        }
        ["ready", socket, program, arguments @ ..] => ready(Path::new(socket), program, arguments).await,
        _ => Err(Error::invalid_argument(USAGE)),
    };
    match measured {
        Ok(value) => println!("{value}"),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Reads a count; what is none counts as nothing, which every command survives.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

async fn get(socket: &Path, image: &str, count: u64) -> Result<Value> {
    let services = Client::connect(socket).await?.services(&Namespace::default().into()).await?;
    let mut times = look_up(&services, &image.parse()?, count).await?;
    Ok(json!({ "get": statistics(&mut times) }))
}

async fn look_up(services: &Services, image: &Name, count: u64) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        services.images.get(image).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// The writers are a process of their own, so that it is the daemon that both wait for and not each other.
async fn beside(socket: &Path, image: &str, count: u64, writers: &[&str]) -> Result<Value> {
    let this = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
    let mut command = Command::new(this);
    command.arg("write").arg(socket).args(writers).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Error::io("start the writers", error))?;
    let said = child.stdout.take().ok_or_else(|| Error::internal("the writers have no output"))?;
    let mut said = BufReader::new(said).lines().map_while(std::result::Result::ok);
    let at_work = said.next();
    let services = Client::connect(socket).await?.services(&Namespace::default().into()).await?;
    let times = look_up(&services, &image.parse()?, count).await;
    // They end when nobody holds their input any more.
    drop(child.stdin.take());
    let written = said.next().and_then(|line| serde_json::from_str::<Value>(&line).ok());
    let ended = child.wait().map_err(|error| Error::io("wait for the writers", error))?;
    match (at_work, written) {
        (Some(_), Some(written)) if ended.success() => {
            Ok(json!({ "get": statistics(&mut times?), "written": written }))
        }
        _ => Err(Error::aborted(format!("the writers ended early ({ended})"))),
    }
}

/// Makes blobs with so many writers, and so many a second, until the input ends; says so when all of them are at work.
async fn write(socket: &Path, writers: u64, rate: u64, kib: u64) -> Result<Value> {
    let size = usize::try_from(kib << 10).map_err(|_| Error::invalid_argument(USAGE))?;
    let start = Instant::now();
    let client = Client::connect(socket).await?;
    let leased = Leased::acquire(&client, &Namespace::default(), lease::Options::default()).await?;
    let (next, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        // A connection of its own, as every client has one.
        let client = Client::connect(socket).await?;
        let services = Leased::join(&client, &Namespace::default(), leased.lease().clone()).await?;
        let (next, enough) = (next.clone(), enough.clone());
        tasks.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if let Some(after) = (number * 1000).checked_div(rate) {
                    tokio::time::sleep_until((start + Duration::from_millis(after)).into()).await;
                }
                make(&services, number, size).await?;
            }
            Ok(())
        });
    }
    while next.load(Ordering::Relaxed) < 2 * writers {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (began, before) = (Instant::now(), next.load(Ordering::Relaxed));
    println!("at work");
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await;
    ended.map_err(|error| Error::internal("the reader of the input panicked").source(error))?.ok();
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    let rate = (next.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    enough.store(true, Ordering::Relaxed);
    while let Some(joined) = tasks.join_next().await {
        let made: Result<()> = joined.map_err(|error| Error::internal("a writer panicked").source(error))?;
        made?;
    }
    leased.release(gc::Deletion::Synchronous).await?;
    Ok(json!({ "blobs_per_second": rate }))
}

/// Makes a blob that no other call makes.
async fn make(services: &Services, number: u64, size: usize) -> Result<()> {
    let mut bytes = format!("blob {number} of {}\n", std::process::id()).into_bytes();
    bytes.resize(size, b'.');
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    services.content.write_blob(&descriptor, Bytes::from(bytes), Labels::new()).await
}

/// Starts a daemon, waits for its first answer, and stops it.
async fn ready(socket: &Path, program: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let child = command.spawn().map_err(|error| Error::io(format!("start {program}"), error))?;
    let mut daemon = Daemon(child);
    loop {
        if let Ok(client) = Client::connect(socket).await
            && client.introspection().snapshotters().await.is_ok()
        {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::deadline_exceeded(format!("{program} does not answer on {}", socket.display())));
        }
        if let Ok(Some(status)) = daemon.0.try_wait() {
            return Err(Error::unavailable(format!("{program} ended ({status})")));
        }
        tokio::time::sleep(STEP).await;
    }
    Ok(json!({ "seconds": began.elapsed().as_secs_f64() }))
}

/// A daemon that is asked to stop, and waited for, when this is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either failure.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Returns count, middle and tail in microseconds.
fn statistics(times: &mut [Duration]) -> Value {
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    json!({ "count": times.len(), "p50": at(50), "p99": at(99), "max": at(100) })
}
