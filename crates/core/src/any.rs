//! A typed value whose type this engine does not have to know.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A value and the URL of its type, carried through untouched: runtime options, specs, extensions, events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Any {
    /// What the bytes are.
    pub type_url: String,
    /// The encoded value; base64 (RFC 4648, section 4) where it is written as text.
    #[serde(with = "base64_text")]
    pub value: Vec<u8>,
}

impl Any {
    /// Makes a value of a type.
    pub fn new(type_url: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { type_url: type_url.into(), value: value.into().to_vec() }
    }
}

mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_base64_in_json_and_comes_back() {
        let any = Any::new("type.example/Spec", vec![0, 1, 254, 255]);
        let json = serde_json::to_string(&any).unwrap();
        assert_eq!(json, r#"{"type_url":"type.example/Spec","value":"AAH+/w=="}"#);
        assert_eq!(serde_json::from_str::<Any>(&json).unwrap(), any);
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for value in ["\"AAH\"", "\"*\"", "[1,2]"] {
            let json = format!(r#"{{"type_url":"t","value":{value}}}"#);
            assert!(serde_json::from_str::<Any>(&json).is_err(), "{value}");
        }
    }
}
