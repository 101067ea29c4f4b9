//! Events in memory: everybody who subscribes has a queue without an end.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use windlass_core::event::{Envelope, Publisher, Subscriber, validate_topic, within};
use windlass_core::filter::{Filter, any_matches};
use windlass_core::{Listing, Namespace, Result};

/// An exchange as seen from a namespace. Clones, and those that are seen from other namespaces, are one.
#[derive(Clone, Default)]
pub struct Events {
    subscribers: Arc<Mutex<Vec<Subscribed>>>,
    namespace: Namespace,
}

struct Subscribed {
    filters: Vec<Filter>,
    queue: UnboundedSender<Result<Envelope>>,
}

impl Events {
    /// Returns the same exchange as seen from another namespace.
    pub fn seen_from(&self, namespace: &Namespace) -> Self {
        Self { namespace: namespace.clone(), ..self.clone() }
    }
}

#[async_trait]
impl Publisher for Events {
    async fn publish(&self, envelope: Envelope) -> Result<()> {
        validate_topic(envelope.event.topic())?;
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscribed| {
            !any_matches(&subscribed.filters, &envelope)
                || subscribed.queue.unbounded_send(Ok(envelope.clone())).is_ok()
        });
        Ok(())
    }
}

#[async_trait]
impl Subscriber for Events {
    async fn subscribe(&self, filters: &[Filter]) -> Result<Listing<Envelope>> {
        let (queue, events) = unbounded();
        let subscribed = Subscribed { filters: within(&self.namespace, filters)?, queue };
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscribed);
        Ok(events.boxed())
    }
}
