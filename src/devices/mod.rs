//! The devices of a guest, one file for each class.

pub mod pci;
