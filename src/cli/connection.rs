//! The handles that a verb works with, and the domain that a user names.

use std::time::Duration;

use super::reporter::Reporter;
use crate::cancel::Cancel;
use crate::context::Context;
use crate::error::{Error, Failure};
use crate::lifecycle::teardown::teardown;
use crate::observer;
use crate::qemu::helpers::Ending;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, DomainRef, Interface, Store};

/// The handles that every verb on a real Xen needs.
pub(crate) struct Connection<'a> {
    pub(crate) xen: Interface,
    pub(crate) store: Store,
    pub(crate) cancel: Cancel,
    pub(crate) reporter: &'a Reporter,
}

impl<'a> Connection<'a> {
    /// `cancel` is whether a signal stops the run in order; without it, it ends at once. `store_timeout` is how long
    /// xenstored may take for an answer.
    pub(crate) fn open(reporter: &'a Reporter, cancel: bool, store_timeout: Duration) -> Result<Self, Failure> {
        Self::open_with(reporter, store_timeout, || if cancel { Cancel::install() } else { Ok(Cancel::default()) })
    }

    /// The same for a run that looks after a guest: SIGHUP does not stop it, and SIGUSR1 does.
    pub(crate) fn open_for_supervisor(reporter: &'a Reporter, store_timeout: Duration) -> Result<Self, Failure> {
        Self::open_with(reporter, store_timeout, Cancel::install_for_supervisor)
    }

    fn open_with(
        reporter: &'a Reporter,
        store_timeout: Duration,
        cancel: impl FnOnce() -> Result<Cancel, Error>,
    ) -> Result<Self, Failure> {
        observer::step(reporter, Stage::Connect, || {
            let cancel = cancel()?;
            let xen = Interface::open()?;
            let store = Store::open_with(store_timeout, cancel.interrupt());
            let store = store.map_err(|error| cancel.explain(error.into()))?;
            Ok::<_, Error>(Self { xen, store, cancel, reporter })
        })
    }

    /// What every step needs; its progress is shown on the terminal from now on.
    pub(crate) fn context(&self) -> Context<'_> {
        self.reporter.show_line();
        Context { xen: &self.xen, store: &self.store, observer: self.reporter, cancel: &self.cancel }
    }

    /// Removes a domain and all that belongs to it.
    pub(crate) fn destroy(&self, domain: DomainRef) -> Result<(), Failure> {
        let left_behind = |cleanup| Error::LeftBehind { domid: domain.domid, cleanup, cause: None };
        let removed = || teardown(&self.xen, &self.store, domain, Ending::InOrder);
        observer::step(self.reporter, Stage::Destroy, || removed().map_err(left_behind))
    }
}

/// The domain that a user means by a number or a name.
pub(crate) fn find_domain(connection: &Connection<'_>, text: &str) -> Result<DomId, Error> {
    let unknown = || Error::NoSuchDomain(text.to_owned());
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let domid = text.parse().ok().and_then(DomId::new).ok_or_else(unknown)?;
        return connection.xen.domain(domid)?.map(|info| info.domid).ok_or_else(unknown);
    }
    crate::domain::find::find_by_name(&connection.xen, &connection.store.plain(), text)?.ok_or_else(unknown)
}

/// The guest that a user means by a number or a name; dom0 is none.
pub(crate) fn find_guest(connection: &Connection<'_>, text: &str) -> Result<DomainInfo, Error> {
    let domid = find_domain(connection, text)?;
    if domid == DomId::DOM0 {
        return Err(Error::BadConfig("domain 0 is the one that this runs in: it is no guest".to_owned()));
    }
    connection.xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(text.to_owned()))
}
