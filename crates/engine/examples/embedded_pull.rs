//! Pulls an image with the library: `cargo run --example embedded_pull -- ROOT REFERENCE`.

use windlass::Engine;

#[tokio::main]
async fn main() -> windlass::core::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(reference)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: embedded_pull ROOT REFERENCE");
        std::process::exit(2);
    };

    let engine = Engine::open(root).await?;
    let pulled = engine.pull(&reference).await?;

    println!("{} is {}", pulled.name, pulled.target.digest);
    println!("{} bytes downloaded, {} reused", pulled.totals.downloaded, pulled.totals.reused);
    Ok(())
}
