//! A typed value whose type this engine does not have to know.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A value and the URL of its type, carried through untouched: runtime options, specs, extensions, events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Any {
    /// What the bytes are.
    pub type_url: String,
    /// The encoded value.
    pub value: Vec<u8>,
}

impl Any {
    /// Makes a value of a type.
    pub fn new(type_url: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { type_url: type_url.into(), value: value.into().to_vec() }
    }
}
