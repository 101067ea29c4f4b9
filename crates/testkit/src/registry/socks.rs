//! A SOCKS 5 proxy that connects everyone to this machine, and remembers what it was asked for: RFC 1928 and RFC 1929.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A running proxy. It stops when it is dropped, and with it every connection.
#[derive(Debug)]
pub struct Socks {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Socks {
    /// Starts a proxy that anyone may use, or one that knows one user and the password.
    pub async fn start(user: Option<(&str, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let user = user.map(|(name, password)| (name.as_bytes().to_vec(), password.as_bytes().to_vec()));
        let seen = asked.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (user, seen) = (user.clone(), seen.clone());
                // A client that goes away is no concern of ours.
                connections.spawn(async move { serve(stream, user.as_ref(), &seen).await.ok() });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, asked, server }
    }

    /// Returns where it is: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns where it was to connect to, as `NAME:PORT` or `ADDRESS:PORT`, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type User = (Vec<u8>, Vec<u8>);

async fn serve(mut stream: TcpStream, user: Option<&User>, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    assert_eq!(stream.read_u8().await?, 5, "it is SOCKS 5");
    let methods = field(&mut stream).await?;
    let method = if user.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return stream.write_all(&[5, 0xff]).await;
    }
    stream.write_all(&[5, method]).await?;
    if let Some(user) = user {
        assert_eq!(stream.read_u8().await?, 1);
        let given = (field(&mut stream).await?, field(&mut stream).await?);
        let known = given == *user;
        stream.write_all(&[1, u8::from(!known)]).await?;
        if !known {
            return Ok(());
        }
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    assert_eq!(head[..3], [5, 1, 0], "it asks for a connection");
    let host = match head[3] {
        1 => stream.read_u32().await.map(|bits| std::net::Ipv4Addr::from_bits(bits).to_string())?,
        4 => stream.read_u128().await.map(|bits| std::net::Ipv6Addr::from_bits(bits).to_string())?,
        _ => String::from_utf8(field(&mut stream).await?).unwrap(),
    };
    let port = stream.read_u16().await?;
    asked.lock().unwrap().push(format!("{host}:{port}"));
    let Ok(mut there) = TcpStream::connect(("127.0.0.1", port)).await else {
        return stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
    copy_bidirectional(&mut stream, &mut there).await.map(drop)
}

/// A byte that says how many follow, and those.
async fn field(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u8().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
