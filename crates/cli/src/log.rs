//! Log messages on standard error, out of the way of progress bars.

use std::io::Write;
use std::str::FromStr;

use indicatif::MultiProgress;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use windlass_core::Error;

/// Which messages are shown: a level, or levels of single modules.
#[derive(Debug, Clone)]
pub(crate) struct Level(Targets);

/// Warnings, and what is worse.
impl Default for Level {
    fn default() -> Self {
        Self(Targets::new().with_default(LevelFilter::WARN))
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // A bare word that is no level would be taken for a module, and nothing would ever be shown.
        let known = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
        text.parse().ok().filter(|_| text.split(',').all(known)).map(Self).ok_or_else(|| {
            Error::invalid_argument(format!("{text:?} is not a log level")).hint(
                "levels are off, error, warn, info, debug and trace; for one module: warn,windlass_registry=debug",
            )
        })
    }
}

/// Shows log messages from here on, above the bars.
pub(crate) fn show(level: &Level, bars: &MultiProgress) {
    let bars = bars.clone();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || Above { bars: bars.clone(), message: Vec::new() })
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    tracing_subscriber::registry().with(layer.with_filter(level.0.clone())).init();
}

/// Collects one message and prints it with the bars out of the way.
struct Above {
    bars: MultiProgress,
    message: Vec<u8>,
}

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.message.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let message = std::mem::take(&mut self.message);
        if message.is_empty() { Ok(()) } else { self.bars.suspend(|| std::io::stderr().write_all(&message)) }
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        // There is nowhere left to say that standard error is gone.
        let _ = self.flush();
    }
}
