//! Access of domains to the host's I/O ports, interrupts and I/O memory.

use std::os::raw::{c_int, c_ulong};

use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface};

/// Whether a domain gets access, or loses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It gets it.
    Allow,
    /// It loses it.
    Revoke,
}

impl Interface {
    /// Lets a domain use `count` I/O ports of the host from `first` on, or no longer (`XEN_DOMCTL_ioport_permission`).
    ///
    /// # Errors
    /// `EPERM` for ports that dom0 itself does not have; `EINVAL` beyond port 65535.
    pub fn permit_ports(&self, domid: DomId, first: u32, count: u32, access: Access) -> Result<(), XenError> {
        let allow = u32::from(access == Access::Allow);
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_ioport_permission(self.as_raw(), domid.get(), first, count, allow) };
        let arguments = format_args!("domid {domid}, {count} ports from {first:#x}");
        error::minus_one("xc_domain_ioport_permission", arguments, returned).map(drop)
    }

    /// Maps an interrupt of the host to a domain (`PHYSDEVOP_map_pirq`), and lets the domain use it
    /// (`XEN_DOMCTL_irq_permission`).
    ///
    /// # Errors
    /// `EINVAL` for an interrupt that the host does not have; `EPERM` for one that dom0 itself does not have.
    pub fn permit_irq(&self, domid: DomId, irq: u32) -> Result<(), XenError> {
        let index = c_int::try_from(irq).unwrap_or(c_int::MAX);
        // libxl asks for the domain's pirq of the same number.
        let mut pirq = index;
        // SAFETY: `pirq` is a live int, which the call reads and writes.
        let returned = unsafe { sys::xc_physdev_map_pirq(self.as_raw(), domid.get(), index, &raw mut pirq) };
        error::minus_one("xc_physdev_map_pirq", format_args!("domid {domid}, interrupt {irq}"), returned)?;
        let number = u32::try_from(pirq).unwrap_or(irq);
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_irq_permission(self.as_raw(), domid.get(), number, true) };
        error::minus_one("xc_domain_irq_permission", format_args!("domid {domid}, interrupt {irq}"), returned).map(drop)
    }

    /// Takes an interrupt of the host from a domain, which [`Self::permit_irq`] gave it.
    ///
    /// # Errors
    /// `EINVAL` if the domain does not have it.
    pub fn withdraw_irq(&self, domid: DomId, irq: u32) -> Result<(), XenError> {
        let pirq = c_int::try_from(irq).unwrap_or(c_int::MAX);
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_physdev_unmap_pirq(self.as_raw(), domid.get(), pirq) };
        error::minus_one("xc_physdev_unmap_pirq", format_args!("domid {domid}, interrupt {irq}"), returned)?;
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_irq_permission(self.as_raw(), domid.get(), irq, false) };
        error::minus_one("xc_domain_irq_permission", format_args!("domid {domid}, interrupt {irq}"), returned).map(drop)
    }

    /// Lets a domain use `count` pages of the host's I/O memory from frame `start` on, or no longer
    /// (`XEN_DOMCTL_iomem_permission`).
    ///
    /// # Errors
    /// `EPERM` for frames that dom0 itself does not have; `EINVAL` for no page.
    pub fn permit_memory(&self, domid: DomId, start: u64, count: u64, access: Access) -> Result<(), XenError> {
        let allow = u8::from(access == Access::Allow);
        let (first, pages): (c_ulong, c_ulong) = (start, count);
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_iomem_permission(self.as_raw(), domid.get(), first, pages, allow) };
        let arguments = format_args!("domid {domid}, {count:#x} pages from frame {start:#x}");
        error::minus_one("xc_domain_iomem_permission", arguments, returned).map(drop)
    }

    /// Maps `count` pages of the host's I/O memory from frame `start` on to `gfn` of an HVM or PVH guest
    /// (`XEN_DOMCTL_memory_mapping`). The guest must have the permission.
    ///
    /// # Errors
    /// `EPERM` without the permission; `ENOMEM` if the paging pool is too small.
    pub fn map_memory(&self, domid: DomId, gfn: u64, start: u64, count: u64) -> Result<(), XenError> {
        /// `DPCI_ADD_MAPPING` (xen/include/public/domctl.h).
        const ADD: u32 = 1;
        let (to, first, pages): (c_ulong, c_ulong, c_ulong) = (gfn, start, count);
        // SAFETY: the handle is valid, and the call takes no other pointer.
        let returned = unsafe { sys::xc_domain_memory_mapping(self.as_raw(), domid.get(), to, first, pages, ADD) };
        let arguments = format_args!("domid {domid}, {count:#x} pages from frame {start:#x} to gfn {gfn:#x}");
        error::minus_one("xc_domain_memory_mapping", arguments, returned).map(drop)
    }
}
