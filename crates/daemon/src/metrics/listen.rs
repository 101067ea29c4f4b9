//! `/metrics` over HTTP/1.1, on the loopback: one request a connection, of which the first line counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use windlass::Engine;
use windlass_core::error::IoResultExt as _;
use windlass_core::{Host as _, Result, Scope};

use super::{Numbers, Page, collections};

/// How long a request may take, to the end of its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How large a request may be, in bytes.
const MAX_REQUEST: u64 = 8 << 10;
/// How many may be answered at once.
const MAX_CONNECTIONS: usize = 16;

/// Serves for as long as the result lives.
pub(crate) async fn listen(address: SocketAddr, engine: Engine, numbers: Arc<Numbers>) -> Result<JoinSet<()>> {
    let listener = TcpListener::bind(address).await.attempt(|| format!("listen on {address} for metrics"))?;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let Ok((stream, _)) = stream else {
                tokio::time::sleep(crate::serve::PAUSE).await;
                continue;
            };
            let (engine, numbers) = (engine.clone(), numbers.clone());
            connections.spawn(async move {
                // Whoever asked may be gone, or slow.
                let _ = tokio::time::timeout(TIMEOUT, answer(stream, &engine, &numbers)).await;
            });
        }
    });
    Ok(serving)
}

async fn answer(mut stream: TcpStream, engine: &Engine, numbers: &Numbers) -> std::io::Result<()> {
    let line = first_line(&mut stream).await?;
    let mut words = line.split(' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/metrics")) => match page(engine, numbers).await {
            Ok(page) => ("200 OK", page.0),
            Err(error) => ("500 Internal Server Error", format!("{error}\n")),
        },
        (Some("GET" | "HEAD"), _) => ("404 Not Found", "there is /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !line.starts_with("HEAD ") {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

/// Reads a request to its end, and returns its first line.
async fn first_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut request = Vec::new();
    let mut limited = stream.take(MAX_REQUEST);
    while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"\n\n") {
        if limited.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().to_owned())
}

/// Writes down everything there is to count.
async fn page(engine: &Engine, numbers: &Numbers) -> Result<Page> {
    let mut page = Page::default();
    numbers.write(&mut page);
    collections(&mut page, engine.collections());
    let services = engine.services(&Scope::default()).await?;
    page.metric("windlass_namespaces", "gauge", "Namespaces.");
    page.value("windlass_namespaces", &[], services.namespaces.list().await?.len());
    let free = services.room.free(windlass_core::room::Keeps::Content).await?;
    if let Some(free) = free {
        page.metric("windlass_content_free_bytes", "gauge", "What is free where content is kept.");
        page.value("windlass_content_free_bytes", &[], free.bytes);
    }
    Ok(page)
}
