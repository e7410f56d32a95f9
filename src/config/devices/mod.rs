//! The devices of a guest, typed and checked.

pub mod channel;
pub mod disk;
mod disk_spec;
pub mod emulated;
pub mod error;
pub mod framebuffer;
pub mod machine;
pub mod nic;
mod nic_spec;
mod nic_values;
pub mod pci;
pub mod pvcalls;
pub mod set;
pub mod share;
pub mod sound;
mod sound_spec;
mod text;
pub mod vdispl;
pub mod virtual_device;
pub mod vtpm;
