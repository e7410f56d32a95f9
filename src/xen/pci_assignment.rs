//! Which domain has a PCI device of the host: Xen's IOMMU gives the device that domain's memory alone.

use nix::errno::Errno;
use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface, PciAddress};

/// `DOMID_IO`: Xen's own domain for devices without a domain; their DMA reaches no memory of any domain
/// (xen/include/public/xen.h).
const DOMID_IO: u32 = 0x7ff1;
/// `DOMID_INVALID`: Xen checks the device and no domain.
const DOMID_INVALID: u32 = 0x7ff4;
/// How many devices of one group are asked for at first, and how often the number is doubled.
const GROUP: (usize, u32) = (32, 4);

impl PciAddress {
    /// Segment, bus, device and function in one number, as `XEN_DOMCTL_assign_device` takes them.
    fn machine_sbdf(self) -> u32 {
        let devfn = self.device() << 3 | self.function();
        u32::from(self.segment()) << 16 | u32::from(self.bus()) << 8 | u32::from(devfn)
    }

    /// A device of the same segment, as `XEN_DOMCTL_get_device_group` returns it: the bus from bit 16 on, device and
    /// function from bit 8 on (`iommu_get_device_group`, xen/drivers/passthrough/pci.c, Xen 4.17).
    fn of_group(self, raw: u32) -> Option<Self> {
        let [_, bus, devfn, rest] = raw.to_be_bytes();
        (rest == 0).then(|| Self::new(self.segment(), bus, devfn))
    }
}

impl Interface {
    /// Gives a domain that was created for passthrough a device (`XEN_DOMCTL_assign_device`): its DMA reaches that domain's
    /// memory. `relaxed`: memory that the host reserves for the device may be RAM of the domain.
    ///
    /// # Errors
    /// `EBUSY` if another guest has it; `ENODEV` without an IOMMU or such a device; `EXDEV` if the domain is populated on
    /// demand, shares or logs pages, or was created without passthrough (xen/drivers/passthrough/iommu.c and pci.c, Xen 4.17).
    pub fn assign_device(&self, domid: DomId, address: PciAddress, relaxed: bool) -> Result<(), XenError> {
        self.assign(domid.get(), address, if relaxed { sys::XEN_DOMCTL_DEV_RDM_RELAXED } else { 0 })
    }

    /// Takes a device from dom0 into Xen's quarantine, where its DMA reaches no domain.
    ///
    /// # Errors
    /// As [`Self::assign_device`].
    pub fn quarantine_device(&self, address: PciAddress) -> Result<(), XenError> {
        // As libxl: in quarantine nothing is mapped at the reserved regions.
        self.assign(DOMID_IO, address, sys::XEN_DOMCTL_DEV_RDM_RELAXED)
    }

    fn assign(&self, domid: u32, address: PciAddress, flags: u32) -> Result<(), XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_assign_device(self.as_raw(), domid, address.machine_sbdf(), flags) };
        error::minus_one("xc_assign_device", format_args!("domid {domid}, {address}"), returned).map(drop)
    }

    /// Takes a device from a domain (`XEN_DOMCTL_deassign_device`); Xen puts it into quarantine. `false`: the domain does not
    /// have it.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn deassign_device(&self, domid: DomId, address: PciAddress) -> Result<bool, XenError> {
        self.deassign(domid.get(), address)
    }

    /// Gives a device in quarantine back to dom0. `false`: it was not there.
    ///
    /// # Errors
    /// As [`Self::deassign_device`].
    pub fn leave_quarantine(&self, address: PciAddress) -> Result<bool, XenError> {
        self.deassign(DOMID_IO, address)
    }

    fn deassign(&self, domid: u32, address: PciAddress) -> Result<bool, XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_deassign_device(self.as_raw(), domid, address.machine_sbdf()) };
        match error::minus_one("xc_deassign_device", format_args!("domid {domid}, {address}"), returned) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.errno, Some(Errno::ENODEV | Errno::ESRCH)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a domain could get the device now (`XEN_DOMCTL_test_assign_device`): Xen knows it, and dom0 or quarantine
    /// has it.
    ///
    /// # Errors
    /// If Xen refuses the question.
    pub fn is_device_free(&self, address: PciAddress) -> Result<bool, XenError> {
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_test_assign_device(self.as_raw(), DOMID_INVALID, address.machine_sbdf()) };
        match error::minus_one("xc_test_assign_device", format_args!("{address}"), returned) {
            Ok(_) => Ok(true),
            Err(error) if error.errno == Some(Errno::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The devices of a domain that the IOMMU cannot tell from this one, without this one
    /// (`XEN_DOMCTL_get_device_group`): it knows all of them by one number, as it does with the devices behind a bridge
    /// from PCI Express to PCI. Whoever has one of them has the DMA of all. Empty if the domain is gone, or there is no
    /// IOMMU.
    ///
    /// # Errors
    /// `EPERM` if Xen's policy forbids it; what the IOMMU's driver reports.
    pub fn device_group(&self, domid: DomId, address: PciAddress) -> Result<Vec<PciAddress>, XenError> {
        let (mut room, attempts) = GROUP;
        let mut found = Vec::new();
        for _ in 0..attempts {
            found = vec![0_u32; room];
            let mut count = 0_u32;
            let most = u32::try_from(room).unwrap_or(u32::MAX);
            // SAFETY: the handle is valid, `found` has room for `most` numbers, and `count` is a live u32.
            let returned = unsafe {
                let (sbdf, list) = (address.machine_sbdf(), found.as_mut_ptr());
                sys::xc_get_device_group(self.as_raw(), domid.get(), sbdf, most, &raw mut count, list)
            };
            match error::minus_one("xc_get_device_group", format_args!("domid {domid}, {address}"), returned) {
                Ok(_) => {}
                Err(error) if matches!(error.errno, Some(Errno::ESRCH | Errno::ENOSYS | Errno::EOPNOTSUPP)) => {
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            }
            found.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            if found.len() < room {
                break;
            }
            // Xen leaves out what it has no room for.
            room *= 2;
        }
        let addresses = found.iter().map(|raw| {
            address.of_group(*raw).ok_or_else(|| {
                let arguments = format!("domid {domid}, {address}");
                XenError::unexpected("xc_get_device_group", arguments, format!("returned {raw:#x}, which is no device"))
            })
        });
        addresses.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_a_group_is_in_the_same_segment() {
        let address: PciAddress = "0001:02:03.4".parse().expect("an address");
        assert_eq!(address.machine_sbdf(), 0x0001_021c);
        assert_eq!(address.of_group(0x00af_ef00).map(|other| other.to_string()).as_deref(), Some("0001:af:1d.7"));
        assert_eq!(address.of_group(1), None);
    }
}
