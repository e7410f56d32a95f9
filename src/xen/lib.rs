//! Safe, owning wrappers of Xen's C libraries: one file for each C handle.
//!
//! This module and the crate `xen-sys` are the only places with `unsafe`. Differences between Xen releases end here:
//! nothing above asks which release it runs on.

#![expect(unsafe_code, reason = "this module is the boundary to the C libraries")]

pub mod advice;
mod cpuid;
mod create_errors;
mod dom_image;
mod domain;
mod domid;
mod error;
mod foreign_memory;
mod gzip_mask;
mod host;
mod hvm;
mod hvm_info;
mod hypfs;
mod interface;
#[cfg(feature = "libxenguest-witness")]
pub mod libxenguest;
mod logger;
mod modules;
mod pci;
mod scheduling;
mod store;
mod time;

pub use cpuid::{CpuidBase, CpuidLeaf, FeaturesetOf};
pub use create_errors::GrantLimits;
pub use dom_image::{
    Boot, DirectStart, DomainImage, ImageContents, ImageLimits, ImageParts, PVH_PADDR_OFFSET_NEEDS_BASE,
};
pub use domain::{CreateDomain, DomainInfo, DomainRef, ShutdownReason};
pub use domid::{DomId, EventPort};
pub use error::XenError;
pub use foreign_memory::ForeignPages;
pub use host::{PhysInfo, VersionInfo};
pub use hvm::{HvmParam, enlightenment};
pub use hvm_info::HvmInfo;
pub use hypfs::XenParameter;
pub use interface::{Interface, PodPages};
pub use modules::{HvmModules, Placed, PlacedModules};
pub use pci::PciAddress;
pub use scheduling::Scheduler;
pub use store::{Permissions, STORE_TIMEOUT, Store, Transaction};
