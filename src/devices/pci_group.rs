//! What a PCI device of the host cannot be separated from: the other functions of the same device, which may share its
//! reset, and the devices that the IOMMU cannot tell from it, which share its DMA.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::pci_host::{HostDevice, PCIBACK, addresses};
use crate::error::Error;
use crate::error::pci::{PciError, PciHolder};
use crate::os::Untrusted;
use crate::xen::{DomId, Interface, PciAddress};

/// A device that another one shares something with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: PciAddress,
    /// It is another function of the same device.
    pub is_function: bool,
    /// The IOMMU cannot tell the two apart.
    pub shares_dma: bool,
    /// Who has it.
    pub holder: PciHolder,
}

/// The neighbours of a device, without bridges, by their addresses. `owners`: the guests that have devices.
///
/// By the functions in sysfs, and by Xen's groups of the devices of dom0 and of each guest; Xen tells nothing of devices in
/// quarantine, whose DMA reaches nothing.
///
/// # Errors
/// An error of sysfs or of Xen.
pub fn neighbours(
    xen: &Interface,
    sysfs: &Path,
    device: PciAddress,
    owners: &BTreeMap<PciAddress, DomId>,
) -> Result<Vec<Neighbour>, Error> {
    let place = |address: PciAddress| (address.segment(), address.bus(), address.device());
    let is_function = |other: PciAddress| other != device && place(other) == place(device);
    // A guest may have a device without a note.
    let mut group: BTreeMap<PciAddress, DomId> = BTreeMap::new();
    for info in xen.domains()? {
        group.extend(xen.device_group(info.domid, device)?.into_iter().map(|other| (other, info.domid)));
    }
    let functions = addresses(sysfs)?.into_iter().filter(|other| is_function(*other));
    let all: BTreeSet<PciAddress> = functions.chain(group.keys().copied()).collect();
    let mut found = Vec::new();
    for address in all {
        // It can be unplugged meanwhile.
        let Some(host) = HostDevice::find(sysfs, address)?.filter(|host| !host.is_bridge) else { continue };
        let guest = group.get(&address).or_else(|| owners.get(&address)).copied().filter(|domid| *domid != DomId::DOM0);
        let holder = match (guest, host.driver) {
            (Some(domid), _) => PciHolder::Guest(domid),
            (None, Some(driver)) if driver == PCIBACK => PciHolder::Pciback,
            (None, driver) => PciHolder::Dom0(driver.map(Untrusted::from)),
        };
        let (is_function, shares_dma) = (is_function(address), group.contains_key(&address));
        found.push(Neighbour { address, is_function, shares_dma, holder });
    }
    Ok(found)
}

/// Warns of other functions of a device that dom0 or a guest other than `own` has, except those of `with`, which go to the
/// same guest.
pub fn warn_of_functions(device: PciAddress, neighbours: &[Neighbour], own: Option<DomId>, with: &[PciAddress]) {
    for Neighbour { address, holder, .. } in neighbours.iter().filter(|other| other.is_function && !other.shares_dma) {
        let is_own = matches!(holder, PciHolder::Guest(domid) if Some(*domid) == own);
        if *holder != PciHolder::Pciback && !is_own && !with.contains(address) {
            log::warn!("{holder} {address}, another function of {device}");
        }
    }
}

/// Which devices of dom0 may share the DMA of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dom0s<'a> {
    /// Those alone that go to the same guest.
    Only(&'a [PciAddress]),
    /// Those without a driver.
    WithoutDriver,
    /// All.
    All,
}

/// Checks that the DMA of a device is its own: what shares it must be no guest's other than `own`, and dom0's as far as
/// `dom0s` allows it.
///
/// # Errors
/// [`PciError::SharedDma`].
pub fn check_dma(
    device: PciAddress,
    neighbours: &[Neighbour],
    own: Option<DomId>,
    dom0s: Dom0s<'_>,
) -> Result<(), PciError> {
    let stands_against = |other: &&Neighbour| match other.holder {
        PciHolder::Guest(domid) => Some(domid) != own,
        PciHolder::Dom0(ref driver) => match dom0s {
            Dom0s::Only(with) => !with.contains(&other.address),
            Dom0s::WithoutDriver => driver.is_some(),
            Dom0s::All => false,
        },
        PciHolder::Pciback => false,
    };
    match neighbours.iter().filter(|other| other.shares_dma).find(stands_against) {
        Some(other) => {
            let (other, holder) = (other.address, other.holder.clone());
            Err(PciError::SharedDma { address: device, other, holder })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dma_is_shared_within_one_guest_only() {
        let at = |text: &str| text.parse::<PciAddress>().expect("an address");
        let [one, two] = [at("03:00.0"), at("03:01.0")];
        let guest = DomId::new(7);
        let other = |shares_dma, holder| Neighbour { address: two, is_function: false, shares_dma, holder };
        let check = |neighbour: Neighbour, own, dom0s: Dom0s<'_>| check_dma(one, &[neighbour], own, dom0s).is_ok();
        let with = [two];
        let none = Dom0s::Only(&[]);
        let of_guest = || other(true, PciHolder::Guest(guest.expect("a domid")));
        assert!(check(of_guest(), guest, none));
        assert!(!check(of_guest(), None, Dom0s::All) && !check(of_guest(), DomId::new(8), Dom0s::Only(&with)));
        let of_dom0 = |driver: Option<&str>| other(true, PciHolder::Dom0(driver.map(Untrusted::from)));
        assert!(!check(of_dom0(None), None, none) && check(of_dom0(None), None, Dom0s::WithoutDriver));
        assert!(!check(of_dom0(Some("nvme")), None, Dom0s::WithoutDriver));
        assert!(
            check(of_dom0(Some("nvme")), None, Dom0s::Only(&with)) && check(of_dom0(Some("nvme")), None, Dom0s::All)
        );
        assert!(check(other(true, PciHolder::Pciback), None, none));
        assert!(check(other(false, PciHolder::Guest(DomId::DOM0)), None, none));
    }
}
