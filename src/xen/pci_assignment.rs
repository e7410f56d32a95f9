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

impl PciAddress {
    /// Segment, bus, device and function in one number, as `XEN_DOMCTL_assign_device` takes them.
    fn machine_sbdf(self) -> u32 {
        let devfn = self.device() << 3 | self.function();
        u32::from(self.segment()) << 16 | u32::from(self.bus()) << 8 | u32::from(devfn)
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
}
