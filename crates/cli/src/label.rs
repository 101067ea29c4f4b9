//! Labels on the command line: `KEY=VALUE`, where an empty value means that there is to be none.

use windlass_core::{Error, Labels, Result};

/// Parses one.
///
/// # Errors
/// `InvalidArgument` for one without a key or without `=`, or that is too long.
pub(crate) fn parse(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Labels::new().with(key, value).validate()?;
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(Error::invalid_argument(format!("{text:?} is not a label")).hint("a label looks like key=value")),
    }
}

/// Returns those that have a value.
pub(crate) fn all(labels: Vec<(String, String)>) -> Labels {
    labels.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Returns a change in which those without a value are removed.
pub(crate) fn change(labels: Vec<(String, String)>) -> Labels {
    let mut change = Labels::new();
    for (key, value) in labels {
        change.set(key, value);
    }
    change
}
