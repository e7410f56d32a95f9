//! The context of the procedure's steps.

use crate::cancel::Cancel;
use crate::error::{AtStage, Error, Failure};
use crate::observer::{Observer, Running};
use crate::stage::Stage;
use crate::xen::{Interface, Store};

/// The context of every step: the handles to Xen and xenstored, the observer of the progress, and cancellation.
#[derive(Debug)]
pub struct Context<'a> {
    /// The handle to libxenctrl.
    pub xen: &'a Interface,
    /// The connection to xenstored.
    pub store: &'a Store,
    /// Receives the progress of the run.
    pub observer: &'a dyn Observer,
    /// Cancellation.
    pub cancel: &'a Cancel,
}

impl Context<'_> {
    /// Runs one step of the procedure under its name, unless the user has asked to stop.
    ///
    /// # Errors
    /// The error of the step, with the step's name; [`Error::Interrupted`].
    pub fn step<T, E: Into<Error>>(&self, stage: Stage, work: impl FnOnce() -> Result<T, E>) -> Result<T, Failure> {
        self.cancel.check().at(stage)?;
        let running = Running::begin(self.observer, stage);
        let value = work().map_err(|error| self.cancel.explain(error.into())).at(stage)?;
        running.done();
        Ok(value)
    }
}
