//! What was measured: figures with their bars, and the same work done by others.

use std::fmt;

use serde_json::{Value, json};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::bench) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing; the figure is there to understand the others.
    None,
}

impl Bar {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::None => true,
        }
    }
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    value: f64,
    bar: Bar,
}

/// The same work by us and by somebody else, in seconds.
#[derive(Debug, Clone, PartialEq)]
struct Comparison {
    name: String,
    ours: f64,
    theirs: f64,
}

/// What was measured.
#[derive(Debug, Default)]
pub(in crate::bench) struct Report {
    figures: Vec<Figure>,
    comparisons: Vec<Comparison>,
}

impl Report {
    /// Adds a number, and shows it at once: a run takes minutes.
    pub(in crate::bench) fn add(&mut self, name: impl Into<String>, value: f64, bar: Bar) {
        let figure = Figure { name: name.into(), value, bar };
        println!("{}: {value:.3}", figure.name);
        self.figures.push(figure);
    }

    /// Adds what the same work took us and somebody else, in seconds.
    pub(in crate::bench) fn compare(&mut self, name: impl Into<String>, ours: f64, theirs: f64) {
        let comparison = Comparison { name: name.into(), ours, theirs };
        println!("{}: {ours:.3} s, {theirs:.3} s", comparison.name);
        self.comparisons.push(comparison);
    }

    /// Returns the report for a program to read.
    pub(in crate::bench) fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            let (at_most, at_least) = match figure.bar {
                Bar::AtMost(most) => (Some(most), None),
                Bar::AtLeast(least) => (None, Some(least)),
                Bar::None => (None, None),
            };
            let ok = figure.bar.is_met(figure.value);
            json!({"name": figure.name, "value": figure.value, "at_most": at_most, "at_least": at_least, "ok": ok})
        };
        let comparison =
            |it: &Comparison| json!({"name": it.name, "ours_seconds": it.ours, "theirs_seconds": it.theirs});
        json!({
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "comparisons": self.comparisons.iter().map(comparison).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<64}{:>10}  bar", "figures", "value")?;
        for Figure { name, value, bar } in &self.figures {
            let verdict = if bar.is_met(*value) { "ok" } else { "missed" };
            let bar = match bar {
                Bar::AtMost(most) => format!("at most {most:<6} {verdict}"),
                Bar::AtLeast(least) => format!("at least {least:<5} {verdict}"),
                Bar::None => "-".to_owned(),
            };
            writeln!(f, "{name:<64}{value:>10.3}  {bar}")?;
        }
        writeln!(f, "\n{:<64}{:>10}{:>10}{:>8}", "against", "ours s", "theirs s", "ratio")?;
        for Comparison { name, ours, theirs } in &self.comparisons {
            writeln!(f, "{name:<64}{ours:>10.3}{theirs:>10.3}{:>8.2}", ours / theirs)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add("quick", 1.0, Bar::AtMost(1.0));
        report.add("slow", 1.5, Bar::AtMost(1.0));
        report.add("many", 10.0, Bar::AtLeast(10.0));
        report.add("few", 9.0, Bar::AtLeast(10.0));
        report.add("shown", 5.0, Bar::None);
        report.compare("the same", 1.0, 4.0);
        report
    }

    #[test]
    fn bars_are_met_from_their_side() {
        let json = report().json();
        let ok: Vec<_> = json["figures"].as_array().unwrap().iter().map(|figure| figure["ok"] == true).collect();
        assert_eq!(ok, [true, false, true, false, true]);
        assert_eq!(json["figures"][3]["at_least"], 10.0);
        assert_eq!(json["comparisons"][0]["theirs_seconds"], 4.0);
    }

    #[test]
    fn the_table_has_every_figure_its_verdict_and_every_ratio() {
        let text = report().to_string();
        assert_eq!((text.matches(" ok").count(), text.matches(" missed").count()), (2, 2), "{text}");
        assert!(text.contains("shown") && text.contains("0.25"), "{text}");
    }
}
