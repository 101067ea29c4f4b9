//! Points in the durable orders at which a test can stop the world. Outside of the tests they cost nothing.

#[cfg(test)]
use std::sync::Mutex;

/// The points of one store.
#[derive(Default)]
pub(crate) struct Faults {
    #[cfg(test)]
    armed: Mutex<Option<&'static str>>,
    #[cfg(test)]
    stopped: tokio::sync::Notify,
    #[cfg(test)]
    resumed: tokio::sync::Notify,
}

#[cfg(not(test))]
impl Faults {
    /// Marks a point of a durable order.
    #[expect(clippy::unused_self, reason = "the tests' version looks at what is armed")]
    pub(crate) fn reach(&self, _point: &'static str) -> std::future::Ready<()> {
        std::future::ready(())
    }
}

#[cfg(test)]
impl Faults {
    /// Stops when the point is armed: for ever, as a crash would, or until [`Faults::resume`].
    pub(crate) async fn reach(&self, point: &'static str) {
        if *self.armed.lock().unwrap() == Some(point) {
            self.stopped.notify_one();
            self.resumed.notified().await;
        }
    }

    /// Arms a point.
    pub(crate) fn arm(&self, point: &'static str) {
        *self.armed.lock().unwrap() = Some(point);
    }

    /// Lets what was stopped go on.
    pub(crate) fn resume(&self) {
        *self.armed.lock().unwrap() = None;
        self.resumed.notify_one();
    }

    /// Waits until the armed point was reached.
    pub(crate) async fn stopped(&self) {
        self.stopped.notified().await;
    }
}
