//! Progress for a log: one line when the state of an object changes.

use std::collections::HashMap;
use std::io::Write;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use windlass_core::progress::{Object, State};

use super::{End, Renderer, Sample, moved};
use crate::render::{printable, size};

/// Prints lines.
pub(super) struct Plain<W> {
    out: W,
    shown: HashMap<String, Discriminant<State>>,
    /// What the unpacking was doing, of objects that are still on their way.
    unpacking: HashMap<String, Discriminant<State>>,
}

impl<W: Write> Plain<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, shown: HashMap::new(), unpacking: HashMap::new() }
    }

    fn print(&mut self, object: &Object) {
        if let Some(unpack) = &object.unpack
            && !matches!(unpack, State::Queued)
            && self.unpacking.insert(object.id.clone(), discriminant(unpack)) != Some(discriminant(unpack))
        {
            let line = format!("{}: {} while it arrives", object.id, describe(unpack, object.elapsed));
            let _ = writeln!(self.out, "{}", printable(&line));
        }
        let state = discriminant(&object.state);
        if object.state == State::Queued || self.shown.insert(object.id.clone(), state) == Some(state) {
            return;
        }
        let line = format!("{}: {}", object.id, describe(&object.state, object.elapsed));
        // Progress that cannot be shown is no reason to stop.
        let _ = writeln!(self.out, "{}", printable(&line));
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn sample(&mut self, sample: &Sample) {
        for object in &sample.objects {
            self.print(object);
        }
    }

    fn end(&mut self, sample: &Sample, end: End) {
        self.sample(sample);
        if end == End::Done {
            let (totals, elapsed) = (sample.totals, seconds(sample.elapsed));
            let _ = writeln!(self.out, "total: {} in {elapsed}", moved(totals));
        }
    }
}

fn describe(state: &State, elapsed: Duration) -> String {
    match state {
        State::Queued => "queued".into(),
        State::Resolving => "resolving".into(),
        State::Resolved => "resolved".into(),
        State::Fetching { offset: 0, total } => format!("fetching {}", size(*total)),
        State::Fetching { offset, total } => format!("fetching {}, {} here", size(*total), size(*offset)),
        State::Uploading { offset: 0, total } => format!("uploading {}", size(*total)),
        State::Uploading { offset, total } => format!("uploading {}, {} there", size(*total), size(*offset)),
        State::Mounted { from } => format!("mounted from {from}"),
        State::Exists => "exists".into(),
        State::Fetched => "fetched".into(),
        State::Checking { total, .. } => format!("checking {}", size(*total)),
        State::Unpacking { .. } => "unpacking".into(),
        State::Waiting { reason } => format!("waiting: {reason}"),
        State::Retrying { reason } => format!("retrying: {reason}"),
        State::Done => format!("done in {}", seconds(elapsed)),
        State::Failed { reason } => format!("failed: {reason}"),
    }
}

/// Writes a time with tenths of a second.
pub(super) fn seconds(time: Duration) -> String {
    if time < Duration::from_mins(1) {
        return format!("{:.1}s", time.as_secs_f64());
    }
    format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use windlass_core::progress::{Totals, Tracker};

    use super::*;

    #[test]
    fn a_line_for_each_change_of_state_and_none_for_bytes() {
        let tracker = Tracker::new();
        let layer = tracker.task("layer-sha256:abc");
        let mut plain = Plain::new(Vec::new());
        let sample = || Sample {
            objects: tracker.snapshot(),
            totals: Totals { downloaded: 2048, ..Totals::default() },
            elapsed: Duration::from_millis(1500),
        };
        plain.sample(&sample());
        for offset in [0, 1024] {
            layer.set(State::Fetching { offset, total: 2048 });
            plain.sample(&sample());
        }
        layer.set(State::Retrying { reason: "the transfer ended\u{7}".into() });
        plain.sample(&sample());
        layer.set(State::Exists);
        plain.end(&sample(), End::Done);
        assert_eq!(
            String::from_utf8(plain.out).unwrap(),
            "layer-sha256:abc: fetching 2.0 KiB\n\
             layer-sha256:abc: retrying: the transfer ended\\u{7}\n\
             layer-sha256:abc: exists\n\
             total: 2.0 KiB downloaded, 0 B reused in 1.5s\n"
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(Duration::from_millis(3210)), "3.2s");
        assert_eq!(seconds(Duration::from_secs(125)), "2m05s");
    }
}
