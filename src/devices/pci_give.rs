//! Gives PCI devices of the host to a guest.
//!
//! Unlike libxl, a device has the guest's memory before the guest's driver or QEMU can make it use any: `xc_assign_device`
//! comes before the guest's backend and before QEMU's `device_add`. Until then its DMA reaches Xen's quarantine.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::pci_assignable::{Take, assign};
use super::pci_group::{Dom0s, check_dma, neighbours, warn_of_functions};
use super::pci_host::{HostDevice, PCIBACK, PciRange, write};
use super::pci_nodes;
use super::pci_notes::{backends, guest_node, guest_text, in_backend, owner_node, owners, run_node};
use super::pci_take::wait_closed;
use super::xenbus::error_directory;
use crate::config::devices::pci::PciDevice;
use crate::config::error::ConfigError;
use crate::context::Context;
use crate::error::device::DeviceError;
use crate::error::pci::PciError;
use crate::error::{Error, Failure};
use crate::memory::{Bytes, Kind};
use crate::os::Untrusted;
use crate::qemu::command_line::socket;
use crate::qemu::monitor::Monitor;
use crate::stage::Stage;
use crate::xen::{Access, DomId, DomainRef, PciAddress, Store, XenError};

/// How long pciback may take with its devices.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long QEMU may take to add a device: it resets the device and reads its whole configuration space. On a busy host,
/// libxl's 10 seconds are too short.
const QEMU_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const PAGE: u64 = 4096;

/// A device that has passed the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPci {
    /// What was asked for.
    pub device: PciDevice,
    /// What sysfs says of it.
    pub host: HostDevice,
}

/// The guest that gets devices, as far as the checks depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Recipient {
    /// Its kind.
    pub kind: Kind,
    /// It has a QEMU.
    pub has_qemu: bool,
    /// The end of its memory, for a PV guest: its largest size.
    pub memory: Bytes,
    /// Its number, if it exists.
    pub domid: Option<DomId>,
}

/// Checks that the guest can get the devices now. Nothing is changed.
///
/// # Errors
/// [`PciError`]: what stands against it, and who has the device; an error of Xen or xenstored.
pub fn plan(
    context: &Context<'_>,
    sysfs: &Path,
    devices: &[PciDevice],
    recipient: Recipient,
) -> Result<Vec<PlannedPci>, Error> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    crate::config::devices::pci::check(devices, recipient.kind).map_err(ConfigError::from)?;
    if !context.xen.physinfo()?.directio {
        return Err(PciError::NoIommu.into());
    }
    if recipient.kind == Kind::Hvm && !recipient.has_qemu {
        return Err(PciError::NoQemu.into());
    }
    let owners = owners(context.xen, &context.store.plain())?;
    let all: Vec<PciAddress> = devices.iter().map(|device| device.address).collect();
    let mut planned: Vec<PlannedPci> = Vec::new();
    for device in devices {
        let address = device.address;
        if planned.iter().any(|other| other.device.address == address) {
            return Err(PciError::Twice(address).into());
        }
        let host = HostDevice::read(sysfs, address)?;
        if host.is_bridge {
            return Err(PciError::Bridge(address).into());
        }
        if let Some(domid) = owners.get(&address).copied() {
            return Err(PciError::InGuest { address, domid }.into());
        }
        if !host.is_assignable() && !device.seize {
            return Err(PciError::NotAssignable { address, driver: host.driver.map(Untrusted::from) }.into());
        }
        if let Some(what) = host.use_in_dom0()? {
            return Err(PciError::UsedByDom0 { address, what }.into());
        }
        if !context.xen.is_device_free(address)? {
            return Err(PciError::NotFree(address).into());
        }
        check_collision(&host, recipient)?;
        let neighbours = neighbours(context.xen, sysfs, address, &owners)?;
        check_dma(address, &neighbours, recipient.domid, Dom0s::Only(&all))?;
        warn_of_functions(address, &neighbours, recipient.domid, &all);
        if host.reset_methods.is_empty() {
            log::warn!(
                "the PCI device {address} cannot be reset: the next guest that gets it finds its registers as this one leaves them"
            );
        }
        planned.push(PlannedPci { device: *device, host });
    }
    Ok(planned)
}

/// A PV guest maps the device at its machine addresses, so its memory must end below.
fn check_collision(host: &HostDevice, recipient: Recipient) -> Result<(), PciError> {
    let lowest = host.ranges.iter().filter(|range| !range.is_ports).map(|range| range.start).min();
    match lowest.filter(|_| recipient.kind == Kind::Pv) {
        Some(device) if device < recipient.memory.get() => {
            Err(PciError::Collision { address: host.address, device, memory: recipient.memory.get() })
        }
        _ => Ok(()),
    }
}

