//! Where something is pushed to: the reference, and the digest that it is about to mean.

use windlass_core::{Digest, Error, Reference, Result, image};

/// Returns the name of a destination, which says by its digest to what its tag belongs.
///
/// # Errors
/// `InvalidArgument` when the reference has another digest, or the beginning of one.
pub(super) fn of(to: &Reference, digest: &Digest) -> Result<image::Name> {
    let object = to.object();
    match object.and_then(|object| object.object_digest()) {
        None => format!("{to}@{digest}").parse(),
        Some(_) if to.digest() == Some(digest) => to.to_string().parse(),
        Some(other) => {
            Err(Error::invalid_argument(format!("what is pushed to {to} has the digest {digest}, not {other}"))
                .hint("leave the digest out, or push what it is of"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_belongs_to_the_digest_that_is_pushed() {
        let (digest, other) = (Digest::sha256(b"x"), Digest::sha256(b"y"));
        let of = |to: String| of(&to.parse().unwrap(), &digest).map(|name| name.to_string());
        assert_eq!(of("a.test/b:1".to_owned()).unwrap(), format!("a.test/b:1@{digest}"));
        assert_eq!(of("oci:/d:1".to_owned()).unwrap(), format!("oci:/d:1@{digest}"));
        for same in ["a.test/b", "a.test/b:1", "oci:/d"] {
            assert_eq!(of(format!("{same}@{digest}")).unwrap(), format!("{same}@{digest}"));
        }
        assert!(of(format!("a.test/b:1@{other}")).is_err());
        assert!(of("a.test/b@sha256:12".to_owned()).is_err());
    }
}
