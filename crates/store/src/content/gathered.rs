//! What a writer has accepted and not handed over yet.

use bytes::Bytes;
use windlass_core::Digest;
use windlass_core::digest::{Algorithm, Hasher};

/// Parts that follow each other, as they came.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) parts: Vec<Bytes>,
    pub(super) length: usize,
    /// The hash of the first bytes of them, and how many those are, once somebody asked.
    hashed: Option<(Hasher, usize)>,
}

impl Gathered {
    pub(super) fn push(&mut self, part: Bytes) {
        self.length += part.len();
        self.parts.push(part);
    }

    /// Makes one part of all.
    pub(super) fn joined(&mut self) -> Bytes {
        let mut all = std::mem::take(&mut self.parts);
        let joined = match all.as_mut_slice() {
            [one] => std::mem::take(one),
            all => all.concat().into(),
        };
        self.parts.push(joined.clone());
        joined
    }

    /// Returns the digest of all; what was hashed for an earlier answer is not hashed again.
    pub(super) fn digest(&mut self, algorithm: Algorithm) -> Digest {
        let before = self.hashed.take().filter(|(hasher, _)| hasher.algorithm() == algorithm);
        let (mut hasher, mut skipped) = before.unwrap_or_else(|| (algorithm.hasher(), 0));
        for part in &self.parts {
            let known = skipped.min(part.len());
            hasher.update(part.get(known..).unwrap_or_default());
            skipped -= known;
        }
        self.hashed = Some((hasher.clone(), self.length));
        hasher.finish()
    }
}
