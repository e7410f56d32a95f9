//! Where a domain's nodes are in xenstore.

use uuid::Uuid;

use crate::error::Error;
use crate::xen::{DomId, DomainInfo, Interface, Store, Transaction, XenError};

/// The paths of one domain.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The domain.
    pub domid: DomId,
    /// `/local/domain/N`, which the guest may read.
    pub domain: String,
    /// `/libxl/N`, where libxl looks for what it needs.
    pub libxl: String,
    /// The console's backend.
    pub console_backend: String,
    /// The device model's own directory.
    pub device_model: String,
}

impl Keys {
    /// The paths of `domid`.
    #[must_use]
    pub fn new(domid: DomId) -> Self {
        Self {
            domid,
            domain: format!("/local/domain/{domid}"),
            libxl: format!("/libxl/{domid}"),
            console_backend: format!("/local/domain/0/backend/console/{domid}/0"),
            device_model: format!("/local/domain/0/device-model/{domid}"),
        }
    }

    /// A node of the domain.
    #[must_use]
    pub fn of_domain(&self, name: &str) -> String {
        format!("{}/{name}", self.domain)
    }

    /// Marks a domain as created by dombuild; the value is its UUID, lest the mark be taken for a later domain's of the
    /// same number. The guest cannot write there.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{}/dombuild", self.libxl)
    }

    /// What the domain was built for.
    #[must_use]
    pub fn record(&self) -> String {
        format!("{}/request", self.mark())
    }

    /// Which process the device model is, where no cgroup tells that.
    #[must_use]
    pub fn device_model_process(&self) -> String {
        format!("{}/device-model", self.mark())
    }

    /// The number of the domain's device model, for xl: whoever destroys a guest ends it by that.
    #[must_use]
    pub fn device_model_pid(&self) -> String {
        self.of_domain("image/device-model-pid")
    }

    /// What the device model says of itself.
    #[must_use]
    pub fn device_model_state(&self) -> String {
        format!("{}/state", self.device_model)
    }
}

/// Whether the keys at a domain's number name another one: by dombuild's mark and by `vm`, the path that every toolstack
/// writes. Keys that name none are of whoever has the number.
pub(super) fn name_another(mark: Option<&str>, vm: Option<&str>, uuid: Uuid) -> bool {
    let named = [mark.map(|mark| mark == uuid.to_string()), vm.map(|vm| vm == format!("/vm/{uuid}"))];
    named.iter().flatten().count() > 0 && !named.contains(&Some(true))
}

/// Whether dombuild created the domain, or that of which there are only keys any more.
///
/// # Errors
/// Where xenstored refuses to tell.
pub fn is_ours(xen: &Interface, store: &Store, domid: DomId) -> Result<bool, XenError> {
    let mark = mark_of(store, domid)?;
    let domain = xen.domain(domid)?;
    Ok(mark.is_some_and(|mark| domain.is_none_or(|domain| mark == domain.uuid)))
}

/// The handle of the domain for which a number's keys were made, where dombuild made them.
///
/// # Errors
/// Where xenstored refuses to tell.
pub fn mark_of(store: &Store, domid: DomId) -> Result<Option<Uuid>, XenError> {
    Ok(store.plain().read(&Keys::new(domid).mark())?.and_then(|mark| mark.parse().ok()))
}

/// Whether a domain of this number has keys, although Xen may not know it any more.
///
/// # Errors
/// Where xenstored refuses to tell.
pub fn has_keys(store: &Store, domid: DomId) -> Result<bool, XenError> {
    let (plain, keys) = (store.plain(), Keys::new(domid));
    Ok(plain.read(&keys.domain)?.is_some() || plain.read(&keys.libxl)?.is_some())
}

/// Fails where a domain other than `except` has the UUID. One that is dying has it no more, as for libxl.
///
/// # Errors
/// [`Error::BadConfig`]; where Xen refuses to tell.
pub fn check_uuid_free(xen: &Interface, uuid: Uuid, except: Option<DomId>) -> Result<(), Error> {
    let domains = xen.domains()?;
    match domains.iter().find(|domain| !domain.dying && domain.uuid == uuid && Some(domain.domid) != except) {
        Some(other) => Err(Error::BadConfig(format!("the UUID {uuid} belongs to domain {}", other.domid))),
        None => Ok(()),
    }
}

/// The domain that has this name, if there is one. A domain that is dying has it no more: its keys may still be there.
///
/// # Errors
/// Where xenstored or Xen refuse to tell.
pub fn name_owner(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Option<DomId>, Error> {
    let named = all_named(xen, transaction, name)?;
    Ok(named.iter().find(|domain| !domain.dying).map(|domain| domain.domid))
}

/// The domain that a user means by this name: the one that has it, or else one that is dying and had it.
///
/// # Errors
/// Where xenstored or Xen refuse to tell.
pub fn find_by_name(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Option<DomId>, Error> {
    let named = all_named(xen, transaction, name)?;
    Ok(named.iter().min_by_key(|domain| domain.dying).map(|domain| domain.domid))
}

/// Every domain of this name. Names in xenstore count where Xen knows the domain; of those that live, dombuild and xl see
/// to it that one has a name.
fn all_named(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Vec<DomainInfo>, Error> {
    let domains = xen.domains()?;
    let paths: Vec<_> = domains.iter().map(|domain| Keys::new(domain.domid).of_domain("name")).collect();
    let names = transaction.read_all(&paths)?;
    let named = domains.into_iter().zip(names).filter(|(_, other)| other.as_deref() == Some(name));
    Ok(named.map(|(domain, _)| domain).collect())
}
