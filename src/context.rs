//! What every step of the procedure needs.

use crate::cancel::Cancel;
use crate::error::{AtStage, Error, Failure};
use crate::observer::{Observer, Running};
use crate::stage::Stage;
use crate::xen::{Interface, Store};

/// What every step needs: the handles, a way to tell how far it is, and a way to be stopped.
#[derive(Debug)]
pub struct Context<'a> {
    /// libxenctrl.
    pub xen: &'a Interface,
    /// xenstored.
    pub store: &'a Store,
    /// Takes the progress of the run.
    pub observer: &'a dyn Observer,
    /// Cancellation.
    pub cancel: &'a Cancel,
}

impl Context<'_> {
    /// Runs one step of the procedure under its name, unless the user has asked to stop.
    ///
    /// # Errors
    /// What the step returns, with its name.
    pub fn step<T, E: Into<Error>>(&self, stage: Stage, work: impl FnOnce() -> Result<T, E>) -> Result<T, Failure> {
        self.cancel.check().at(stage)?;
        let running = Running::begin(self.observer, stage);
        let value = work().map_err(|error| self.cancel.explain(error.into())).at(stage)?;
        running.done();
        Ok(value)
    }
}
