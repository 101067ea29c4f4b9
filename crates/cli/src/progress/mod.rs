//! Progress on standard error: a tracker is sampled while work goes on.
//!
//! Three ways to show it: bars for a person, plain lines for a log, JSON lines for a program (`docs/progress.md`).

mod bars;
mod json;
mod plain;
mod rate;

use std::future::Future;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use tokio::time::MissedTickBehavior;
use windlass_core::progress::{Object, Totals, Tracker};

use crate::args::Progress;
use crate::render::size;

/// How often the tracker is sampled.
const INTERVAL: Duration = Duration::from_millis(100);

/// How the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Failed,
}

/// One look at the tracker.
struct Sample {
    objects: Vec<Object>,
    totals: Totals,
    /// Since the work began.
    elapsed: Duration,
}

/// Says what was moved, and what need not be.
fn moved(totals: Totals) -> String {
    let (moved, word) = match totals {
        Totals { uploaded: 0, downloaded, .. } => (downloaded, "downloaded"),
        Totals { uploaded, .. } => (uploaded, "uploaded"),
    };
    format!("{} {word}, {} reused", size(moved), size(totals.reused))
}

/// Shows samples.
trait Renderer: Send {
    /// Shows what is going on.
    fn sample(&mut self, sample: &Sample);

    /// Shows how it ended; nothing follows.
    fn end(&mut self, sample: &Sample, end: End);
}

/// Shows the progress of one operation.
pub(crate) struct Display(Option<Box<dyn Renderer>>);

impl Display {
    /// Makes a display of the kind that was asked for.
    pub(crate) fn new(how: Progress, bars: MultiProgress) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self(match how {
            Progress::None => None,
            Progress::Json => Some(Box::new(json::Json::new(std::io::stderr()))),
            Progress::Auto | Progress::Bars if terminal => Some(Box::new(bars::Bars::new(bars))),
            Progress::Auto | Progress::Bars | Progress::Plain => Some(Box::new(plain::Plain::new(std::io::stderr()))),
        })
    }

    /// Runs work and shows the progress that it makes until it is done.
    ///
    /// # Cancel safety
    /// Dropping the call drops the work.
    pub(crate) async fn during<T, E>(
        self,
        tracker: &Tracker,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(renderer) = self.0 else { return work.await };
        let began = Instant::now();
        let sample = || Sample { objects: tracker.snapshot(), totals: tracker.totals(), elapsed: began.elapsed() };
        let mut ending = Ending { renderer, sample: &sample, end: End::Failed };
        let mut work = pin!(work);
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    if result.is_ok() {
                        ending.end = End::Done;
                    }
                    return result;
                }
                _ = ticks.tick() => ending.renderer.sample(&sample()),
            }
        }
    }
}

/// Ends the display whichever way the work ends, being dropped included: a program that reads lines gets a last one, and
/// a terminal is left in order.
struct Ending<'a> {
    renderer: Box<dyn Renderer>,
    sample: &'a dyn Fn() -> Sample,
    end: End,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.renderer.end(&(self.sample)(), self.end);
    }
}
