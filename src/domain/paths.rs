//! Where a domain's nodes are in xenstore.

use crate::xen::DomId;

/// The paths of one domain.
#[derive(Debug, Clone)]
pub struct XenstorePaths {
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

impl XenstorePaths {
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
    pub fn owner_tag(&self) -> String {
        format!("{}/dombuild", self.libxl)
    }

    /// What the domain was built for.
    #[must_use]
    pub fn saved_request(&self) -> String {
        format!("{}/request", self.owner_tag())
    }

    /// Which process the device model is, where no cgroup tells that.
    #[must_use]
    pub fn device_model_process(&self) -> String {
        format!("{}/device-model", self.owner_tag())
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