/// Notes the guest, ends what the devices do and resets them, and lets them use its memory, and the guest use them; with the mark of the run if
/// the guest exists already. What was done when it fails stays for [`super::pci_take`].
///
/// # Errors
/// [`PciError::InGuest`] if a device was given away since the checks; the call that Xen refused.
pub fn give(
    context: &Context<'_>,
    sysfs: &Path,
    domain: DomainRef,
    devices: &[PlannedPci],
    mark: Option<&str>,
) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    context.step::<_, Error>(Stage::HostAccess, || {
        for planned in devices {
            let address = planned.device.address;
            if !planned.host.is_assignable() {
                assign(context, sysfs, address, Take::Unused)?;
            }
            leave_the_dead(context, address)?;
            note(context, domain, address, mark)?;
            // What the guest before has begun must not reach this one's memory.
            planned.host.silence()?;
            context.xen.assign_device(domain.domid, address, planned.device.relaxed)?;
            permit(context, sysfs, domain.domid, planned)?;
        }
        Ok(())
    })
}

/// Has pciback let go of a device that it still holds for a domain that is gone: xl leaves the backend of a guest that has
/// never connected it.
fn leave_the_dead(context: &Context<'_>, address: PciAddress) -> Result<(), Error> {
    let plain = context.store.plain();
    for domid in backends(&plain)? {
        let holds = in_backend(&plain, domid)?.iter().any(|(_, other)| *other == address);
        if holds && context.xen.domain(domid)?.is_none() {
            log::info!("pciback still holds {address} for domain {domid}, which is gone");
            context.store.transaction(|transaction| pci_nodes::remove_all(transaction, domid))?;
            wait_closed(context.store, domid).map_err(Error::Internal)?;
        }
    }
    Ok(())
}

/// Writes whose the device is, unless another guest has it by now.
fn note(context: &Context<'_>, domain: DomainRef, address: PciAddress, mark: Option<&str>) -> Result<(), Error> {
    context.store.transaction(|transaction| {
        if let Some(owner) = transaction.read(&owner_node(address))? {
            let domid = owner.parse().ok().and_then(DomId::new).unwrap_or(DomId::DOM0);
            if context.xen.domain(domid)?.is_some() {
                return Err(PciError::InGuest { address, domid }.into());
            }
        }
        transaction.write(&guest_node(address), &guest_text(domain))?;
        mark.map_or(Ok(()), |mark| transaction.write(&run_node(address), mark))?;
        Ok(transaction.write(&owner_node(address), &domain.domid.to_string())?)
    })
}

/// Ends the attachment to a guest that exists: if this run is killed from now on, the device stays.
///
/// # Errors
/// An error of xenstored.
pub fn settle(store: &Store, address: PciAddress) -> Result<(), XenError> {
    store.plain().remove(&run_node(address))
}

/// Ports, memory and the interrupt of the device, and all of its configuration space if it is permissive.
fn permit(context: &Context<'_>, sysfs: &Path, domid: DomId, planned: &PlannedPci) -> Result<(), Error> {
    set_access(context, domid, &planned.host.ranges, Access::Allow)?;
    if planned.host.irq != 0 {
        context.xen.permit_irq(domid, planned.host.irq)?;
    }
    if planned.device.permissive {
        let file = sysfs.join("bus/pci/drivers").join(PCIBACK).join("permissive");
        write(&file, &planned.device.address.to_string())?;
    }
    Ok(())
}

/// Allows a domain the ranges of a device, or no longer.
///
/// # Errors
/// The call that Xen refused.
pub fn set_access(context: &Context<'_>, domid: DomId, ranges: &[PciRange], access: Access) -> Result<(), XenError> {
    for range in ranges {
        if range.is_ports {
            let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            context.xen.permit_ports(domid, number(range.start), number(range.length), access)?;
        } else {
            let (first, pages) = (range.start / PAGE, range.length.div_ceil(PAGE));
            context.xen.permit_memory(domid, first, pages, access)?;
        }
    }
    Ok(())
}

/// Shows the devices to a guest that has them: to QEMU's bus first, then in xenstore, where pciback takes them for a PV
/// guest and `xl` lists them. `running`: the guest runs already.
///
/// # Errors
/// QEMU's refusal; the words of pciback, or [`PciError::TimedOut`].
pub fn show(
    context: &Context<'_>,
    domid: DomId,
    name: &str,
    kind: Kind,
    devices: &[PlannedPci],
    running: bool,
) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    context.step(Stage::Devices, || {
        let mut listed = Vec::with_capacity(devices.len());
        if kind == Kind::Hvm {
            let mut monitor = open_monitor(context, domid, devices.first())?;
            for planned in devices {
                let place = add_to_qemu(&mut monitor, planned).map_err(|error| refused(planned, error))?;
                listed.push((planned.device, Some(place)));
            }
        } else {
            listed.extend(devices.iter().map(|planned| (planned.device, None)));
        }
        context.store.transaction(|transaction| pci_nodes::add(transaction, domid, name, &listed, running))?;
        wait_for_pciback(context, domid, devices)
    })
}

