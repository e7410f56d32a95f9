//! Saves guests to files, restores and migrates them, in libxl's format.

pub mod configuration;
pub mod helper;
pub mod incoming;
pub mod libxc_stream;
mod outgoing;
mod partial_file;
pub mod records;
pub mod restore;
pub mod save;
mod saved_devices;
mod saved_fields;
pub mod saved_qemu;
pub mod send;
pub mod stream;
pub mod wire;
