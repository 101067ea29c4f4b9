//! A bar: something that was asked for, and what came of it.

use std::fmt;

use serde_json::{Value, json};

/// Something that was asked for, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Bar {
    /// What it is about.
    pub(in crate::bench) name: String,
    /// What was measured; nothing when it could not be.
    pub(in crate::bench) value: Option<f64>,
    /// What it may be.
    pub(in crate::bench) at_most: f64,
}

impl Bar {
    /// Whether it is met.
    pub(in crate::bench) fn holds(&self) -> bool {
        self.value.is_some_and(|value| value <= self.at_most)
    }

    /// Returns it for a program to read.
    pub(in crate::bench) fn json(&self) -> Value {
        json!({"name": self.name, "value": self.value, "at_most": self.at_most, "ok": self.holds()})
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let verdict = match self.value {
            None => "not measured",
            Some(_) if self.holds() => "ok",
            Some(_) => "missed",
        };
        write!(f, "{:<44}{value:>9}{:>9.2}  {verdict}", self.name, self.at_most)
    }
}