fn refused(planned: &PlannedPci, error: crate::error::monitor::MonitorError) -> Error {
    DeviceError::Monitor { device: format!("PCI device {}", planned.device.address), error }.into()
}

fn open_monitor<'a>(context: &Context<'a>, domid: DomId, first: Option<&PlannedPci>) -> Result<Monitor<'a>, Error> {
    let opened = Monitor::open(&socket("libxl", domid), context.cancel);
    let device = || first.map_or(String::new(), |planned| format!("PCI device {}", planned.device.address));
    let monitor = opened.map_err(|error| DeviceError::Monitor { device: device(), error })?;
    Ok(monitor.with_timeout(QEMU_TIMEOUT))
}

/// The name that QEMU has for a device, as libxl gives it.
#[must_use]
pub fn qemu_id(address: PciAddress) -> String {
    format!("pci-pt-{:02x}_{:02x}.{:x}", address.bus(), address.device(), address.function())
}

/// Adds a device, and returns its slot and function (`vdevfn`).
fn add_to_qemu(monitor: &mut Monitor<'_>, planned: &PlannedPci) -> Result<u32, crate::error::monitor::MonitorError> {
    let PciDevice { address, slot, permissive, .. } = planned.device;
    let mut arguments =
        json!({ "driver": "xen-pci-passthrough", "id": qemu_id(address), "hostaddr": address.to_string() });
    if let Some(slot) = slot {
        arguments["addr"] = format!("{slot:x}.0").into();
    }
    if permissive {
        arguments["permissive"] = true.into();
    }
    monitor.execute("device_add", &arguments, None)?;
    let buses = monitor.execute("query-pci", &json!({}), None)?;
    Ok(place_of(&buses, &qemu_id(address)).unwrap_or_else(|| u32::from(slot.unwrap_or(0)) << 3))
}

/// The slot and function of a device in the answer to `query-pci`.
#[must_use]
pub fn place_of(buses: &Value, id: &str) -> Option<u32> {
    let devices = buses.as_array()?.iter().filter_map(|bus| bus["devices"].as_array()).flatten();
    let device = devices.into_iter().find(|device| device["qdev_id"] == id)?;
    let number = |name: &str| device[name].as_u64().and_then(|number| u32::try_from(number).ok());
    Some(number("slot")? << 3 | number("function")?)
}

/// Waits until pciback has taken the devices over, or has said why it does not.
fn wait_for_pciback(context: &Context<'_>, domid: DomId, devices: &[PlannedPci]) -> Result<(), Error> {
    let end = Instant::now() + BACKEND_TIMEOUT;
    let label = || devices.iter().map(|planned| planned.device.address.to_string()).collect::<Vec<_>>().join(", ");
    loop {
        let plain = context.store.plain();
        if pci_nodes::is_ready(&plain, domid)? {
            return Ok(());
        }
        let errors = error_directory(DomId::DOM0, "pci", domid, 0);
        if let Some(says) = plain.read(&format!("{errors}/error"))? {
            let device = format!("PCI {}", label());
            return Err(DeviceError::Backend { device, says: Untrusted::from(says) }.into());
        }
        context.cancel.check()?;
        if Instant::now() >= end {
            let Some(address) = devices.first().map(|planned| planned.device.address) else { return Ok(()) };
            let what = "pciback has not taken it over";
            return Err(PciError::TimedOut { address, what, after: BACKEND_TIMEOUT }.into());
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_says_where_a_device_is() {
        let address: PciAddress = "0000:0a:1f.7".parse().expect("an address");
        assert_eq!(qemu_id(address), "pci-pt-0a_1f.7");
        let buses = json!([{ "bus": 0, "devices": [
            { "slot": 1, "function": 0, "qdev_id": "" },
            { "slot": 5, "function": 2, "qdev_id": "pci-pt-0a_1f.7" },
        ] }]);
        assert_eq!(place_of(&buses, &qemu_id(address)), Some(5 << 3 | 2));
        assert_eq!(place_of(&buses, "pci-pt-0b_1f.7"), None);
        assert_eq!(place_of(&json!({}), "x"), None);
    }
}
