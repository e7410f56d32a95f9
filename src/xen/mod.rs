//! Safe, owning wrappers of Xen's C libraries: one file for each C handle.
//!
//! This module and the crate `xen-sys` are the only places with `unsafe`. Differences between Xen releases end here:
//! nothing above asks which release it runs on.

#![expect(unsafe_code, reason = "this module is the boundary to the C libraries")]

pub mod advice;
mod cpuid;
mod domain;
mod error;
pub mod fd;
mod foreign;
mod host;
mod hvm;
mod hvm_info;
mod hypfs;
mod image;
mod interface;
mod leash;
#[cfg(test)]
pub(crate) mod libxenguest;
mod logger;
mod modules;
mod pci;
pub mod process;
mod refusal;
pub mod sandbox;
mod scheduling;
mod sealed;
mod store;
mod time;
mod veil;

use std::fmt;

pub use cpuid::{CpuidBase, CpuidLeaf, FeaturesetOf};
pub use domain::{CreateDomain, DomainInfo, DomainRef, ShutdownReason};
pub use error::XenError;
pub use foreign::ForeignPages;
pub use host::{PhysInfo, VersionInfo};
pub use hvm::{HvmParam, enlightenment};
pub use hvm_info::HvmInfo;
pub use hypfs::XenParameter;
pub use image::{Boot, Contents, DirectStart, DomainImage, ImageLimits, ImageParts, PVH_PADDR_OFFSET_NEEDS_BASE};
pub use interface::{Interface, PodPages};
pub use leash::Leash;
pub use modules::{HvmModules, Placed, PlacedModules};
pub use pci::PciAddress;
pub use refusal::GrantLimits;
pub use scheduling::Scheduler;
pub use sealed::{MemoryFile, Sealed};
pub use store::{Permissions, STORE_TIMEOUT, Store, Transaction};

use serde::Serialize;

/// A domain's number. Valid guests have 1 to 32751 (`DOMID_FIRST_RESERVED` is 0x7FF0, xen/include/public/xen.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DomId(u16);

impl DomId {
    /// dom0.
    pub const DOM0: Self = Self(0);
    const FIRST_RESERVED: u16 = 0x7ff0;

    /// A domid, if `number` can be one (0 to 32751).
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| *number < Self::FIRST_RESERVED).map(Self)
    }

    /// The number, as `xc_*` calls take it.
    #[must_use]
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An event channel's port number in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EventPort(pub u32);

impl fmt::Display for EventPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
