//! Tells how far the procedure is: one changing line on a terminal, log lines and events elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::events::{self, Running, Unit};
use crate::os::one_line;
use crate::stage::Stage;

/// A step alone, and one that is counted in memory.
const STEP: &str = "{spinner} {msg} [{elapsed}]";
const AMOUNT: &str =
    "{spinner} {msg} [{bar:24}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";

fn show(line: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        line.set_style(style.progress_chars("=> "));
    }
}

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
            show(&line, STEP);
            line
        });
        Self { line }
    }

    /// The procedure has come to this step.
    pub fn begin(&self, stage: Stage) -> Running {
        if let Some(line) = self.line.as_ref().filter(|line| line.length().is_some()) {
            line.unset_length();
            show(line, STEP);
        }
        self.note(stage.name().to_owned());
        Running::begin(stage)
    }

    /// How far the present step is: the numbers, and what they are for people, who see these as a bar or in `text`.
    pub fn count(&self, what: &str, done: u64, total: u64, unit: Unit, text: &str) {
        events::progress(done, total, unit, text);
        if let Some(line) = &self.line {
            if line.length().is_none() {
                line.reset();
                show(line, AMOUNT);
            }
            line.set_length(unit.bytes(total));
            line.set_position(unit.bytes(done));
        }
        self.note(what.to_owned());
    }

    /// More about the present step.
    pub fn note(&self, text: String) {
        if let Some(line) = &self.line {
            line.set_message(one_line(&text).into_owned());
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
