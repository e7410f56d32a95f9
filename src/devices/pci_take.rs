//! Takes PCI devices from guests: they go into Xen's quarantine, pciback has them, and no note says that a guest has them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::block::kernel_backend;
use super::pci_host::{
    HostDevice, OwnedDevice, in_backend, owned, owner_node, remove_empty_notes, run_node, uuid_node,
};
use super::pci_nodes;
use crate::xen::{DomId, DomainRef, Interface, PciAddress, Store, XenError};

/// How long pciback may take to close (`LIBXL_DESTROY_TIMEOUT`, Xen 4.17).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// Takes all devices of a domain, for the end of the domain. Neither the guest nor its QEMU is asked: the guest no longer runs. Nothing
/// happens if another domain has the domid.
///
/// Continues after a failure.
///
/// # Errors
/// Everything that failed, in one sentence.
pub fn take_all(xen: &Interface, store: &Store, sysfs: &Path, domain: DomainRef) -> Result<(), String> {
    let text = |error: XenError| error.to_string();
    let devices = devices_of(store, domain).map_err(text)?;
    if devices.is_empty() {
        return Ok(());
    }
    let exists = match xen.domain(domain.domid).map_err(text)? {
        Some(info) if info.uuid != domain.uuid => {
            return devices.iter().try_for_each(|address| forget(store, *address)).map_err(text);
        }
        found => found.is_some(),
    };
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

/// The devices of a domain: those that are noted, and those in its backend.
fn devices_of(store: &Store, domain: DomainRef) -> Result<Vec<PciAddress>, XenError> {
    let plain = store.plain();
    let is_its =
        |device: &OwnedDevice| device.domid == domain.domid && device.uuid.is_none_or(|uuid| uuid == domain.uuid);
    let mut all: Vec<PciAddress> =
        owned(&plain)?.iter().filter(|device| is_its(device)).map(|one| one.address).collect();
    if !all.is_empty() {
        all.extend(in_backend(&plain, domain.domid)?.into_iter().map(|(_, address)| address));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Waits until dom0's pciback has let go of the devices: it takes none that it still holds for another guest. What it has reported
/// of them goes.
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

/// Resets a device that no domain has, and sees to it that it is in quarantine if pciback has it.
///
/// # Errors
/// Xen did not take the device into quarantine.
pub fn rest(xen: &Interface, sysfs: &Path, address: PciAddress) -> Result<(), String> {
    // A device can be unplugged from the host.
    let Ok(device) = HostDevice::read(sysfs, address) else { return Ok(()) };
    if let Err(error) = device.reset() {
        log::warn!("the reset of {address} failed: {error}");
    }
    if device.is_assignable() { xen.quarantine_device(address).map_err(|error| error.to_string()) } else { Ok(()) }
}

/// Removes the note that a guest has the device.
///
/// # Errors
/// An error of xenstored.
pub fn forget(store: &Store, address: PciAddress) -> Result<(), XenError> {
    store.transaction(|transaction| {
        for node in [owner_node(address), uuid_node(address), run_node(address)] {
            transaction.remove(&node)?;
        }
        remove_empty_notes(transaction, address)
    })
}
