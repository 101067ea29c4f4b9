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

    #[test]
    fn any_bytes_are_a_state_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for algorithm in ALGORITHMS {
            let length = algorithm.hasher().save().len();
            prop_assert!(bytes.len() == length || Hasher::restore(algorithm, &bytes).is_err());
            let mut fitting = bytes.clone();
            fitting.resize(length, 0);
            let _ = Hasher::restore(algorithm, &fitting);
        }
    }
}
