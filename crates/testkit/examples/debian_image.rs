//! Makes one of the real images: `debian_image small|files|blobs|many CACHE LAYOUT`.

use std::path::Path;

use windlass_testkit::debian;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, cache, layout] = arguments.as_slice() else {
        eprintln!("usage: debian_image small|files|blobs|many CACHE LAYOUT");
        std::process::exit(2);
    };
    let packages = match recipe.as_str() {
        "files" => debian::FILES,
        "blobs" => debian::BLOBS,
        "many" => debian::MANY,
        _ => debian::SMALL,
    };
    match debian::image(Path::new(cache), packages, Path::new(layout), recipe) {
        Ok(image) => {
            for layer in &image.layers {
                let size = layer.descriptor.size;
                println!("{} {size:>11} bytes {:>6} entries", layer.descriptor.digest, layer.entries);
            }
            println!("{}", image.root.digest);
        }
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}
