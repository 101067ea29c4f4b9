//! The one rule for identifiers of namespaces and containers.
//!
//! containerd's rule: groups of letters and digits joined by single `.`, `_` or `-`, at most 76 bytes.

use crate::error::{Error, Result};
use crate::text::shown;

/// The longest identifier, in bytes.
pub const MAX_LEN: usize = 76;

/// Checks an identifier; `what` names the kind of object in the error.
///
/// # Errors
/// `InvalidArgument` that names the identifier and the rule it breaks.
///
/// ```
/// use windlass_core::identifier;
///
/// assert!(identifier::validate("namespace", "k8s.io").is_ok());
/// assert!(identifier::validate("namespace", "k8s..io").is_err());
/// ```
pub fn validate(what: &str, text: &str) -> Result<()> {
    let fail = |rule: String| Err(Error::invalid_argument(format!("{what} {} {rule}", shown(text))));
    if text.is_empty() {
        return fail("must not be empty".into());
    }
    if text.len() > MAX_LEN {
        return fail(format!("has {} bytes, more than {MAX_LEN}", text.len()));
    }
    let well_formed = text
        .split(['.', '_', '-'])
        .all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if !well_formed {
        return fail("must be groups of letters and digits joined by single '.', '_' or '-'".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::validate;

    #[test]
    fn the_rule_of_containerd() {
        for good in ["default", "k8s.io", "a", "A-b_c.9", &"x".repeat(76)] {
            assert!(validate("id", good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "-a", "a-", "a--b", "a/b", "a b", "ä", &"x".repeat(77)] {
            assert!(validate("id", bad).is_err(), "{bad:?}");
        }
    }
}
