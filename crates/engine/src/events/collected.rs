//! What garbage collection removed, as events: images whose time was up and snapshots, as containerd has it.

use windlass_core::event::{Envelope, Event};
use windlass_core::gc::Node;
use windlass_core::{Namespace, Result};
use windlass_store::Observer;

use super::Exchange;

/// Publishes what collections removed.
pub(crate) struct Collected(Exchange);

impl Collected {
    /// Publishes to an exchange.
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self(exchange)
    }
}

impl Observer for Collected {
    fn is_needed(&self) -> bool {
        self.0.subscribers() > 0
    }

    fn removed(&self, namespace: &str, object: &Node) {
        match envelope(namespace, object) {
            Ok(Some(envelope)) => self.0.send(|| envelope),
            Ok(None) => {}
            // Recorded names are valid ones.
            Err(error) => tracing::warn!(%error, "the removal of {object} from namespace {namespace} is not published"),
        }
    }
}

fn envelope(namespace: &str, object: &Node) -> Result<Option<Envelope>> {
    let event = match object {
        Node::Image(name) => Event::ImageDelete { name: name.parse()? },
        Node::Snapshot { snapshotter, key } => {
            Event::SnapshotRemove { snapshotter: snapshotter.clone(), key: key.parse()? }
        }
        _ => return Ok(None),
    };
    Ok(Some(Envelope::now(namespace.parse::<Namespace>()?, event)))
}
