//! Safe wrappers of Xen's libxenctrl and libxenguest, and a client of xenstore.
//!
//! ```no_run
//! use dombuild_xen::Interface;
//!
//! # fn main() -> Result<(), dombuild_xen::XenError> {
//! let xen = Interface::open()?;
//! let host = xen.physinfo()?;
//! println!("{} of {} free", host.free_kib, host.total_kib);
//! # Ok(())
//! # }
//! ```
//!
//! Each handle of a C library is one type, which closes it when dropped:
//!
//! - [`Interface`]: libxenctrl. Domains, vCPUs, memory, HVM parameters, CPUID, scheduling, NUMA, PCI devices and the host.
//! - [`DomainImage`]: libxenguest. Loads a kernel and its modules into a domain.
//! - [`Store`] and [`Transaction`]: xenstore, with a deadline for each request.
//! - [`ForeignPages`]: mapped pages of a guest.
//!
//! An error is a [`XenError`]: the C call, its arguments and errno.
//!
//! The differences between releases of Xen are handled here, by the cfgs `xen_4_N_or_later`. The public interface is the
//! same for all of them. The crate runs on the release that it was compiled for.

#![expect(unsafe_code, reason = "this crate calls C libraries")]

mod altp2m;
mod cpuid;
mod cpuid_rules;
mod create_errors;
mod dom_image;
mod domain;
mod domid;
mod error;
mod foreign_memory;
mod gzip_mask;
mod host;
mod host_access;
mod host_memory_map;
mod hvm;
mod hvm_info;
mod hypfs;
mod interface;
#[cfg(feature = "libxenguest-witness")]
pub mod libxenguest;
mod logger;
mod migration;
mod modules;
mod numa;
mod pci;
mod pci_assignment;
mod scheduling;
mod store;
mod time;

pub use altp2m::Altp2m;
pub use cpuid::{CpuidBase, CpuidLeaf, FeaturesetOf, PolicyOf};
pub use cpuid_rules::{BitRule, BitRules, CpuidRules, LeafRules, MsrRules, cpu_features};
pub use create_errors::GrantLimits;
pub use dom_image::{
    Boot, DirectStart, DomainImage, ImageContents, ImageLimits, ImageParts, PVH_PADDR_OFFSET_NEEDS_BASE,
};
pub use domain::{CreateDomain, DomainInfo, DomainRef, ShutdownReason};
pub use domid::{DomId, EventPort};
pub use error::XenError;
pub use foreign_memory::ForeignPages;
pub use host::{PhysInfo, VersionInfo};
pub use host_access::Access;
pub use hvm::{HvmParam, enlightenment};
pub use hvm_info::HvmInfo;
pub use hypfs::XenParameter;
pub use interface::{Interface, PodPages, PopulateMode};
pub use migration::{NextRound, RingPorts, Round, SaveCallbacks};
pub use modules::{HvmModules, Placed, PlacedModules};
pub use numa::{FromNode, NumaNode};
pub use pci::PciAddress;
pub use scheduling::{Affinity, Scheduler};
pub use store::{Permissions, STORE_TIMEOUT, Store, Transaction};
