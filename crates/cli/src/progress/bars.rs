//! Progress for a person at a terminal: a line for each object, and one for all of them.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use windlass_core::progress::{Object, State, Totals};

use super::plain::seconds;
use super::rate::Rate;
use super::{End, Renderer, Sample, moved};
use crate::render::{printable, size};

/// How often the terminal is drawn at most, in frames a second.
const FRAMES: u8 = 10;
/// How many digits of a digest are shown.
const DIGITS: usize = 12;

// The bar takes what is left of the line, which is little of 80 columns.
const STILL: &str = "{prefix:<21} {wide_msg}";
const MOVING: &str = "{prefix:<21} [{wide_bar}] {msg}";

/// Draws bars.
pub(super) struct Bars {
    all: MultiProgress,
    lines: HashMap<String, Line>,
    total: ProgressBar,
    rate: Rate,
}

/// The line of one object.
struct Line {
    bar: ProgressBar,
    state: Discriminant<State>,
    rate: Rate,
}

impl Bars {
    /// Draws on standard error from here on.
    pub(super) fn new(all: MultiProgress) -> Self {
        all.set_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES));
        let total = all.add(ProgressBar::new(0).with_style(still()).with_prefix("total"));
        Self { all, lines: HashMap::new(), total, rate: Rate::default() }
    }

    fn draw(&mut self, object: &Object, elapsed: Duration) {
        let line = self.lines.entry(object.id.clone()).or_insert_with(|| {
            let bar = ProgressBar::new(0).with_style(still()).with_prefix(short(&object.id));
            let bar = self.all.insert_before(&self.total, bar);
            Line { bar, state: discriminant(&State::Queued), rate: Rate::default() }
        });
        let (mut state, extent) = describe(&object.state);
        if let Some(stalled) = object.stalled {
            state = format!("stalled {}", seconds(stalled));
        }
        let changed = std::mem::replace(&mut line.state, discriminant(&object.state)) != discriminant(&object.state);
        if changed {
            line.rate = Rate::default();
        }
        let time = seconds(object.elapsed);
        let message = match extent {
            Some((offset, total)) => {
                line.bar.set_length(total);
                line.bar.set_position(offset.min(total));
                let rate = line.rate.update(offset, elapsed);
                let unpacked = unpacked(object.unpack.as_ref());
                format!("{state:<9} {:>8}/{:<8} {:>8}/s {time:>5}{unpacked}", size(offset), size(total), size(rate))
            }
            None if matches!(object.state, State::Queued) => state,
            None => format!("{state}  {time}"),
        };
        line.bar.set_message(message);
        if changed {
            line.bar.set_style(if extent.is_some() { moving() } else { still() });
        }
    }

    fn draw_total(&mut self, totals: Totals, elapsed: Duration) {
        let rate = self.rate.update(totals.moved(), elapsed);
        let message = format!("{}, {}/s  {}", moved(totals), size(rate), seconds(elapsed));
        self.total.set_message(message);
    }
}

impl Renderer for Bars {
    fn sample(&mut self, sample: &Sample) {
        for object in &sample.objects {
            self.draw(object, sample.elapsed);
        }
        self.draw_total(sample.totals, sample.elapsed);
    }

    fn end(&mut self, sample: &Sample, _end: End) {
        // The rate of the whole is what remains to be read.
        self.rate = Rate::default();
        self.rate.update(0, Duration::ZERO);
        self.sample(sample);
        for line in self.lines.values() {
            line.bar.abandon();
        }
        self.total.abandon();
    }
}

/// Splits a state into a word and, while bytes move, how far they are.
fn describe(state: &State) -> (String, Option<(u64, u64)>) {
    let word = |text: &str| (text.to_owned(), None);
    match state {
        State::Queued => word("queued"),
        State::Resolving => word("resolving"),
        State::Resolved => word("resolved"),
        State::Fetching { offset, total } => ("fetching".to_owned(), Some((*offset, *total))),
        State::Unpacking { offset, total } => ("unpacking".to_owned(), Some((*offset, *total))),
        State::Checking { offset, total } => ("checking".to_owned(), Some((*offset, *total))),
        State::Uploading { offset, total } => ("uploading".to_owned(), Some((*offset, *total))),
        State::Mounted { from } => (format!("mounted from {}", printable(from)), None),
        State::Exists => word("exists"),
        State::Fetched => word("fetched"),
        State::Waiting { reason } => (format!("waiting: {}", printable(reason)), None),
        State::Retrying { reason } => (format!("retrying: {}", printable(reason)), None),
        State::Done => word("done"),
        State::Failed { reason } => (format!("failed: {}", printable(reason)), None),
    }
}

/// Says how far an object is unpacked that is still on its way.
fn unpacked(unpack: Option<&State>) -> String {
    match unpack {
        Some(State::Unpacking { offset, total }) if *total > 0 => {
            format!(", {}% unpacked", offset.saturating_mul(100) / total)
        }
        Some(State::Waiting { .. }) => ", unpacking waits".to_owned(),
        _ => String::new(),
    }
}

/// Cuts an id down to what a person looks for: the role and the beginning of the digest.
fn short(id: &str) -> String {
    let id = printable(id);
    let parts = id.split_once('-').and_then(|(role, digest)| Some((role, digest.rsplit_once(':')?.1)));
    match parts {
        Some((role, hex)) if hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("{role} {}", hex.get(..DIGITS).unwrap_or(hex))
        }
        _ => id.into_owned(),
    }
}

fn still() -> ProgressStyle {
    style(STILL)
}

fn moving() -> ProgressStyle {
    style(MOVING).progress_chars("=> ")
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file, and a test parses them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_cut_where_a_person_would() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(short(&format!("layer-sha256:{digest}")), "layer ba7816bf8f01");
        assert_eq!(short("docker.io/library/redis:7"), "docker.io/library/redis:7");
    }

    #[test]
    fn the_templates_are_valid() {
        for template in [STILL, MOVING] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
