//! Progress for a program: one JSON object a line. The schema is in `docs/progress.md`, and changing it is a change of an
//! interface.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use windlass_core::progress::{Object, State, Totals};

use super::rate::Rate;
use super::{End, Renderer, Sample};

/// Prints JSON lines.
pub(super) struct Json<W> {
    out: W,
    shown: HashMap<String, Shown>,
    totals: Option<Totals>,
    rate: Rate,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Object {
        #[serde(flatten)]
        object: &'a Object,
        /// While bytes arrive, or go.
        #[serde(skip_serializing_if = "Option::is_none")]
        rate: Option<u64>,
    },
    Totals {
        #[serde(flatten)]
        totals: Totals,
        rate: u64,
        elapsed_ms: u64,
    },
    End {
        ok: bool,
        #[serde(flatten)]
        totals: Totals,
        elapsed_ms: u64,
    },
}

/// What was shown of an object last.
#[derive(Default)]
struct Shown {
    state: Option<(State, Option<State>)>,
    stalled: Option<u64>,
    rate: Rate,
}

impl<W: Write> Json<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, shown: HashMap::new(), totals: None, rate: Rate::default() }
    }

    fn print(&mut self, line: &Line<'_>) {
        // Progress that cannot be shown is no reason to stop.
        if let Ok(line) = serde_json::to_string(line) {
            let _ = writeln!(self.out, "{line}");
        }
    }
}

impl<W: Write + Send> Renderer for Json<W> {
    fn sample(&mut self, sample: &Sample) {
        for object in &sample.objects {
            let shown = self.shown.entry(object.id.clone()).or_default();
            let rate = match object.state {
                State::Fetching { offset, .. } | State::Uploading { offset, .. } => {
                    Some(shown.rate.update(offset, sample.elapsed))
                }
                _ => None,
            };
            let state = Some((object.state.clone(), object.unpack.clone()));
            // A stall is told once a second.
            let stalled = object.stalled.map(|stalled| stalled.as_secs());
            if shown.state != state || shown.stalled != stalled {
                (shown.state, shown.stalled) = (state, stalled);
                self.print(&Line::Object { object, rate });
            }
        }
        let rate = self.rate.update(sample.totals.moved(), sample.elapsed);
        if self.totals != Some(sample.totals) {
            self.totals = Some(sample.totals);
            let elapsed_ms = milliseconds(sample.elapsed);
            self.print(&Line::Totals { totals: sample.totals, rate, elapsed_ms });
        }
    }

    fn end(&mut self, sample: &Sample, end: End) {
        self.sample(sample);
        let elapsed_ms = milliseconds(sample.elapsed);
        self.print(&Line::End { ok: end == End::Done, totals: sample.totals, elapsed_ms });
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_object_that_changed_then_totals_then_the_end() {
        let object = |state| Object {
            id: "layer-1".into(),
            state,
            size: None,
            unpack: None,
            stalled: None,
            elapsed: Duration::from_millis(7),
        };
        let sample = |state, downloaded| Sample {
            objects: vec![object(state)],
            totals: Totals { downloaded, reused: 5, uploaded: 0 },
            elapsed: Duration::from_millis(100),
        };
        let mut json = Json::new(Vec::new());
        json.sample(&sample(State::Fetching { offset: 1, total: 2 }, 1));
        json.sample(&sample(State::Fetching { offset: 1, total: 2 }, 1));
        json.end(&sample(State::Done, 2), End::Done);
        let text = String::from_utf8(json.out).unwrap();
        assert_eq!(
            text,
            r#"{"type":"object","id":"layer-1","state":"fetching","offset":1,"total":2,"elapsed_ms":7,"rate":0}
{"type":"totals","downloaded":1,"reused":5,"rate":0,"elapsed_ms":100}
{"type":"object","id":"layer-1","state":"done","elapsed_ms":7}
{"type":"totals","downloaded":2,"reused":5,"rate":0,"elapsed_ms":100}
{"type":"end","ok":true,"downloaded":2,"reused":5,"elapsed_ms":100}
"#
        );
    }
}
