//! The devices of a guest, one file a class.

pub mod pci;
