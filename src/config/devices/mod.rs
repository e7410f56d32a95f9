//! The devices of a guest, typed and checked.

pub mod disk;
pub mod nic;
pub mod virtual_device;
