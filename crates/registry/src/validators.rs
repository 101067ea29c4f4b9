//! What a host calls the version of a blob it sent, so that the rest is asked for of the same one: RFC 9110 sections 8.8.3
//! and 13.1.5.
//!
//! A digest says what a blob is, and whoever receives it verifies that; `If-Range` finds out before the rest has come that
//! a host has other bytes by now. Hosts that call the same blob by several names, as the machines behind one name do, are
//! not asked so.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::ETAG;
use http::{HeaderMap, HeaderValue};
use windlass_core::Digest;

/// The strong entity tags of blobs, by host; nothing for one that changed.
#[derive(Debug, Default)]
pub(crate) struct Validators(Mutex<HashMap<(String, Digest), Option<HeaderValue>>>);

impl Validators {
    /// Returns what to send as `If-Range`.
    pub(crate) fn of(&self, host: &str, digest: &Digest) -> Option<HeaderValue> {
        self.all().get(&(host.to_owned(), digest.clone())).cloned().flatten()
    }

    /// Takes note of what an answer with a blob, or a part of it, says. Tells whether it is another one than before.
    pub(crate) fn learn(&self, host: &str, digest: &Digest, headers: &HeaderMap) -> bool {
        // A weak one promises nothing about bytes.
        let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return false };
        let mut all = self.all();
        let known = all.entry((host.to_owned(), digest.clone())).or_insert_with(|| Some(tag.clone()));
        let is_other = known.as_ref().is_some_and(|known| known != tag);
        if is_other {
            *known = None;
        }
        is_other
    }

    // A panic while the lock was held leaves all that was known before.
    fn all(&self) -> MutexGuard<'_, HashMap<(String, Digest), Option<HeaderValue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(tag: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ETAG, HeaderValue::from_static(tag))])
    }

    #[test]
    fn a_strong_tag_is_remembered_until_there_is_another_one() {
        let (validators, digest) = (Validators::default(), Digest::sha256(b"x"));
        assert!(!validators.learn("a.test", &digest, &headers("W/\"weak\"")));
        assert_eq!(validators.of("a.test", &digest), None);
        assert!(!validators.learn("a.test", &digest, &headers("\"one\"")));
        assert!(!validators.learn("a.test", &digest, &headers("\"one\"")));
        assert_eq!(validators.of("a.test", &digest).unwrap(), "\"one\"");
        assert_eq!(validators.of("b.test", &digest), None);
        assert!(validators.learn("a.test", &digest, &headers("\"two\"")));
        assert!(!validators.learn("a.test", &digest, &headers("\"one\"")));
        assert_eq!(validators.of("a.test", &digest), None);
    }
}
