//! The guard of a domain that this run created: it is destroyed on every path that does not end in success.

use super::teardown::teardown;
use crate::error::{Error, Failure};
use crate::observer::{Observer, Running};
use crate::qemu::helpers::Ending;
use crate::runs::journal::JournalEntry;
use crate::stage::Stage;
use crate::xen::{DomId, DomainRef, Interface, Store};

/// A domain of our own making. Dropped without [`NewDomain::keep`], it is destroyed. Until it is handed over, the run's
/// record tells a later `cleanup` of it.
#[derive(Debug)]
pub struct NewDomain<'a> {
    xen: &'a Interface,
    store: &'a Store,
    domain: DomainRef,
    run: JournalEntry,
    armed: bool,
}

impl<'a> NewDomain<'a> {
    /// Takes charge of a domain that was created just now, in a run that was recorded before.
    ///
    /// # Errors
    /// Where its number cannot be recorded; it is destroyed again then.
    pub fn new(xen: &'a Interface, store: &'a Store, domain: DomainRef, run: JournalEntry) -> Result<Self, Error> {
        let mut new = Self { xen, store, domain, run, armed: true };
        new.run.set_domain(domain.domid)?;
        Ok(new)
    }

    /// The run in which it is made.
    pub fn run(&mut self) -> &mut JournalEntry {
        &mut self.run
    }

    /// The guest is whole: killed from now on, this run leaves it to its user.
    ///
    /// # Errors
    /// Where the run's record cannot be removed.
    pub fn hand_over(&mut self) -> Result<(), Error> {
        self.run.end()
    }

    /// Its number.
    #[must_use]
    pub fn domid(&self) -> DomId {
        self.domain.domid
    }

    /// The domain, to be held.
    #[must_use]
    pub fn held(&self) -> DomainRef {
        self.domain
    }

    /// Success: the domain stays.
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// Failure: destroys the domain and says so in the error that is returned.
    #[must_use]
    pub fn undo(mut self, observer: &dyn Observer, failure: Failure) -> Failure {
        self.armed = false;
        self.run.resume();
        let domid = self.domain.domid;
        let running = Running::begin(observer, Stage::Destroy);
        self.store.begin_rollback();
        match teardown(self.xen, self.store, self.domain, Ending::AtOnce) {
            Ok(()) => {
                running.done();
                Failure { aftermath: Some(format!("domain {domid} was destroyed again, nothing is left")), ..failure }
            }
            Err(cleanup) => {
                self.run.leave();
                Failure {
                    stage: failure.stage,
                    error: Error::LeftBehind { domid, cleanup, cause: Some(Box::new(failure)) },
                    aftermath: None,
                }
            }
        }
    }
}

impl Drop for NewDomain<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.store.begin_rollback();
            if let Err(problem) = teardown(self.xen, self.store, self.domain, Ending::AtOnce) {
                self.run.leave();
                log::error!("domain {} was left behind: {problem}", self.domain.domid);
            }
        }
    }
}
