//! What was measured of an image, as a table of medians and as bars that are met or missed.

use std::fmt;

use serde_json::{Value, json};

use super::limit::CORES;
use super::subject::Subject;
use crate::bench::bar::Bar;
use crate::bench::measure::{Cost, median};

/// An image that is measured, with what is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Image {
    /// What it is called.
    pub(super) name: &'static str,
    /// How many times the limit `dist pull` may take.
    pub(super) overlay: f64,
    /// How many times the limit it may take with EROFS.
    pub(super) erofs: f64,
}

/// The share of `skopeo copy` that `dist fetch` may take.
const FETCH: f64 = 0.35;
/// The most memory of ours, in MB: 64 MiB.
const MEMORY: f64 = 67.1;

/// What was measured of an image.
#[derive(Debug)]
pub(super) struct Report {
    image: Image,
    description: String,
    costs: Vec<(Subject, Cost)>,
}

impl Report {
    pub(super) fn new(image: Image, description: String) -> Self {
        Self { image, description, costs: Vec::new() }
    }

    /// Adds a run.
    pub(super) fn add(&mut self, subject: Subject, cost: Cost) {
        self.costs.push((subject, cost));
    }

    fn all(&self, subject: Subject, part: fn(&Cost) -> f64) -> Vec<f64> {
        self.costs.iter().filter(|(of, _)| *of == subject).map(|(_, cost)| part(cost)).collect()
    }

    fn median(&self, subject: Subject, part: fn(&Cost) -> f64) -> Option<f64> {
        let all = self.all(subject, part);
        (!all.is_empty()).then(|| median(&all))
    }

    /// Returns the limit, in seconds.
    fn limit(&self) -> Option<f64> {
        self.median(Subject::Limit, |cost| cost.cpu).map(|cpu| cpu / CORES)
    }

    fn of_limit(&self, subject: Subject) -> Option<f64> {
        Some(self.median(subject, |cost| cost.wall)? / self.limit()?)
    }

    /// Returns the highest peak of any run of ours, in MB: a bound holds always, not in the middle.
    fn highest_peak(&self) -> Option<f64> {
        let ours = [Subject::Pull, Subject::PullErofs, Subject::Fetch];
        let peaks = ours.iter().flat_map(|subject| self.all(*subject, |cost| cost.peak));
        peaks.reduce(f64::max).map(|kib| kib * 1024.0 / 1e6)
    }

    /// Returns what was asked for of this image.
    pub(super) fn bars(&self) -> Vec<Bar> {
        let bar = |what: &str, value, at_most| Bar { name: format!("{}: {what}", self.image.name), value, at_most };
        let wall = |subject| self.median(subject, |cost| cost.wall);
        let fetch = wall(Subject::Fetch).zip(wall(Subject::Copy)).map(|(fetch, copy)| fetch / copy);
        vec![
            bar("pull / limit", self.of_limit(Subject::Pull), self.image.overlay),
            bar("pull, erofs / limit", self.of_limit(Subject::PullErofs), self.image.erofs),
            bar("fetch / skopeo copy", fetch, FETCH),
            bar("peak memory, MB", self.highest_peak(), MEMORY),
        ]
    }

    fn subjects(&self) -> impl Iterator<Item = Subject> {
        let all = Subject::ALWAYS.iter().chain(Subject::PEERS).copied();
        all.filter(|subject| self.costs.iter().any(|(of, _)| of == subject))
    }

    /// Returns the report for a program to read: seconds, KiB.
    pub(super) fn json(&self) -> Value {
        let subject = |subject: Subject| {
            let runs = json!({
                "wall_seconds": self.all(subject, |cost| cost.wall),
                "cpu_seconds": self.all(subject, |cost| cost.cpu),
                "peak_kib": self.all(subject, |cost| cost.peak),
            });
            (subject.name().to_owned(), runs)
        };
        json!({
            "name": self.image.name,
            "image": self.description,
            "limit_seconds": self.limit(),
            "subjects": Value::Object(self.subjects().map(subject).collect()),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nlimit: {:.2} s", self.description, self.limit().unwrap_or_default())?;
        writeln!(f, "{:<26}{:>9}{:>9}{:>10}{:>12}", "medians", "wall s", "cpu s", "peak MB", "of limit")?;
        for subject in self.subjects() {
            let [wall, cpu, peak] = [|cost: &Cost| cost.wall, |cost: &Cost| cost.cpu, |cost: &Cost| cost.peak]
                .map(|part| self.median(subject, part).unwrap_or_default());
            let of_limit = self.of_limit(subject).unwrap_or_default();
            writeln!(f, "{:<26}{wall:>9.2}{cpu:>9.2}{:>10.0}{of_limit:>12.2}", subject.name(), peak * 1024.0 / 1e6)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let image = Image { name: "an image", overlay: 1.3, erofs: 0.6 };
        let mut report = Report::new(image, "described".to_owned());
        let walls = [(Subject::Fetch, 1.0), (Subject::Copy, 2.0), (Subject::Pull, 2.5), (Subject::Limit, 2.0)];
        for (subject, wall) in walls {
            for (turn, peak) in [(0.9, 1000.0), (1.0, 100_000.0), (5.0, 2000.0)] {
                report.add(subject, Cost { wall: wall * turn, cpu: 4.0, peak });
            }
        }
        report
    }

    #[test]
    fn a_bar_is_met_or_missed_by_medians_and_memory_by_its_highest() {
        let bars: Vec<_> = report().bars().into_iter().map(|bar| (bar.name.clone(), bar.value, bar.holds())).collect();
        let expected = [
            ("an image: pull / limit", Some(1.25), true),
            ("an image: pull, erofs / limit", None, false),
            ("an image: fetch / skopeo copy", Some(0.5), false),
            ("an image: peak memory, MB", Some(102.4), false),
        ];
        assert_eq!(bars, expected.map(|(name, value, holds)| (name.to_owned(), value, holds)));
        assert_eq!(report().json()["subjects"]["dist pull"]["wall_seconds"], json!([2.25, 2.5, 12.5]));
    }

    #[test]
    fn the_table_says_every_subject_that_was_measured_and_every_verdict() {
        let text = report().to_string();
        assert!(text.contains("limit: 2.00 s") && text.contains("skopeo copy"), "{text}");
        assert!(!text.contains("erofs") && !text.contains("umoci"), "{text}");
        let bars: Vec<String> = report().bars().iter().map(ToString::to_string).collect();
        let verdicts = ["1.30  ok", "-     0.60  not measured", "0.35  missed", "67.10  missed"];
        assert!(bars.iter().zip(verdicts).all(|(bar, verdict)| bar.ends_with(verdict)), "{bars:?}");
    }
}
