//! The progress of a run, as its caller sees it: the steps, and the progress within the present step.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{AtStage, Error, Failure};
use crate::stage::Stage;

/// The unit of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// KiB.
    Kib,
    /// Pages of 4 KiB.
    Pages,
}

impl Unit {
    /// Converts `count` to bytes.
    #[must_use]
    pub const fn bytes(self, count: u64) -> u64 {
        match self {
            Self::Kib => count.saturating_mul(1024),
            Self::Pages => count.saturating_mul(4096),
        }
    }
}

/// The progress of a step.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The activity, in a word or two.
    pub what: &'a str,
    /// The amount that is done.
    pub done: u64,
    /// The amount in all.
    pub total: u64,
    /// The unit of both.
    pub unit: Unit,
    /// The same as a sentence for the user.
    pub text: &'a str,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// It returned an error.
    Failed,
}

/// Receives the progress of a run. Each method does nothing unless it is implemented, and must not block for long.
pub trait Observer: fmt::Debug {
    /// A step begins.
    fn stage_started(&self, _stage: Stage) {}

    /// A step has ended, after this time.
    fn stage_ended(&self, _stage: Stage, _outcome: Outcome, _elapsed: Duration) {}

    /// The present step has made progress.
    fn progress(&self, _progress: &Progress<'_>) {}

    /// A message about the present step.
    fn note(&self, _text: &str) {}
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// A running step. It counts as failed if it is dropped without [`Running::done`].
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

    /// Ends the step with success.
    pub fn done(mut self) {
        self.outcome = Outcome::Done;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.observer.stage_ended(self.stage, self.outcome, self.start.elapsed());
    }
}

/// Runs one step and reports it to the observer.
///
/// # Errors
/// The error of the step, with the step's name.
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
