//! A device in xenstore: the nodes of its frontend, its backend and libxl's copy.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::domain::paths::XenstorePaths;
use crate::xen::{DomId, Permissions, Transaction, XenError};

/// The states of a frontend or backend (`xenbus_state`, xen/include/public/io/xenbus.h).
pub mod state {
    /// The toolstack has written the nodes.
    pub const INITIALISING: &str = "1";
    /// The backend waits for the frontend.
    pub const INIT_WAIT: &str = "2";
    /// Both ends work.
    pub const CONNECTED: &str = "4";
    /// The end closes.
    pub const CLOSING: &str = "5";
    /// The end is closed.
    pub const CLOSED: &str = "6";

    /// The name of a state; `None` if it is none.
    #[must_use]
    pub fn name(state: &str) -> Option<&'static str> {
        Some(match state {
            INITIALISING => "initialising",
            INIT_WAIT => "init-wait",
            "3" => "initialised",
            CONNECTED => "connected",
            CLOSING => "closing",
            CLOSED => "closed",
            "7" => "reconfiguring",
            "8" => "reconfigured",
            _ => return None,
        })
    }
}

/// The classes of backends that dom0's kernel serves, each with the module of its driver.
pub const KERNEL_DRIVERS: [(&str, &str); 2] = [("vbd", "xen-blkback"), ("vif", "xen-netback")];

/// The module of dom0's kernel that serves backends of a class; `None`: a program serves them.
#[must_use]
pub fn kernel_driver(backend_kind: &str) -> Option<&'static str> {
    KERNEL_DRIVERS.iter().find(|(kind, _)| *kind == backend_kind).map(|(_, module)| *module)
}

/// Nodes of a device with their values. The name of one in a directory of its own has a `/`.
pub type Nodes = Vec<(Cow<'static, str>, String)>;

/// The nodes of these names.
#[must_use]
pub fn nodes(named: Vec<(&'static str, String)>) -> Nodes {
    named.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// The directory of the errors that a backend's kernel reports of a device (`xenbus_dev_error` in Linux).
#[must_use]
pub fn error_directory(backend: DomId, backend_kind: &str, domid: DomId, devid: u32) -> String {
    format!("/local/domain/{backend}/error/backend/{backend_kind}/{domid}/{devid}")
}

/// A device with the nodes that its class adds to those that every device has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XenbusDevice {
    /// The class of the frontend, as in `vbd`.
    pub kind: &'static str,
    /// The class of the backend, as in `vbd` or `qdisk`.
    pub backend_kind: &'static str,
    /// The domain of the backend.
    pub backend: DomId,
    /// The number of the device.
    pub devid: u32,
    /// The nodes of the backend, below those that every backend has.
    pub backend_nodes: Nodes,
    /// The nodes of the frontend, which the guest owns.
    pub frontend_nodes: Nodes,
    /// The nodes of the frontend that the guest can read only.
    pub frontend_fixed: Nodes,
}

/// The paths of a device in xenstore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePaths {
    /// The directory of the frontend.
    pub frontend: String,
    /// The directory of the backend.
    pub backend: String,
    /// libxl's copy, which only dom0 can read.
    pub libxl: String,
}

impl XenbusDevice {
    /// The device in messages, as in `vbd 51712`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {}", self.kind, self.devid)
    }

    /// Its paths as a device of `domid`.
    #[must_use]
    pub fn paths(&self, domid: DomId) -> DevicePaths {
        let keys = XenstorePaths::new(domid);
        let place = format!("device/{}/{}", self.kind, self.devid);
        DevicePaths {
            frontend: keys.of_domain(&place),
            backend: format!("/local/domain/{}/backend/{}/{domid}/{}", self.backend, self.backend_kind, self.devid),
            libxl: format!("{}/{place}", keys.libxl),
        }
    }

    /// The device as `create` prints it.
    #[must_use]
    pub fn json(&self, domid: DomId) -> Value {
        let paths = self.paths(domid);
        json!({
            "kind": self.kind,
            "devid": self.devid,
            "backend_domid": self.backend,
            "backend": paths.backend,
            "frontend": paths.frontend,
        })
    }

    /// Writes the device's nodes as libxl does (tools/libs/light/libxl_device.c, libxl__device_generic_add, Xen 4.17). Nodes
    /// of an earlier device of that number are removed.
    ///
    /// # Errors
    /// An error of xenstored.
    pub fn write(&self, transaction: &Transaction<'_>, domid: DomId) -> Result<(), XenError> {
        let DevicePaths { frontend, backend, libxl } = self.paths(domid);
        let errors = error_directory(self.backend, self.backend_kind, domid, self.devid);
        for directory in [&libxl, &frontend, &backend, &errors] {
            transaction.remove(directory)?;
        }
        self.write_for_libxl(transaction, domid)?;
        // A new node inherits the permissions of its directory, also the owner.
        transaction.make_as(&frontend, Permissions { owner: domid, reader: Some(self.backend) })?;
        transaction.write(&format!("{frontend}/backend"), &backend)?;
        transaction.write(&format!("{frontend}/backend-id"), &self.backend.to_string())?;
        transaction.write(&format!("{frontend}/state"), state::INITIALISING)?;
        for (name, value) in &self.frontend_nodes {
            transaction.write(&format!("{frontend}/{name}"), value)?;
        }
        for (name, value) in &self.frontend_fixed {
            let path = format!("{frontend}/{name}");
            transaction.write(&path, value)?;
            transaction.set_permissions(&path, Permissions { owner: self.backend, reader: Some(domid) })?;
        }

        transaction.make_as(&backend, Permissions { owner: self.backend, reader: Some(domid) })?;
        self.write_backend(transaction, &backend, &frontend, domid)
    }

    /// Writes libxl's copy of the device alone. libxl takes a device that is not there for one that was removed: `xl list -l`
    /// and `xl save` would leave out an emulated drive that has no paravirtual twin.
    ///
    /// # Errors
    /// An error of xenstored.
    pub fn write_for_libxl(&self, transaction: &Transaction<'_>, domid: DomId) -> Result<(), XenError> {
        let DevicePaths { frontend, backend, libxl } = self.paths(domid);
        transaction.write(&format!("{libxl}/backend"), &backend)?;
        self.write_backend(transaction, &libxl, &frontend, domid)
    }

    fn write_backend(
        &self,
        transaction: &Transaction<'_>,
        directory: &str,
        frontend: &str,
        domid: DomId,
    ) -> Result<(), XenError> {
        transaction.write(&format!("{directory}/frontend"), frontend)?;
        transaction.write(&format!("{directory}/frontend-id"), &domid.to_string())?;
        transaction.write(&format!("{directory}/online"), "1")?;
        transaction.write(&format!("{directory}/state"), state::INITIALISING)?;
        for (name, value) in &self.backend_nodes {
            transaction.write(&format!("{directory}/{name}"), value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_those_of_libxl() {
        let device = XenbusDevice {
            kind: "vbd",
            backend_kind: "qdisk",
            backend: DomId::DOM0,
            devid: 51712,
            backend_nodes: Vec::new(),
            frontend_nodes: Vec::new(),
            frontend_fixed: Vec::new(),
        };
        let paths = device.paths(DomId::new(7).expect("a domid"));
        assert_eq!(paths.frontend, "/local/domain/7/device/vbd/51712");
        assert_eq!(paths.backend, "/local/domain/0/backend/qdisk/7/51712");
        assert_eq!(paths.libxl, "/libxl/7/device/vbd/51712");
        assert_eq!(device.label(), "vbd 51712");
    }
}
