//! Events: the exchange of an engine, and the decorators that publish what the stores have made durable.
//!
//! A change is published after the call that made it has succeeded, and before the caller hears of it. Whoever drops a call
//! may have made a change that nobody is told of. With no subscriber a change costs one look at a counter.
//!
//! Topics are containerd's, and so is what has none: views, leases, ingests, and namespaces that come into being with what is
//! created in them. [`Engine::transact`](crate::Engine::transact) publishes nothing. What garbage collection removes is published as
//! far as containerd does: images and snapshots.

mod collected;
mod containers;
mod content;
mod exchange;
mod images;
mod namespaces;
mod snapshots;

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::event::{self, Envelope, Event};
use windlass_core::filter::Filter;
use windlass_core::snapshot::Snapshotter;
use windlass_core::{Listing, Namespace, Result, Services};

pub(crate) use collected::Collected;
pub use exchange::Exchange;

/// Returns services that publish what is changed through them.
pub(crate) fn emitting(services: Services, exchange: &Exchange) -> Services {
    let emitter = Emitter { exchange: exchange.clone(), namespace: services.scope.namespace.clone() };
    let snapshotters = services.snapshotters.iter();
    let watched = |(name, inner): (&String, &Arc<dyn Snapshotter>)| {
        (name.clone(), snapshots::emitting(inner.clone(), name.clone(), emitter.clone()))
    };
    Services {
        content: Arc::new(content::Emitting::new(services.content, emitter.clone())),
        images: Arc::new(images::Emitting::new(services.images, services.collector.clone(), emitter.clone())),
        containers: Arc::new(containers::Emitting::new(services.containers, emitter.clone())),
        namespaces: Arc::new(namespaces::Emitting::new(services.namespaces, exchange.clone())),
        snapshotters: Arc::new(snapshotters.map(watched).collect()),
        ..services
    }
}

/// Publishes events of a namespace.
#[derive(Clone)]
struct Emitter {
    exchange: Exchange,
    namespace: Namespace,
}

impl Emitter {
    /// Publishes an event, which is made only if somebody subscribes.
    fn emit(&self, event: impl FnOnce() -> Event) {
        self.exchange.send(|| Envelope::now(self.namespace.clone(), event()));
    }
}

/// The exchange as seen from a namespace.
struct Seen {
    exchange: Exchange,
    namespace: Namespace,
}

#[async_trait]
impl event::Publisher for Seen {
    async fn publish(&self, envelope: Envelope) -> Result<()> {
        event::validate_topic(envelope.event.topic())?;
        self.exchange.send(|| envelope);
        Ok(())
    }
}

#[async_trait]
impl event::Subscriber for Seen {
    async fn subscribe(&self, filters: &[Filter]) -> Result<Listing<Envelope>> {
        Ok(self.exchange.subscribe(event::within(&self.namespace, filters)?))
    }
}
