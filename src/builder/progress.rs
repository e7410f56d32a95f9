//! Tells how far the procedure is: one changing line on a terminal, log lines and events elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Stage;
use crate::events::{self, Running, Unit};

/// Where the procedure is. Dropping it takes the line off the terminal.
#[derive(Debug)]
pub struct Progress {
    line: Option<ProgressBar>,
}

impl Progress {
    /// On a terminal, a line that names the step; nothing otherwise, nor while the log is verbose.
    #[must_use]
    pub fn new() -> Self {
        let line = (stderr().is_terminal() && log::max_level() < log::Level::Debug).then(|| {
            let line = ProgressBar::new_spinner();
            line.enable_steady_tick(Duration::from_millis(120));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
                line.set_style(style);
            }
            line
        });
        Self { line }
    }

    /// The procedure has come to this step.
    pub fn begin(&self, stage: Stage) -> Running {
        self.note(stage.name().to_owned());
        Running::begin(stage)
    }

    /// How far the present step is, in numbers and in words.
    pub fn count(&self, done: u64, total: u64, unit: Unit, text: String) {
        events::progress(done, total, unit, &text);
        self.note(text);
    }

    /// More about the present step.
    pub fn note(&self, text: String) {
        if let Some(line) = &self.line {
            line.set_message(text);
        }
    }

    /// Takes the line off the terminal, before something else is printed there.
    pub fn clear(&self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
