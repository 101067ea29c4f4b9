//! Made-up names that no other process and no earlier run has used.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time and 64 random bits in hexadecimal: sortable by age, and unique.
pub(crate) fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Every `RandomState` has keys of its own, the first of a thread from the system's random source.
    let random = RandomState::new().build_hasher().finish();
    format!("{:x}-{random:016x}", now.as_nanos())
}

#[cfg(test)]
mod tests {
    #[test]
    fn made_up_names_differ_and_are_identifiers() {
        let (a, b) = (super::unique(), super::unique());
        assert_ne!(a, b);
        windlass_core::identifier::validate("lease", &a).unwrap();
    }
}
