//! Field masks: which fields of a record an update means to change.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::label::Labels;

/// The path of one field: `target`, `labels`, or `labels.<key>` where the key may contain dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    field: String,
    key: Option<String>,
}

impl FieldPath {
    /// Returns the first part.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns the key within a map field.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl FromStr for FieldPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (field, key) = match text.split_once('.') {
            Some((field, key)) => (field, Some(key)),
            None => (text, None),
        };
        if field.is_empty() || key == Some("") {
            return Err(Error::invalid_argument(format!("field path {text:?} has an empty part")));
        }
        Ok(Self { field: field.to_owned(), key: key.map(str::to_owned) })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}.{key}", self.field),
            None => f.write_str(&self.field),
        }
    }
}

/// The fields to change; an empty mask means every field that can be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldMask(Vec<FieldPath>);

impl FieldMask {
    /// Makes a mask that means every field.
    pub fn all() -> Self {
        Self::default()
    }

    /// Parses the paths of a mask.
    pub fn parse<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        paths.into_iter().map(str::parse).collect::<Result<_>>().map(Self)
    }

    /// Tells whether the mask means every field.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the paths.
    pub fn paths(&self) -> &[FieldPath] {
        &self.0
    }

    /// Applies the part of a change that concerns labels: `labels` replaces all, `labels.<key>` one. Returns the paths
    /// that name another field.
    pub fn apply_to_labels(&self, labels: &mut Labels, change: &Labels) -> Vec<&FieldPath> {
        if self.is_all() {
            *labels = change.clone();
        }
        let mut others = Vec::new();
        for path in &self.0 {
            match (path.field(), path.key()) {
                ("labels", None) => *labels = change.clone(),
                ("labels", Some(key)) => labels.set(key, change.get(key).unwrap_or_default()),
                _ => others.push(path),
            }
        }
        others
    }
}
