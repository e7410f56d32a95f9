//! The progress reports of a run: events for a program, a line on a terminal.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::events::Events;
use super::progress_line::ProgressLine;
use crate::observer::{Observer, Outcome, Progress};
use crate::stage::Stage;

/// The observer of every verb.
#[derive(Debug, Default)]
pub struct Reporter {
    events: Arc<Events>,
    line: RefCell<Option<ProgressLine>>,
}

impl Reporter {
    /// Reports to these events; there is no line on the terminal yet.
    #[must_use]
    pub fn new(events: Arc<Events>) -> Self {
        Self { events, line: RefCell::new(None) }
    }

    /// Shows the line from now on, where there is a terminal for it.
    pub fn show_line(&self) {
        self.line.replace(ProgressLine::new());
    }

    /// Takes the line off the terminal, before something else is printed there.
    pub fn clear_line(&self) {
        self.line.replace(None);
    }
}

impl Observer for Reporter {
    fn stage_started(&self, stage: Stage) {
        self.events.stage_started(stage);
        if let Some(line) = &*self.line.borrow() {
            line.stage_started(stage);
        }
    }

    fn stage_ended(&self, stage: Stage, outcome: Outcome, elapsed: Duration) {
        self.events.stage_ended(stage, outcome, elapsed);
    }

    fn progress(&self, progress: &Progress<'_>) {
        self.events.progress(progress);
        if let Some(line) = &*self.line.borrow() {
            line.progress(progress);
        }
    }

    fn note(&self, text: &str) {
        if let Some(line) = &*self.line.borrow() {
            line.note(text);
        }
    }
}
