//! The names that snapshots have behind the store, `<namespace>/<unique>/<key>`, taken apart.

use windlass_core::Namespace;
use windlass_core::snapshot::Key;

/// Such a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InnerName {
    /// The namespace that made the snapshot.
    pub(super) namespace: Namespace,
    /// What it is called there.
    pub(super) key: Key,
}

impl InnerName {
    /// Takes a name apart; `None` for one whose key did not fit, or that is not the store's.
    pub(super) fn of(name: &Key) -> Option<Self> {
        let mut parts = name.as_str().splitn(3, '/');
        let namespace = parts.next()?.parse().ok()?;
        parts.next()?;
        Some(Self { namespace, key: parts.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_who_made_the_snapshot_and_what_it_is_called() {
        let of = |name: &str| InnerName::of(&name.parse().unwrap());
        let found = of("team/17a-2/mount /mnt/a").unwrap();
        assert_eq!((found.namespace.as_str(), found.key.as_str()), ("team", "mount /mnt/a"));
        assert_eq!(of("team/17a-2"), None);
        assert_eq!(of("other"), None);
    }
}
