//! What was measured, as a table of medians and as bars that are met or missed.

use std::fmt;

use serde_json::{Value, json};

use super::measure::{Cost, median};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// `dist fetch`.
    Fetch,
    /// `skopeo copy` to an OCI layout.
    Copy,
    /// `dist pull`.
    Pull,
    /// `skopeo copy` to an OCI layout, then `umoci unpack`.
    CopyAndUnpack,
    /// `sha256sum`, `gunzip` and `tar -x` of the layers.
    Limit,
}

impl Subject {
    /// All, in the order of a round.
    pub(super) const ALL: [Self; 5] = [Self::Fetch, Self::Copy, Self::Pull, Self::CopyAndUnpack, Self::Limit];

    /// Returns what it is called in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fetch => "dist fetch",
            Self::Copy => "skopeo copy",
            Self::Pull => "dist pull",
            Self::CopyAndUnpack => "skopeo copy + umoci",
            Self::Limit => "sha256sum + gunzip + tar",
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar {
    name: &'static str,
    at_most: f64,
    value: fn(&Report) -> f64,
}

impl Bar {
    /// The bars of this benchmark.
    pub(super) const ALL: &[Self] = &[
        Self {
            name: "wall of fetch / skopeo copy",
            at_most: 0.6,
            value: |report| report.ratio(Subject::Fetch, Subject::Copy),
        },
        Self {
            name: "wall of pull / skopeo copy + umoci",
            at_most: 0.7,
            value: |report| report.ratio(Subject::Pull, Subject::CopyAndUnpack),
        },
        Self {
            name: "peak memory of pull, MB",
            at_most: 150.0,
            value: |report| report.highest_peak(&[Subject::Fetch, Subject::Pull]) * 1024.0 / 1e6,
        },
        Self { name: "start-up of images ls, ms", at_most: 15.0, value: |report| report.start * 1e3 },
    ];
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    costs: Vec<(Subject, Cost)>,
    /// How long `dist images ls` takes on an empty root, in seconds.
    pub(super) start: f64,
}

impl Report {
    /// Adds a run.
    pub(super) fn add(&mut self, subject: Subject, cost: Cost) {
        self.costs.push((subject, cost));
    }

    fn all(&self, subject: Subject, part: fn(&Cost) -> f64) -> Vec<f64> {
        self.costs.iter().filter(|(of, _)| *of == subject).map(|(_, cost)| part(cost)).collect()
    }

    fn median(&self, subject: Subject, part: fn(&Cost) -> f64) -> f64 {
        median(&self.all(subject, part))
    }

    fn ratio(&self, one: Subject, other: Subject) -> f64 {
        self.median(one, |cost| cost.wall) / self.median(other, |cost| cost.wall)
    }

    /// Returns the highest peak of any run of the subjects, in KiB: a bound holds always, not in the middle.
    fn highest_peak(&self, subjects: &[Subject]) -> f64 {
        subjects.iter().flat_map(|subject| self.all(*subject, |cost| cost.peak)).fold(0.0, f64::max)
    }

    /// Returns the report for a program to read: seconds, KiB, and each bar.
    pub(super) fn json(&self, image: &str, bars: &[Bar]) -> Value {
        let subject = |subject: Subject| {
            let runs = json!({
                "wall_seconds": self.all(subject, |cost| cost.wall),
                "cpu_seconds": self.all(subject, |cost| cost.cpu),
                "peak_kib": self.all(subject, |cost| cost.peak),
            });
            (subject.name().to_owned(), runs)
        };
        let bar = |bar: &Bar| {
            let value = (bar.value)(self);
            json!({"name": bar.name, "value": value, "at_most": bar.at_most, "ok": value <= bar.at_most})
        };
        json!({
            "image": image,
            "subjects": Value::Object(Subject::ALL.into_iter().map(subject).collect()),
            "start_seconds": self.start,
            "bars": bars.iter().map(bar).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<26}{:>9}{:>9}{:>10}{:>12}", "medians", "wall s", "cpu s", "peak MB", "of limit")?;
        for subject in Subject::ALL {
            let [wall, cpu, peak] = [|cost: &Cost| cost.wall, |cost: &Cost| cost.cpu, |cost: &Cost| cost.peak]
                .map(|part| self.median(subject, part));
            let of_limit = self.ratio(subject, Subject::Limit);
            writeln!(f, "{:<26}{wall:>9.2}{cpu:>9.2}{:>10.0}{of_limit:>12.2}", subject.name(), peak * 1024.0 / 1e6)?;
        }
        writeln!(f, "\n{:<38}{:>9}{:>9}", "bars", "value", "at most")?;
        for bar in Bar::ALL {
            let value = (bar.value)(self);
            let verdict = if value <= bar.at_most { "ok" } else { "missed" };
            writeln!(f, "{:<38}{value:>9.2}{:>9}  {verdict}", bar.name, bar.at_most)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report { start: 0.010, ..Report::default() };
        let walls = [(Subject::Fetch, 1.0), (Subject::Copy, 2.0), (Subject::Pull, 4.0), (Subject::CopyAndUnpack, 5.0)];
        for (subject, wall) in walls.into_iter().chain([(Subject::Limit, 2.0)]) {
            for (turn, peak) in [(0.9, 1000.0), (1.0, 100_000.0), (5.0, 2000.0)] {
                report.add(subject, Cost { wall: wall * turn, cpu: 1.0, peak });
            }
        }
        report
    }

    #[test]
    fn a_bar_is_met_or_missed_by_medians_and_memory_by_its_highest() {
        let json = report().json("an image", Bar::ALL);
        let verdict = |bar: &Value| (bar["name"].as_str().unwrap().to_owned(), bar["ok"].as_bool().unwrap());
        let verdicts: Vec<_> = json["bars"].as_array().unwrap().iter().map(verdict).collect();
        let expected = [
            ("wall of fetch / skopeo copy", true),
            ("wall of pull / skopeo copy + umoci", false),
            ("peak memory of pull, MB", true),
            ("start-up of images ls, ms", true),
        ];
        assert_eq!(verdicts, expected.map(|(name, ok)| (name.to_owned(), ok)));
        assert_eq!(json["subjects"]["dist pull"]["wall_seconds"], json!([3.6, 4.0, 20.0]));
    }

    #[test]
    fn the_table_says_every_subject_and_verdict() {
        let text = report().to_string();
        assert!(Subject::ALL.iter().all(|subject| text.contains(subject.name())), "{text}");
        assert!(text.contains("0.80      0.7  missed"), "{text}");
        assert_eq!(text.matches("  ok").count(), 3, "{text}");
    }
}
