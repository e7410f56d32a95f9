//! The guard of a domain that this run created. It destroys the domain on every path that does not end in success.

use std::fs::File;

use super::teardown::teardown;
use crate::config::name::DomainName;
use crate::domain::name_index;
use crate::error::{Error, Failure};
use crate::observer::{Observer, Running};
use crate::qemu::helpers::Ending;
use crate::runs::journal::JournalEntry;
use crate::stage::Stage;
use crate::xen::{DomId, DomainRef, Interface, Store};

/// A domain that this run created. Dropping it without [`NewDomain::keep`] destroys the domain. Until
/// [`NewDomain::release`], the journal entry lets a later `cleanup` find the domain.
#[derive(Debug)]
pub struct NewDomain<'a> {
    xen: &'a Interface,
    store: &'a Store,
    domain: DomainRef,
    run: JournalEntry,
    /// The lock under which the name was found to be free.
    names: Option<File>,
    armed: bool,
}

impl<'a> NewDomain<'a> {
    /// Guards a domain that has just been created, in a run whose journal entry exists. `names` is the lock under which its name
    /// was found to be free.
    ///
    /// # Errors
    /// [`Error::Internal`] if the domid cannot be recorded. The domain is destroyed then.
    pub fn new(
        xen: &'a Interface,
        store: &'a Store,
        domain: DomainRef,
        run: JournalEntry,
        names: File,
    ) -> Result<Self, Error> {
        let mut new = Self { xen, store, domain, run, names: Some(names), armed: true };
        new.run.set_domain(domain.domid)?;
        Ok(new)
    }

    /// The domain has its name in xenstore: other runs may look for theirs.
    pub fn has_its_name(&mut self, name: &DomainName) {
        name_index::note(self.domain, name.as_str());
        self.names = None;
    }

    /// The journal entry of the run.
    pub fn run(&mut self) -> &mut JournalEntry {
        &mut self.run
    }

    /// Removes the journal entry, because the guest is complete: if this run is killed from now on, the guest stays.
    ///
    /// # Errors
    /// [`Error::Internal`] if the journal entry cannot be removed.
    pub fn release(&mut self) -> Result<(), Error> {
        self.run.end()
    }

    /// The domid.
    #[must_use]
    pub fn domid(&self) -> DomId {
        self.domain.domid
    }

    /// The domid and UUID of the domain.
    #[must_use]
    pub fn held(&self) -> DomainRef {
        self.domain
    }

    /// Ends the guard after success: the domain stays.
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// Destroys the domain after a failure, and adds the outcome to the error.
    #[must_use]
    pub fn undo(mut self, observer: &dyn Observer, failure: Failure) -> Failure {
        self.armed = false;
        // The teardown takes the same lock.
        self.names = None;
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
            // The teardown takes the same lock.
            self.names = None;
            self.store.begin_rollback();
            if let Err(problem) = teardown(self.xen, self.store, self.domain, Ending::AtOnce) {
                self.run.leave();
                log::error!("domain {} was left behind: {problem}", self.domain.domid);
            }
        }
    }
}
