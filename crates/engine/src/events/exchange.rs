//! The exchange: one bounded queue for each subscriber.
//!
//! Publishing puts an event into the queues that want it and waits for nobody. A queue that is full counts what does not fit,
//! and the count takes the place of the events.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use tokio::sync::Notify;
use windlass_core::event::{self, Envelope, Event, Missed};
use windlass_core::filter::{Filter, any_matches};
use windlass_core::{Labels, Listing, Namespace};

use super::Seen;

/// How many events wait for a subscriber at most: some seconds of a pull that unpacks many layers.
const MAX_EVENTS: usize = 4096;
/// How many bytes of events wait for a subscriber at most: a payload that a client publishes can have as many.
const MAX_BYTES: usize = 16 << 20;

/// Hands every event to all who subscribe. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Exchange(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many there are, to be looked at without the lock.
    count: AtomicUsize,
    subscribers: Mutex<Vec<Arc<Subscription>>>,
}

struct Subscription {
    filters: Vec<Filter>,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// What the events among the items take up.
    bytes: usize,
}

enum Item {
    Event(Arc<Envelope>, usize),
    Missed(u64),
}

impl Exchange {
    /// Returns the exchange as seen from a namespace.
    pub fn seen_from(&self, namespace: &Namespace) -> Arc<dyn event::Exchange> {
        Arc::new(Seen { exchange: self.clone(), namespace: namespace.clone() })
    }

    /// Returns how many subscribe.
    pub fn subscribers(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Publishes an event, which is made only if somebody subscribes.
    pub(super) fn send(&self, envelope: impl FnOnce() -> Envelope) {
        if self.subscribers() == 0 {
            return;
        }
        let envelope = Arc::new(envelope());
        let bytes = size(&envelope);
        // Under the lock, so that all see events in one order.
        for subscription in lock(&self.0.subscribers).iter() {
            if any_matches(&subscription.filters, &*envelope) {
                lock(&subscription.queue).push(&envelope, bytes);
                subscription.filled.notify_one();
            }
        }
    }

    /// Returns the events from now on that match any of the filters.
    pub(super) fn subscribe(&self, filters: Vec<Filter>) -> Listing<Envelope> {
        let subscription = Arc::new(Subscription { filters, queue: Mutex::default(), filled: Notify::new() });
        let mut subscribers = lock(&self.0.subscribers);
        subscribers.push(subscription.clone());
        self.0.count.store(subscribers.len(), Ordering::Release);
        drop(subscribers);
        let subscribed = Subscribed { exchange: self.clone(), subscription };
        let next = |subscribed: Subscribed| async {
            let item = subscribed.next().await;
            Some((item, subscribed))
        };
        futures::stream::unfold(subscribed, next).boxed()
    }
}

// What is under these locks is whole after each call: a panic elsewhere leaves nothing half-made.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn push(&mut self, envelope: &Arc<Envelope>, bytes: usize) {
        // One that is larger than everything together still goes alone.
        let full = self.items.len() >= MAX_EVENTS || (self.bytes > 0 && self.bytes + bytes > MAX_BYTES);
        if !full {
            self.bytes += bytes;
            return self.items.push_back(Item::Event(envelope.clone(), bytes));
        }
        match self.items.back_mut() {
            Some(Item::Missed(count)) => *count += 1,
            _ => self.items.push_back(Item::Missed(1)),
        }
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        if let Item::Event(_, bytes) = item {
            self.bytes -= bytes;
        }
        if self.items.is_empty() {
            // What a burst needed is not kept for ever.
            self.items.shrink_to(64);
        }
        Some(item)
    }
}

/// Estimates what an event takes up while it waits.
fn size(envelope: &Envelope) -> usize {
    let of_labels = |labels: &Labels| labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let payload = match &envelope.event {
        Event::Other { payload, .. } => payload.value.len(),
        Event::ImageCreate { labels, .. }
        | Event::ImageUpdate { labels, .. }
        | Event::NamespaceCreate { labels, .. }
        | Event::NamespaceUpdate { labels, .. }
        | Event::ContainerUpdate { labels, .. } => of_labels(labels),
        Event::ContainerCreate { runtime, .. } => runtime.options.as_ref().map_or(0, |options| options.value.len()),
        _ => 0,
    };
    size_of::<Envelope>() + payload
}

/// A subscription for as long as somebody reads it.
struct Subscribed {
    exchange: Exchange,
    subscription: Arc<Subscription>,
}

impl Subscribed {
    async fn next(&self) -> windlass_core::Result<Envelope> {
        loop {
            match lock(&self.subscription.queue).pop() {
                Some(Item::Event(envelope, _)) => return Ok(Arc::unwrap_or_clone(envelope)),
                Some(Item::Missed(count)) => return Err(Missed(count).error()),
                None => {}
            }
            // What comes between the look and the wait has left a permit.
            self.subscription.filled.notified().await;
        }
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let mut subscribers = lock(&self.exchange.0.subscribers);
        subscribers.retain(|other| !Arc::ptr_eq(other, &self.subscription));
        self.exchange.0.count.store(subscribers.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(payload: usize) -> Envelope {
        let payload = windlass_core::any::Any::new("test", vec![0; payload]);
        Envelope::now(Namespace::default(), Event::Other { topic: "/test/event".into(), payload })
    }

    /// Reads what is there: how many events, and how many were missed, in turn.
    fn drain(stream: &mut Listing<Envelope>) -> Vec<Result<u64, u64>> {
        let mut seen = Vec::new();
        while let Some(item) = futures::FutureExt::now_or_never(stream.next()).flatten() {
            match (item, seen.last_mut()) {
                (Ok(_), Some(Ok(count))) => *count += 1,
                (Ok(_), _) => seen.push(Ok(1)),
                (Err(error), _) => seen.push(Err(Missed::of(&error).unwrap().0)),
            }
        }
        seen
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_where_it_is_missing() {
        let exchange = Exchange::default();
        let mut stream = exchange.subscribe(Vec::new());
        for _ in 0..MAX_EVENTS + 10 {
            exchange.send(|| other(1));
        }
        stream.next().await.unwrap().unwrap();
        stream.next().await.unwrap().unwrap();
        exchange.send(|| other(1));
        assert_eq!(drain(&mut stream), [Ok(MAX_EVENTS as u64 - 2), Err(10), Ok(1)]);
        exchange.send(|| other(1));
        assert_eq!(drain(&mut stream), [Ok(1)], "the stream goes on");
    }

    #[tokio::test]
    async fn large_events_are_bounded_by_their_bytes() {
        let exchange = Exchange::default();
        let mut stream = exchange.subscribe(Vec::new());
        for _ in 0..5 {
            exchange.send(|| other(MAX_BYTES / 4));
        }
        assert_eq!(drain(&mut stream), [Ok(3), Err(2)]);
        exchange.send(|| other(2 * MAX_BYTES));
        exchange.send(|| other(1));
        assert_eq!(drain(&mut stream), [Ok(1), Err(1)], "one that is too large goes alone");
    }

    #[tokio::test]
    async fn nobody_is_kept_who_does_not_listen_and_no_event_is_made_for_nobody() {
        let exchange = Exchange::default();
        let (one, two) = (exchange.subscribe(Vec::new()), exchange.subscribe(Vec::new()));
        assert_eq!(exchange.subscribers(), 2);
        drop(one);
        assert_eq!(exchange.subscribers(), 1);
        drop(two);
        exchange.send(|| unreachable!("nobody listens"));
    }
}
