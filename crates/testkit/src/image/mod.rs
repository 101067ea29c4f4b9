//! Images made to order, in memory: right ones, and ones that are wrong in a way that is asked for.
//!
//! The same calls give the same bytes, always.
//!
//! ```
//! use windlass_testkit::image::{Image, Layer};
//!
//! let base = Layer::new().dir("etc", 0o755).file("etc/hostname", b"windlass\n");
//! let top = Layer::new().whiteout("etc/hostname").symlink("etc/localtime", "/usr/share/zoneinfo/UTC");
//! let image = Image::new("linux/amd64").layer(base).layer(top).build();
//! assert_eq!(image.blobs.len(), 4);
//! ```

mod artifact;
mod bundle;
mod layer;
mod recipe;
mod signature;

pub use artifact::{artifact, artifact_of, schema1};
pub(crate) use bundle::add_to_layout;
pub use bundle::{Bundle, Index, Parts};
pub use layer::{Dialect, Encoded, Layer};
pub use recipe::{Flavour, Image, Tamper};
pub use signature::{Signature, Signer, payload, signatures};
