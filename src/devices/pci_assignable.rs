//! Takes PCI devices from dom0's drivers for guests, and gives them back. The notes in xenstore are libxl's, so that `xl
//! pci-assignable-add`, `-remove` and `-list` see the same devices.

use std::fs;
use std::io;
use std::path::Path;

use super::pci_group::{Dom0s, check_dma, neighbours, warn_of_functions};
use super::pci_host::{HostDevice, PCIBACK, write};
use super::pci_notes::{driver_node, notes_of, owners, remove_empty_notes};
use crate::context::Context;
use crate::error::Error;
use crate::error::pci::PciError;
use crate::os::Untrusted;
use crate::xen::{PciAddress, Store};

/// Whether a device that dom0 uses is taken all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It is refused.
    Unused,
    /// It is taken.
    Forced,
}

/// The folder of pciback in sysfs.
fn pciback(sysfs: &Path) -> Result<std::path::PathBuf, PciError> {
    let folder = sysfs.join("bus/pci/drivers").join(PCIBACK);
    if folder.is_dir() { Ok(folder) } else { Err(PciError::NoPciback) }
}

/// Makes a device assignable: takes it from its driver, which is noted, gives it to pciback, and puts it into Xen's
/// quarantine. `false`: it was with pciback already.
///
/// # Errors
/// [`PciError`] if there is no such device, it is a bridge, a guest has it or what shares its DMA, or dom0 uses it or a
/// driver of dom0 has what shares its DMA; an error of sysfs, Xen or xenstored. The device is then with its former driver
/// again, as far as that takes it.
pub fn assign(context: &Context<'_>, sysfs: &Path, address: PciAddress, take: Take) -> Result<bool, Error> {
    let device = HostDevice::read(sysfs, address)?;
    let folder = pciback(sysfs)?;
    if device.is_bridge {
        return Err(PciError::Bridge(address).into());
    }
    let owners = owners(context.xen, &context.store.plain())?;
    if let Some(domid) = owners.get(&address).copied() {
        return Err(PciError::InGuest { address, domid }.into());
    }
    // The quarantine would take the DMA of those as well.
    let neighbours = neighbours(context.xen, sysfs, address, &owners)?;
    let dom0s = if take == Take::Forced { Dom0s::All } else { Dom0s::WithoutDriver };
    check_dma(address, &neighbours, None, dom0s)?;
    warn_of_functions(address, &neighbours, None, &[]);
    if device.is_assignable() {
        context.xen.quarantine_device(address)?;
        return Ok(false);
    }
    if let Some(what) = device.use_in_dom0()?.filter(|_| take == Take::Unused) {
        return Err(PciError::UsedByDom0 { address, what }.into());
    }
    // Before the driver loses it: a run that is killed from now on leaves a note of it.
    if let Some(driver) = &device.driver {
        // The path that libxl reads and writes.
        let path = format!("/sys/bus/pci/drivers/{driver}");
        context.store.plain().write(&driver_node(address), &path)?;
    }
    let taken = device.unbind().and_then(|()| {
        let word = address.to_string();
        if !has_slot(&folder, &word)? {
            write(&folder.join("new_slot"), &word)?;
        }
        if HostDevice::read(sysfs, address)?.driver.is_none() {
            write(&folder.join("bind"), &word)?;
        }
        Ok(context.xen.quarantine_device(address)?)
    });
    match taken {
        Ok(()) => Ok(true),
        Err(error) => {
            if let Err(second) = release(context.store, context, sysfs, address) {
                log::error!("{address} stays between its drivers: {second}");
            }
            Err(error)
        }
    }
}

/// Whether pciback looks for a device at this address.
fn has_slot(folder: &Path, word: &str) -> Result<bool, Error> {
    let file = folder.join("slots");
    match fs::read_to_string(&file) {
        Ok(slots) => Ok(slots.lines().any(|line| line.trim() == word)),
        // Without pciback there is none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(format!("read {}", file.display()))(error)),
    }
}

/// Gives an assignable device back to dom0: what a guest has begun with it ends, it leaves the quarantine and pciback, and the driver that it had takes it.
/// `None`: no driver was noted.
///
/// # Errors
/// [`PciError::InGuest`], [`PciError::SharedDma`], [`PciError::NotWithPciback`]; an error of sysfs, Xen or xenstored.
pub fn give_back(context: &Context<'_>, sysfs: &Path, address: PciAddress) -> Result<Option<Untrusted>, Error> {
    let device = HostDevice::read(sysfs, address)?;
    let owners = owners(context.xen, &context.store.plain())?;
    if let Some(domid) = owners.get(&address).copied() {
        return Err(PciError::InGuest { address, domid }.into());
    }
    // A guest that has one of them would reach dom0's memory.
    check_dma(address, &neighbours(context.xen, sysfs, address, &owners)?, None, Dom0s::All)?;
    let noted = context.store.plain().read(&driver_node(address))?;
    if !device.is_assignable() && noted.is_none() {
        return Err(PciError::NotWithPciback(address).into());
    }
    release(context.store, context, sysfs, address)
}

fn release(
    store: &Store,
    context: &Context<'_>,
    sysfs: &Path,
    address: PciAddress,
) -> Result<Option<Untrusted>, Error> {
    let word = address.to_string();
    let device = HostDevice::read(sysfs, address)?;
    // The guest that had it may have ended without a word: from the next step on, its addresses are dom0's.
    if device.is_assignable() {
        device.silence()?;
    }
    context.xen.leave_quarantine(address)?;
    let folder = sysfs.join("bus/pci/drivers").join(PCIBACK);
    if device.is_assignable() {
        device.unbind()?;
    }
    if has_slot(&folder, &word)? {
        write(&folder.join("remove_slot"), &word)?;
    }
    let noted = store.plain().read(&driver_node(address))?;
    // The note names a driver by its path; only the name is used.
    let driver = noted.as_deref().and_then(|path| path.strip_prefix("/sys/bus/pci/drivers/"));
    let driver = driver.filter(|name| !name.is_empty() && !name.contains('/') && *name != "..").map(str::to_owned);
    if let Some(name) = &driver
        && HostDevice::read(sysfs, address)?.driver.is_none()
    {
        write(&sysfs.join("bus/pci/drivers").join(name).join("bind"), &word)?;
    }
    store.transaction(|transaction| {
        transaction.remove(&notes_of(address))?;
        remove_empty_notes(transaction, address)
    })?;
    Ok(driver.map(Untrusted::from))
}
