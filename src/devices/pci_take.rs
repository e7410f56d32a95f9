//! Takes PCI devices from guests: they go into Xen's quarantine, pciback has them, and no note says that a guest has them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::block::kernel_backend;
use super::pci_host::HostDevice;
use super::pci_nodes;
use super::pci_notes::{
    OwnedDevice, guest_node, in_backend, notes, owned_by, owner_node, remove_empty_notes, run_node, taken_by_others,
};
use crate::xen::{DomId, DomainRef, Interface, PciAddress, Store, XenError};

/// How long pciback may take to close (`LIBXL_DESTROY_TIMEOUT`, Xen 4.17).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// Takes all devices of a domain, for the end of the domain. Neither the guest nor its QEMU is asked: the guest no longer
/// runs. Nothing happens if another domain has the domid.
///
/// Continues after a failure.
///
/// # Errors
/// Everything that failed, in one sentence.
pub fn take_all(xen: &Interface, store: &Store, sysfs: &Path, domain: DomainRef) -> Result<(), String> {
    let text = |error: XenError| error.to_string();
    let notes = notes(&store.plain()).map_err(text)?;
    for address in taken_by_others(&notes, domain) {
        forget(store, address).map_err(text)?;
    }
    let found = owned_by(&notes);
    if !found.iter().any(|device| device.domid == domain.domid) {
        return Ok(());
    }
    let info = xen.domain(domain.domid).map_err(text)?;
    let is_anothers = info.as_ref().is_some_and(|info| info.uuid != domain.uuid);
    // A note without a UUID is xl's, of the domain that has the number now.
    let is_its = |device: &&OwnedDevice| {
        device.domid == domain.domid && device.uuid.map_or(!is_anothers, |uuid| uuid == domain.uuid)
    };
    let mut devices: Vec<PciAddress> = found.iter().filter(is_its).map(|device| device.address).collect();
    if is_anothers {
        return devices.iter().try_for_each(|address| forget(store, *address)).map_err(text);
    }
    let shown = in_backend(&store.plain(), domain.domid).map_err(text)?;
    devices.extend(shown.into_iter().map(|(_, address)| address));
    devices.sort_unstable();
    devices.dedup();
    let exists = info.is_some();
    let mut problems: Vec<String> = Vec::new();
    // DMA of the devices reaches the quarantine from here on.
    for address in devices.iter().copied().filter(|_| exists) {
        problems.extend(xen.deassign_device(domain.domid, address).err().map(text));
    }
    problems.extend(store.transaction(|transaction| pci_nodes::remove_all(transaction, domain.domid)).err().map(text));
    problems.extend(wait_closed(store, domain.domid).err());
    for address in devices {
        match rest(xen, sysfs, address) {
            Ok(()) => problems.extend(forget(store, address).err().map(text)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Waits until dom0's pciback has let go of the devices: it takes none that it still holds for another guest. What it has
/// reported of them goes.
///
/// # Errors
/// It has not let go in time; an error of xenstored.
pub(crate) fn wait_closed(store: &Store, domid: DomId) -> Result<(), String> {
    let backend = kernel_backend("pci", domid, 0);
    let end = Instant::now() + CLOSE_TIMEOUT;
    while backend.exists() {
        if Instant::now() >= end {
            return Err(format!("pciback has not closed within {} s", CLOSE_TIMEOUT.as_secs()));
        }
        thread::sleep(POLL);
    }
    let removed = store.transaction(|transaction| pci_nodes::remove_errors(transaction, domid));
    removed.map_err(|error| error.to_string())
}

/// Sees to it that a device that no guest has is in quarantine if pciback has it, and ends what the guest has begun with it.
/// A device that dom0's drivers have by now is left alone.
///
/// # Errors
/// Xen did not take the device into quarantine, or its DMA could not be ended.
pub fn rest(xen: &Interface, sysfs: &Path, address: PciAddress) -> Result<(), String> {
    let found = HostDevice::find(sysfs, address).map_err(|error| error.to_string())?;
    // A device can be unplugged from the host.
    let Some(device) = found.filter(HostDevice::is_assignable) else { return Ok(()) };
    xen.quarantine_device(address).map_err(|error| error.to_string())?;
    device.silence().map_err(|error| error.to_string())
}

/// Removes the note that a guest has the device.
///
/// # Errors
/// An error of xenstored.
pub fn forget(store: &Store, address: PciAddress) -> Result<(), XenError> {
    store.transaction(|transaction| {
        for node in [owner_node(address), guest_node(address), run_node(address)] {
            transaction.remove(&node)?;
        }
        remove_empty_notes(transaction, address)
    })
}
