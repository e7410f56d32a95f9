//! The paths of a domain's nodes in xenstore, and the directory of dombuild's own files.

use crate::xen::DomId;

/// The directory of what dombuild knows as long as the host runs: the journal, which records each run while it lasts, locks, and
/// the index of names.
pub const STATE_DIR: &str = "/run/dombuild";

/// The paths of one domain.
#[derive(Debug, Clone)]
pub struct XenstorePaths {
    /// The domid.
    pub domid: DomId,
    /// `/local/domain/N`, which the guest may read.
    pub domain: String,
    /// `/libxl/N`, libxl's own keys of the domain.
    pub libxl: String,
    /// The directory of the first console's backend.
    pub console_backend: String,
    /// The directory that the device model owns.
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

    /// The path of the node `name` below `/local/domain/N`.
    #[must_use]
    pub fn of_domain(&self, name: &str) -> String {
        format!("{}/{name}", self.domain)
    }

    /// The owner tag, which shows that dombuild created the domain. Its value is the domain's UUID, so that it does not hold for
    /// a later domain with the same domid. The guest cannot write there.
    #[must_use]
    pub fn owner_tag(&self) -> String {
        format!("{}/dombuild", self.libxl)
    }

    /// The request for which the domain was built.
    #[must_use]
    pub fn saved_request(&self) -> String {
        format!("{}/request", self.owner_tag())
    }

    /// The process of the device model, used if no cgroup identifies it.
    #[must_use]
    pub fn device_model_process(&self) -> String {
        format!("{}/device-model", self.owner_tag())
    }

    /// The pid of the domain's device model. xl, and any tool that destroys a guest as xl does, ends the device model by it.
    #[must_use]
    pub fn device_model_pid(&self) -> String {
        self.of_domain("image/device-model-pid")
    }

    /// The state that the device model reports.
    #[must_use]
    pub fn device_model_state(&self) -> String {
        format!("{}/state", self.device_model)
    }
}
