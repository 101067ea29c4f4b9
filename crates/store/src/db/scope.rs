//! What every creation does first: the namespace comes into being, and the scope's lease holds what is created.

use std::time::SystemTime;

use windlass_core::gc::Node;
use windlass_core::{Error, Labels, Namespace, Result, Scope, lease};

use super::schema::{LEASES, NAMESPACES, NamespaceRecord, RESOURCES};
use super::{Key, Present, Transaction, View, text_of};

/// Lets something be created in a scope.
///
/// # Errors
/// `NotFound` when the scope's lease does not exist.
pub(crate) fn admit(tx: &Transaction, scope: &Scope, created: &[Node]) -> Result<()> {
    // The lease first: a scope that is refused leaves no namespace behind.
    if let Some(lease) = &scope.lease {
        require_lease(tx, &scope.namespace, lease)?;
    }
    let namespace = scope.namespace.as_str();
    if !NAMESPACES.contains(tx, namespace)? {
        let record = NamespaceRecord { labels: Labels::new(), created_at: SystemTime::now() };
        NAMESPACES.put(tx, namespace, &record)?;
    }
    hold(tx, scope, created)
}

/// Tells whether [`admit`] would have nothing to write when nothing is created yet: namespace and lease are there.
pub(crate) fn is_open_to(view: &impl View, scope: &Scope) -> Result<bool> {
    let namespace = scope.namespace.as_str();
    let leased = match &scope.lease {
        Some(lease) => LEASES.contains(view, &Key::of([namespace, lease.as_str()]))?,
        None => true,
    };
    Ok(leased && NAMESPACES.contains(view, namespace)?)
}

/// Lets the scope's lease, if it has one, hold things that exist.
///
/// # Errors
/// `NotFound` when the lease does not exist.
pub(crate) fn hold(tx: &Transaction, scope: &Scope, nodes: &[Node]) -> Result<()> {
    let Some(lease) = &scope.lease else { return Ok(()) };
    require_lease(tx, &scope.namespace, lease)?;
    for node in nodes {
        let text = text_of(node);
        let key = Key::of([scope.namespace.as_str(), lease.as_str(), &text]);
        tx.activity().touch(|| Key::of([scope.namespace.as_str(), &text]));
        if !RESOURCES.contains(tx, &key)? {
            RESOURCES.put(tx, &key, &Present)?;
        }
    }
    Ok(())
}

/// Sees to it that a lease exists.
///
/// # Errors
/// `NotFound`.
pub(crate) fn require_lease(view: &impl View, namespace: &Namespace, lease: &lease::Id) -> Result<()> {
    if LEASES.contains(view, &Key::of([namespace.as_str(), lease.as_str()]))? {
        return Ok(());
    }
    Err(Error::not_found(format!("lease {lease} is not in namespace {namespace}"))
        .hint("it may have expired, or been deleted"))
}
