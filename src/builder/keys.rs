//! Where a domain's nodes are in xenstore.

use crate::error::Error;
use crate::xen::{DomId, Interface, Store, Transaction, XenError};

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

    /// Marks a domain as created by dombuild; the value is the version that did it. The guest cannot write there.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{}/dombuild", self.libxl)
    }

    /// The process that is the domain's device model.
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

/// Whether dombuild created the domain.
///
/// # Errors
/// Where xenstored refuses to tell.
pub fn is_ours(store: &Store, domid: DomId) -> Result<bool, XenError> {
    Ok(store.plain().read(&Keys::new(domid).mark())?.is_some())
}

/// The domain of this name, if there is one. Names in xenstore count where Xen knows the domain, or it is the rest of
/// one; two domains with one name cannot come about through dombuild or xl.
///
/// # Errors
/// Where xenstored or Xen refuse to tell.
pub fn find_by_name(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Option<DomId>, Error> {
    for domain in xen.domains()? {
        let path = Keys::new(domain.domid).of_domain("name");
        if transaction.read(&path)?.as_deref() == Some(name) {
            return Ok(Some(domain.domid));
        }
    }
    Ok(None)
}
