//! The nodes of a guest's PCI devices in xenstore: one backend for all of them, as libxl writes it
//! (`libxl__create_pci_backend` and `libxl__device_pci_add_xenstore`, tools/libs/light/libxl_pci.c, Xen 4.17).

use super::pci_notes::{backend_of, in_backend};
use super::xenbus::{error_directory, state};
use crate::config::devices::pci::PciDevice;
use crate::domain::paths::XenstorePaths;
use crate::xen::{DomId, PciAddress, Permissions, Transaction, XenError};

/// The state of a backend or of a device in it that waits for the other end.
const INITIALISED: &str = "3";
/// The state of a device that goes.
pub const CLOSING: &str = state::CLOSING;
/// The backend has changed its devices while it was connected.
const RECONFIGURING: &str = "7";

/// The frontend of a guest's PCI devices.
#[must_use]
pub fn frontend_of(domid: DomId) -> String {
    XenstorePaths::new(domid).of_domain("device/pci/0")
}

/// Adds devices to the backend of a guest, and makes it if it has none. `place` is the slot and function (`vdevfn`) of a
/// device on the bus of an HVM guest. `running`: the guest runs and gets the state of the change.
///
/// # Errors
/// An error of xenstored.
pub fn add(
    transaction: &Transaction<'_>,
    domid: DomId,
    name: &str,
    devices: &[(PciDevice, Option<u32>)],
    running: bool,
) -> Result<(), XenError> {
    let (backend, frontend) = (backend_of(domid), frontend_of(domid));
    let present = transaction.read(&format!("{backend}/num_devs"))?;
    let first = present.as_deref().and_then(|count| count.parse::<u32>().ok());
    if first.is_none() {
        transaction.remove(&frontend)?;
        transaction.remove(&backend)?;
        transaction.make_as(&frontend, Permissions { owner: domid, reader: Some(DomId::DOM0) })?;
        transaction.write(&format!("{frontend}/backend"), &backend)?;
        transaction.write(&format!("{frontend}/backend-id"), "0")?;
        transaction.write(&format!("{frontend}/state"), state::INITIALISING)?;
        transaction.make_as(&backend, Permissions { owner: DomId::DOM0, reader: Some(domid) })?;
        for (node, value) in [("frontend", frontend.as_str()), ("frontend-id", &domid.to_string()), ("online", "1")] {
            transaction.write(&format!("{backend}/{node}"), value)?;
        }
        transaction.write(&format!("{backend}/state"), state::INITIALISING)?;
        transaction.write(&format!("{backend}/domain"), name)?;
    }
    let mut number = first.unwrap_or(0);
    for (device, place) in devices {
        let write = |node: &str, value: &str| transaction.write(&format!("{backend}/{node}-{number}"), value);
        write("key", &device.address.to_string())?;
        write("dev", &device.address.to_string())?;
        if let Some(place) = place {
            write("vdevfn", &format!("{place:x}"))?;
        }
        write("opts", &options(device))?;
        write("state", state::INITIALISING)?;
        number += 1;
    }
    transaction.write(&format!("{backend}/num_devs"), &number.to_string())?;
    if running && first.is_some() {
        transaction.write(&format!("{backend}/state"), RECONFIGURING)?;
    }
    Ok(())
}

/// The settings of a device, as libxl writes and reads them.
fn options(device: &PciDevice) -> String {
    let PciDevice { msitranslate, power_mgmt, permissive, relaxed, .. } = *device;
    let [msi, power, permissive] = [msitranslate, power_mgmt, permissive].map(u8::from);
    let policy = if relaxed { "relaxed" } else { "strict" };
    format!("msitranslate={msi},power_mgmt={power},permissive={permissive},rdm_policy={policy}")
}

/// Whether pciback has taken the devices: the backend is initialised or connected.
///
/// # Errors
/// An error of xenstored.
pub fn is_ready(transaction: &Transaction<'_>, domid: DomId) -> Result<bool, XenError> {
    let state = transaction.read(&format!("{}/state", backend_of(domid)))?;
    Ok(matches!(state.as_deref(), Some(INITIALISED | state::CONNECTED)))
}

