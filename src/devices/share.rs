//! Shares: directories that QEMU serves by 9pfs.

use std::fs;
use std::io;

use super::xenbus::{XenbusDevice, nodes};
use crate::config::devices::share::Share;
use crate::error::device::DeviceError;
use crate::xen::DomId;

/// The device in xenstore (tools/libs/light/libxl_9pfs.c, Xen 4.17).
///
/// # Errors
/// [`DeviceError::Share`] if its path is no directory.
pub fn device(devid: u32, share: &Share) -> Result<XenbusDevice, DeviceError> {
    let failed = |source| DeviceError::Share { tag: share.tag.clone(), path: share.path.clone(), source };
    if !fs::metadata(&share.path).map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    Ok(XenbusDevice {
        kind: "9pfs",
        backend_kind: "9pfs",
        backend: DomId::DOM0,
        devid,
        backend_nodes: nodes(vec![
            ("path", share.path.display().to_string()),
            ("security_model", share.security_model.as_str().to_owned()),
        ]),
        frontend_nodes: nodes(vec![("tag", share.tag.clone())]),
        frontend_fixed: Vec::new(),
    })
}
