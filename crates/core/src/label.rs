//! Labels: small text properties of records. Limits as containerd has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Labels by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// How many bytes a key and its value may have together.
    pub const MAX_LEN: usize = 4096;

    /// Makes no labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets a label; an empty value removes it, as containerd's clients expect of an update.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        if value.is_empty() {
            self.0.remove(&key)
        } else {
            self.0.insert(key, value)
        };
    }

    /// Adds a label.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// Removes a label.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// Adds all of `other`, which wins.
    pub fn extend(&mut self, other: &Labels) {
        self.0.extend(other.0.clone());
    }

    /// Iterates in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks the size of every label.
    ///
    /// # Errors
    /// `InvalidArgument` naming the first label that has no key or is too long.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in self.iter() {
            if key.is_empty() {
                return Err(Error::invalid_argument("a label has an empty key"));
            }
            let length = key.len() + value.len();
            if length > Self::MAX_LEN {
                let shown: String = key.chars().take(64).collect();
                return Err(Error::invalid_argument(format!(
                    "label {shown:?} has {length} bytes in key and value, more than {}",
                    Self::MAX_LEN
                )));
            }
        }
        Ok(())
    }

    /// Returns the label that a filter's path names: its parts joined by dots.
    pub fn field(&self, path: &[&str]) -> Option<String> {
        self.0.get(&path.join(".")).cloned()
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        Self(labels.into_iter().collect())
    }
}

impl IntoIterator for Labels {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
