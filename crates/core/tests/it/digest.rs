//! Digests and running hashes.

use proptest::prelude::*;
use windlass_core::digest::{Algorithm, Digest, Hasher};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

proptest! {
    #[test]
    fn any_text_is_a_digest_or_refused(text in any::<String>()) {
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), text);
        }
    }

    #[test]
    fn what_was_hashed_is_read_back(bytes in any::<Vec<u8>>()) {
        for algorithm in ALGORITHMS {
            let digest = algorithm.digest(&bytes);
            prop_assert_eq!(digest.hex().len(), algorithm.hex_len());
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest.clone());
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }
    }

    #[test]
    fn a_hash_continues_wherever_it_was_saved(bytes in any::<Vec<u8>>(), cuts in proptest::collection::vec(any::<usize>(), 0..4)) {
        for algorithm in ALGORITHMS {
            let mut hasher = algorithm.hasher();
            let mut rest = bytes.as_slice();
            for cut in &cuts {
                let (now, later) = rest.split_at(cut % (rest.len() + 1));
                hasher.update(now);
                hasher = Hasher::restore(algorithm, &hasher.save()).unwrap();
                rest = later;
            }
            hasher.update(rest);
            prop_assert_eq!(hasher.finish(), algorithm.digest(&bytes));
        }
    }

    /// The saved state lies on a disk.
    #[test]
    fn a_damaged_state_is_refused(at in any::<usize>(), value in any::<u8>(), cut in any::<Option<u8>>()) {
        for algorithm in ALGORITHMS {
            let mut hasher = algorithm.hasher();
            hasher.update(b"some bytes that are hashed");
            let mut state = hasher.save();
            let whole = state.clone();
            let at = at % state.len();
            state[at] = value;
            if let Some(cut) = cut {
                state.truncate(usize::from(cut));
            }
            prop_assert_eq!(Hasher::restore(algorithm, &state).is_ok(), state == whole);
        }
    }
}
