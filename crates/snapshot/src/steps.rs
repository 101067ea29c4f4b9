//! The numbered steps of the durable orders, made visible to tests: they can be listed, and stopped at.
//!
//! Outside of this crate's unit tests a step is nothing at all.

use windlass_core::error::Result;

/// Where the operations of a snapshotter report their steps.
#[derive(Default)]
pub(crate) struct Steps {
    #[cfg(test)]
    seen: std::sync::Mutex<Vec<&'static str>>,
    #[cfg(test)]
    stop: std::sync::Mutex<Option<&'static str>>,
}

#[cfg(not(test))]
#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the tests' version does something")]
impl Steps {
    pub(crate) fn done(&self, _step: &'static str) -> Result<()> {
        Ok(())
    }

    pub(crate) fn stopped(&self) -> bool {
        false
    }
}

#[cfg(test)]
impl Steps {
    pub(crate) fn done(&self, step: &'static str) -> Result<()> {
        self.seen.lock().unwrap().push(step);
        match *self.stop.lock().unwrap() {
            Some(stop) if stop == step => Err(windlass_core::Error::aborted(format!("stopped after {step}"))),
            _ => Ok(()),
        }
    }

    /// Tells whether a crash is being played: nothing is tidied up then.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.lock().unwrap().is_some_and(|stop| self.seen.lock().unwrap().contains(&stop))
    }

    pub(crate) fn stop_after(&self, step: &'static str) {
        *self.stop.lock().unwrap() = Some(step);
    }

    pub(crate) fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}
