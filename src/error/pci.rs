//! Why a PCI device of the host cannot be given to a guest.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::os::Untrusted;
use crate::xen::{DomId, PciAddress};

/// Who has a PCI device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PciHolder {
    /// dom0, with this driver.
    Dom0(Option<Untrusted>),
    /// dom0's pciback, for a guest to come.
    Pciback,
    /// A guest.
    Guest(DomId),
}

impl fmt::Display for PciHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dom0(Some(driver)) => write!(f, "dom0's driver {driver:?} has"),
            Self::Dom0(None) => write!(f, "dom0 has"),
            Self::Pciback => write!(f, "pciback has"),
            Self::Guest(domid) => write!(f, "domain {domid} has"),
        }
    }
}

/// Why a PCI device of the host cannot be given to a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// Xen has no IOMMU that it could use.
    #[error("this host cannot give PCI devices to guests: Xen has no IOMMU, or it is off")]
    NoIommu,
    /// There is no such device.
    #[error("this host has no PCI device {address} (no {directory})")]
    NoDevice {
        /// The address.
        address: PciAddress,
        /// Where sysfs would have it.
        directory: PathBuf,
    },
    /// A device is named twice.
    #[error("the PCI device {0} is named twice")]
    Twice(PciAddress),
    /// dom0's kernel has no pciback.
    #[error("dom0's kernel has no pciback (/sys/bus/pci/drivers/pciback)")]
    NoPciback,
    /// The device is a bridge.
    #[error("{0} is a bridge, and a guest gets devices only")]
    Bridge(PciAddress),
    /// Another driver than pciback has the device, or none.
    #[error("the PCI device {address} is not assignable: {}",
        driver.as_ref().map_or("no driver has it".to_owned(), |name| format!("dom0's driver {name:?} has it")))]
    NotAssignable {
        /// The device.
        address: PciAddress,
        /// The driver that has it.
        driver: Option<Untrusted>,
    },
    /// A guest has the device.
    #[error("domain {domid} has the PCI device {address}")]
    InGuest {
        /// The device.
        address: PciAddress,
        /// The guest.
        domid: DomId,
    },
    /// The IOMMU cannot tell the device from another one, which someone else has.
    #[error("the IOMMU cannot tell the PCI device {address} from {other}, which {holder}: both reach the same memory")]
    SharedDma {
        /// The device.
        address: PciAddress,
        /// The other one.
        other: PciAddress,
        /// Who has it.
        holder: PciHolder,
    },
    /// Xen does not give the device out, and no guest is known to have it.
    #[error(
        "Xen does not give out the PCI device {0}: it does not know the device, or has given it to a domain without a note"
    )]
    NotFree(PciAddress),
    /// dom0 uses the device.
    #[error("dom0 uses the PCI device {address}: {what}")]
    UsedByDom0 {
        /// The device.
        address: PciAddress,
        /// For what.
        what: Untrusted,
    },
    /// A PV guest's memory reaches the addresses of the device.
    #[error("the memory of the PV guest reaches {memory:#x}, and the PCI device {address} is at {device:#x}")]
    Collision {
        /// The device.
        address: PciAddress,
        /// Its lowest address.
        device: u64,
        /// The end of the guest's memory.
        memory: u64,
    },
    /// An HVM guest without QEMU has no bus.
    #[error("an HVM guest sees a PCI device through its QEMU, and this one has none")]
    NoQemu,
    /// pciback has released a device without a note of the driver that had it.
    #[error("the PCI device {0} is not with pciback")]
    NotWithPciback(PciAddress),
    /// The guest has no such device.
    #[error("domain {domid} does not have the PCI device {address}")]
    NotIts {
        /// The guest.
        domid: DomId,
        /// The device.
        address: PciAddress,
    },
    /// The backend or the guest did not do its part.
    #[error("the PCI device {address}: {what} within {} seconds", after.as_secs())]
    TimedOut {
        /// The device.
        address: PciAddress,
        /// What did not happen.
        what: &'static str,
        /// The time limit.
        after: Duration,
    },
    /// The guest was created without an IOMMU.
    #[error("domain {0} was created without passthrough, and gets no PCI device")]
    NoPassthrough(DomId),
}
