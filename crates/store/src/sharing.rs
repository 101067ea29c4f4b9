//! Sharing: whose bytes a namespace may take over by naming them, without bringing them.
//!
//! Bytes are stored once whatever the policy; this is only about who has to show that it can get at them.
//! `docs/adr/0004-sharing-between-namespaces.md` says why it is like this.

use windlass_core::namespace::SHAREABLE_LABEL;
use windlass_core::{Digest, Result};

use crate::db::schema::{CONTENTS, NAMESPACES};
use crate::db::{Key, View};

/// Whether a namespace may take over what another one has. A namespace with the label
/// [`SHAREABLE_LABEL`] decides for itself: `true` lets others have what it has, `false` does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// By digest and size, or by chain id.
    #[default]
    Shared,
    /// Only by bringing the bytes.
    Isolated,
}

impl Sharing {
    /// Tells whether others may take over what a namespace has.
    pub(crate) fn lets_take_over(self, view: &impl View, namespace: &str) -> Result<bool> {
        let record = NAMESPACES.get(view, namespace)?;
        Ok(match record.as_ref().and_then(|record| record.labels.get(SHAREABLE_LABEL)) {
            Some("true") => true,
            Some("false") => false,
            _ => self == Self::Shared,
        })
    }

    /// Tells whether a namespace may take over a blob: one that has it lets it. Bytes that nobody has a record of, which a
    /// crash can leave, may have been anybody's: every namespace has to let it.
    pub(crate) fn lets_take_over_blob(self, view: &impl View, digest: &Digest) -> Result<bool> {
        let digest = digest.to_string();
        let mut anybody_may = self == Self::Shared;
        for namespace in NAMESPACES.keys(view, "", None, usize::MAX)? {
            let has = CONTENTS.contains(view, &Key::of([namespace.as_str(), &digest]))?;
            match self.lets_take_over(view, &namespace)? {
                true if has => return Ok(true),
                lets => anybody_may &= lets && !has,
            }
        }
        Ok(anybody_may)
    }
}
