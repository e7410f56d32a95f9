//! What a caller sees of a run while it lasts: its steps, and how far the present one is.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{AtStage, Error, Failure};
use crate::stage::Stage;

/// What is counted while a step waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// KiB.
    Kib,
    /// Pages of 4 KiB.
    Pages,
}

impl Unit {
    /// So many of them, in bytes.
    #[must_use]
    pub const fn bytes(self, count: u64) -> u64 {
        match self {
            Self::Kib => count.saturating_mul(1024),
            Self::Pages => count.saturating_mul(4096),
        }
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What is counted, in a word or two.
    pub what: &'a str,
    /// How much is done.
    pub done: u64,
    /// How much there is to do.
    pub total: u64,
    /// The unit of both.
    pub unit: Unit,
    /// The same for people, in a sentence.
    pub text: &'a str,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Done,
    /// It returned an error.
    Failed,
}

/// Takes what a run says of itself. Each method does nothing unless it is implemented; none may block for long.
pub trait Observer: fmt::Debug {
    /// A step begins.
    fn stage_started(&self, _stage: Stage) {}

    /// A step has ended, after this time.
    fn stage_ended(&self, _stage: Stage, _outcome: Outcome, _elapsed: Duration) {}

    /// How far the present step is.
    fn progress(&self, _progress: &Progress<'_>) {}

    /// More about the present step, in words.
    fn note(&self, _text: &str) {}
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// A step that is running. Dropped without [`Running::done`], it has failed.
#[derive(Debug)]
#[must_use = "the step fails at once otherwise"]
pub struct Running<'a> {
    observer: &'a dyn Observer,
    stage: Stage,
    start: Instant,
    outcome: Outcome,
}

impl<'a> Running<'a> {
    /// Begins a step.
    pub fn begin(observer: &'a dyn Observer, stage: Stage) -> Self {
        log::info!(STAGE = stage.name(); "stage {stage}");
        observer.stage_started(stage);
        Self { observer, stage, start: Instant::now(), outcome: Outcome::Failed }
    }

    /// The step has done its work.
    pub fn done(mut self) {
        self.outcome = Outcome::Done;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.observer.stage_ended(self.stage, self.outcome, self.start.elapsed());
    }
}

/// Runs one step under its name.
///
/// # Errors
/// The error of the step, with its name.
pub fn step<T, E: Into<Error>>(
    observer: &dyn Observer,
    stage: Stage,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, Failure> {
    let running = Running::begin(observer, stage);
    let value = work().at(stage)?;
    running.done();
    Ok(value)
}
