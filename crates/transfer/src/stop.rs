//! Stopping a workflow in order: it ends as it does after an error, and gives its lease up.
//!
//! Whoever drops a workflow instead leaves its lease behind. A process that ends need not care, because whoever opens the root
//! next looks after it; one that goes on, as a daemon does when its client is gone, would keep what nobody wants for a day.

use std::fmt;
use std::future::Future;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use windlass_core::{Error, Result};

/// When a workflow is to stop; by default it is not. Cheap to clone.
#[derive(Clone, Default)]
pub struct Stop(Option<Shared<BoxFuture<'static, ()>>>);

impl Stop {
    /// Stops when something happens.
    pub fn when(event: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(event.boxed().shared()))
    }

    /// Waits until it is to stop.
    pub(crate) async fn wait(&self) {
        match &self.0 {
            Some(event) => event.clone().await,
            None => std::future::pending().await,
        }
    }

    /// Works until it is done or is to stop.
    ///
    /// # Errors
    /// Those of the work; `Canceled` when it was stopped.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.wait() => Err(stopped()),
            done = work => done,
        }
    }
}

/// Says that somebody wanted it so.
pub(crate) fn stopped() -> Error {
    Error::canceled("it was stopped").hint("do it again: it continues where it stopped")
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Stop(…)" } else { "Stop(never)" })
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Kind;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_until_it_is_to_stop() {
        assert_eq!(Stop::default().or(async { Ok(1) }).await.unwrap(), 1);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let when = Stop::when(async move { drop(stopped.await) });
        assert_eq!(when.or(async { Ok(1) }).await.unwrap(), 1);
        drop(stop);
        let ended = when.or(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(ended.kind(), Kind::Canceled);
        assert!(when.clone().or(async { Ok(1) }).await.is_err(), "and does not begin any more");
    }
}
