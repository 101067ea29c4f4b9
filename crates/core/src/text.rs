//! Texts that have been checked: names, keys and identities are types of their own, made by parsing.

use crate::error::{Error, Result};

/// The longest name or key, in bytes.
pub(crate) const MAX_LEN: usize = 1024;
/// How many characters of a text an error shows.
const SHOWN: usize = 128;

/// Checks a text that may be anything but empty, endless or unprintable; `what` names the kind of object in the error.
pub(crate) fn validate(what: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > MAX_LEN || text.chars().any(char::is_control) {
        return Err(Error::invalid_argument(format!(
            "{what} {} must have 1 to {MAX_LEN} bytes and no control characters",
            shown(text)
        )));
    }
    Ok(())
}

/// Quotes a text for an error, or its beginning when it is long.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len()),
        None => format!("{text:?}"),
    }
}

/// Defines a type for texts that pass a check.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $validate:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Error;

            fn from_str(text: &str) -> $crate::Result<Self> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::Error;

            fn try_from(text: String) -> $crate::Result<Self> {
                $validate($what, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use checked_text;
