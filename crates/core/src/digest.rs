//! Digests of content, and the two derived identities of layers: diff ids and chain ids.
//!
//! Text form and registered algorithms: OCI image-spec, `descriptor.md`, section "Digests". Chain ids: `config.md`,
//! section "Layer ChainID".

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::{DeserializeStateError, SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::error::{Error, Result};

/// A hash algorithm that content can be addressed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256, which every implementation must support.
    Sha256,
    /// SHA-384, which Docker's digest library also accepts.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Returns the name as it stands before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns the length of the encoded part in hexadecimal digits.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    /// Starts to hash.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher(State::Sha256(Sha256::new())),
            Self::Sha384 => Hasher(State::Sha384(Sha384::new())),
            Self::Sha512 => Hasher(State::Sha512(Sha512::new())),
        }
    }

    /// Hashes bytes that are all there.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            _ => Err(Error::invalid_argument(format!("digest algorithm {text:?} is not supported"))
                .hint("sha256, sha384 and sha512 are")),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The digest of some content: an algorithm and that many lower-case hexadecimal digits. Cheap to clone.
///
/// ```
/// use windlass_core::digest::{Algorithm, Digest};
///
/// let digest = Algorithm::Sha256.digest(b"hello");
/// assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
/// assert!("sha256:abc".parse::<Digest>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Arc<str>,
}

impl Digest {
    /// Hashes bytes with SHA-256.
    pub fn sha256(bytes: &[u8]) -> Self {
        Algorithm::Sha256.digest(bytes)
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the part after the colon.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns the first twelve digits, enough for a person to tell digests apart.
    pub fn short(&self) -> &str {
        self.hex.get(..12).unwrap_or(&self.hex)
    }

    fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
        let hex: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        Self { algorithm, hex: hex.into() }
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(Error::invalid_argument(format!("digest {text:?} has no algorithm"))
                .hint("a digest looks like sha256: and 64 hexadecimal digits"));
        };
        let algorithm: Algorithm = algorithm.parse().map_err(|e: Error| e.context(format!("digest {text:?}")))?;
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid_argument(format!(
                "digest {text:?} must have {} lower-case hexadecimal digits after {algorithm}:",
                algorithm.hex_len()
            )));
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A running hash, whose state can be saved and continued in another process.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha384(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Returns the digest of everything added so far.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest::from_bytes(Algorithm::Sha256, &hash.finalize()),
            State::Sha384(hash) => Digest::from_bytes(Algorithm::Sha384, &hash.finalize()),
            State::Sha512(hash) => Digest::from_bytes(Algorithm::Sha512, &hash.finalize()),
        }
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha384(_) => Algorithm::Sha384,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the running state, to be handed to [`Hasher::restore`] later.
    pub fn save(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(hash) => hash.serialize().to_vec(),
            State::Sha384(hash) => hash.serialize().to_vec(),
            State::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    /// Continues from a saved state.
    ///
    /// Whoever keeps a state keeps a checksum with it: a damaged one is not always recognised here, and to go on with it
    /// gives a wrong digest or panics.
    ///
    /// # Errors
    /// `InvalidArgument` when the state is not one that [`Hasher::save`] returned for the algorithm.
    pub fn restore(algorithm: Algorithm, state: &[u8]) -> Result<Self> {
        fn restored<H: SerializableState>(state: &[u8]) -> std::result::Result<H, DeserializeStateError> {
            let state = SerializedState::<H>::try_from(state).map_err(|_| DeserializeStateError)?;
            H::deserialize(&state)
        }
        let restored = match algorithm {
            Algorithm::Sha256 => restored(state).map(State::Sha256),
            Algorithm::Sha384 => restored(state).map(State::Sha384),
            Algorithm::Sha512 => restored(state).map(State::Sha512),
        };
        restored
            .map(Self)
            .map_err(|_| Error::invalid_argument(format!("{} bytes are not a saved {algorithm} state", state.len())))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm())
    }
}

/// Generates a newtype over [`Digest`].
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                text.parse().map(Self)
            }
        }
    };
}

identity! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}
identity! {
    /// The identity of a stack of layers: what a committed snapshot is named by.
    ChainId
}

impl ChainId {
    /// Returns the identity of `diff_id` on top of `parent`.
    ///
    /// ```
    /// use windlass_core::{ChainId, DiffId, Digest};
    ///
    /// let base = DiffId(Digest::sha256(b"base"));
    /// assert_eq!(ChainId::of(None, &base).0, base.0);
    /// assert_ne!(ChainId::of(Some(&ChainId::of(None, &base)), &base).0, base.0);
    /// ```
    pub fn of(parent: Option<&ChainId>, diff_id: &DiffId) -> Self {
        match parent {
            None => Self(diff_id.0.clone()),
            Some(parent) => Self(diff_id.0.algorithm().digest(format!("{parent} {diff_id}").as_bytes())),
        }
    }

    /// Returns the chain id of every prefix of the layers, bottom first.
    pub fn chain(diff_ids: &[DiffId]) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            chain.push(Self::of(chain.last(), diff_id));
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors_of_each_algorithm() {
        // FIPS 180-4 examples for "abc".
        assert_eq!(
            Algorithm::Sha256.digest(b"abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(Algorithm::Sha384.digest(b"abc").hex().starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert!(Algorithm::Sha512.digest(b"abc").hex().starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn a_restored_hasher_continues_where_the_saved_one_stopped() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
            let bytes: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
            for cut in [0, 1, 63, 64, 65, 127, 128, 129, 3999] {
                let mut first = algorithm.hasher();
                first.update(&bytes[..cut]);
                let mut second = Hasher::restore(algorithm, &first.save()).unwrap();
                second.update(&bytes[cut..]);
                assert_eq!(second.finish(), algorithm.digest(&bytes), "{algorithm} cut at {cut}");
            }
            assert!(Hasher::restore(algorithm, b"short").is_err());
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        for text in ["", "sha256", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper, "sha256:zz"] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| DiffId(Digest::sha256(bytes)));
        let chain = ChainId::chain(&[a.clone(), b.clone(), c.clone()]);
        assert_eq!(chain[0].0, a.0);
        assert_eq!(chain[1].0, Digest::sha256(format!("{a} {b}").as_bytes()));
        assert_eq!(chain[2].0, Digest::sha256(format!("{} {c}", chain[1]).as_bytes()));
    }
}