/// The state of the backend of a guest's PCI devices.
///
/// # Errors
/// An error of xenstored.
pub fn backend_state(transaction: &Transaction<'_>, domid: DomId) -> Result<Option<String>, XenError> {
    transaction.read(&format!("{}/state", backend_of(domid)))
}

/// Asks a PV guest to release a device. `false`: the guest has not connected its devices, and cannot be asked.
///
/// # Errors
/// An error of xenstored.
pub fn ask_to_release(transaction: &Transaction<'_>, domid: DomId, number: u32) -> Result<bool, XenError> {
    let backend = backend_of(domid);
    if transaction.read(&format!("{backend}/state"))?.as_deref() != Some(state::CONNECTED) {
        return Ok(false);
    }
    transaction.write(&format!("{backend}/state-{number}"), CLOSING)?;
    transaction.write(&format!("{backend}/state"), RECONFIGURING)?;
    Ok(true)
}

/// Removes a device from the backend; the devices behind it move up. The last one takes the backend with it, and `true` is
/// returned.
///
/// # Errors
/// An error of xenstored.
pub fn remove(transaction: &Transaction<'_>, domid: DomId, address: PciAddress) -> Result<bool, XenError> {
    /// The nodes of a device, those that pciback writes included.
    const NODES: [&str; 7] = ["key", "dev", "vdev", "vdevfn", "opts", "state", "name"];
    let backend = backend_of(domid);
    let mut devices = in_backend(transaction, domid)?;
    devices.sort_unstable();
    let Some(index) = devices.iter().position(|(_, other)| *other == address) else { return Ok(devices.is_empty()) };
    if devices.len() == 1 {
        remove_all(transaction, domid)?;
        return Ok(true);
    }
    for pair in devices.get(index..).unwrap_or_default().windows(2) {
        let [(to, _), (from, _)] = pair else { continue };
        for node in NODES {
            match transaction.read(&format!("{backend}/{node}-{from}"))? {
                Some(value) => transaction.write(&format!("{backend}/{node}-{to}"), &value)?,
                None => transaction.remove(&format!("{backend}/{node}-{to}"))?,
            }
        }
    }
    if let Some((last, _)) = devices.last() {
        NODES.iter().try_for_each(|node| transaction.remove(&format!("{backend}/{node}-{last}")))?;
    }
    transaction.write(&format!("{backend}/num_devs"), &(devices.len() - 1).to_string())?;
    Ok(false)
}

/// Removes both ends, and the directories that they leave empty.
///
/// # Errors
/// An error of xenstored.
pub fn remove_all(transaction: &Transaction<'_>, domid: DomId) -> Result<(), XenError> {
    transaction.remove(&frontend_of(domid))?;
    transaction.remove(&backend_of(domid))?;
    let of_guest = XenstorePaths::new(domid).of_domain("device/pci");
    for directory in
        [of_guest, format!("/local/domain/0/backend/pci/{domid}"), "/local/domain/0/backend/pci".to_owned()]
    {
        if transaction.children(&directory)?.is_empty() {
            transaction.remove(&directory)?;
        }
    }
    Ok(())
}

/// Removes the error that dom0's kernel has reported of the backend, and the directories that it leaves empty.
///
/// # Errors
/// An error of xenstored.
pub fn remove_errors(transaction: &Transaction<'_>, domid: DomId) -> Result<(), XenError> {
    let errors = error_directory(DomId::DOM0, "pci", domid, 0);
    if transaction.read(&errors)?.is_none() {
        return Ok(());
    }
    transaction.remove(&errors)?;
    let home = "/local/domain/0/error";
    let kind = format!("{home}/backend/pci");
    for directory in [format!("{kind}/{domid}"), kind, format!("{home}/backend"), home.to_owned()] {
        if !transaction.children(&directory)?.is_empty() {
            break;
        }
        transaction.remove(&directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_libxls() {
        let device = PciDevice::new("03:00.0".parse().expect("an address"));
        assert_eq!(options(&device), "msitranslate=0,power_mgmt=0,permissive=0,rdm_policy=strict");
        let device = PciDevice { permissive: true, relaxed: true, ..device };
        assert_eq!(options(&device), "msitranslate=0,power_mgmt=0,permissive=1,rdm_policy=relaxed");
    }
}
