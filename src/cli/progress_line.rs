//! The progress of a run on a terminal: one line that changes.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::observer::{Observer, Progress};
use crate::os::one_line;
use crate::stage::Stage;

/// A step alone, and one that is counted in memory.
const STEP: &str = "{spinner} {msg} [{elapsed}]";
const AMOUNT: &str =
    "{spinner} {msg} [{bar:24}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";

/// The line. Dropped, it is taken off the terminal.
#[derive(Debug)]
pub struct ProgressLine(ProgressBar);

impl ProgressLine {
    /// `None` where standard error is no terminal, or the log there is verbose.
    #[must_use]
    pub fn new() -> Option<Self> {
        (stderr().is_terminal() && log::max_level() < log::Level::Debug).then(|| {
            let line = Self(ProgressBar::new_spinner());
            line.0.enable_steady_tick(Duration::from_millis(120));
            line.show(STEP);
            line
        })
    }

    fn show(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style.progress_chars("=> "));
        }
    }
}

impl Observer for ProgressLine {
    fn stage_started(&self, stage: Stage) {
        if self.0.length().is_some() {
            self.0.unset_length();
            self.show(STEP);
        }
        self.note(stage.name());
    }

    fn progress(&self, progress: &Progress<'_>) {
        if self.0.length().is_none() {
            self.0.reset();
            self.show(AMOUNT);
        }
        self.0.set_length(progress.unit.bytes(progress.total));
        self.0.set_position(progress.unit.bytes(progress.done));
        self.note(progress.what);
    }

    fn note(&self, text: &str) {
        self.0.set_message(one_line(text).into_owned());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
