//! The devices of a guest, one file for each class.

pub mod attach;
pub mod block;
pub mod bridge;
pub mod channel;
pub mod details;
pub mod disk;
pub mod external;
pub mod follow;
pub mod framebuffer;
pub mod hotplug;
pub mod image;
pub mod nic;
pub mod pci;
pub mod pci_assignable;
pub mod pci_give;
pub mod pci_group;
pub mod pci_host;
pub mod pci_nodes;
pub mod pci_notes;
pub mod pci_take;
pub mod plan;
pub mod remove;
mod script;
pub mod share;
pub mod sharing;
pub mod xenbus;
