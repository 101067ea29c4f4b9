//! What is done once there has been nothing to do for a while.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Numbers;

/// How long no call may have ended for the daemon to rest.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// Calls something each time no call has ended for a while after one did. Costs nothing as long as none ends.
pub(crate) async fn after_calls(numbers: Arc<Numbers>, quiet: Duration, rest: fn()) {
    // How many calls had ended by now, and by the last rest.
    let (mut ended, mut rested) = (0, 0);
    loop {
        numbers.one_ended().await;
        while ended != numbers.ended() {
            ended = numbers.ended();
            tokio::time::sleep(quiet).await;
        }
        // It may have ended before the last rest already.
        if std::mem::replace(&mut rested, ended) == ended {
            continue;
        }
        if tokio::task::spawn_blocking(rest).await.is_err() {
            tracing::warn!("what is done while the daemon rests failed, and is not done again");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    static RESTS: AtomicUsize = AtomicUsize::new(0);

    /// Waits for the rest of that number, and whether another one follows it.
    async fn rests(expected: usize) {
        while RESTS.load(Ordering::SeqCst) < expected {
            tokio::time::sleep(SHORT).await;
        }
        tokio::time::sleep(SHORT * 5).await;
        assert_eq!(RESTS.load(Ordering::SeqCst), expected);
    }

    #[tokio::test]
    async fn there_is_one_rest_after_calls_and_none_without() {
        let numbers: Arc<Numbers> = Arc::default();
        let rest = || {
            RESTS.fetch_add(1, Ordering::SeqCst);
        };
        let resting = tokio::spawn(after_calls(numbers.clone(), SHORT, rest));
        rests(0).await;
        (0..100).for_each(|_| drop(numbers.begin("/service/Method")));
        rests(1).await;
        drop(numbers.begin("/service/Method"));
        rests(2).await;
        resting.abort();
    }
}
