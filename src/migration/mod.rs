//! Saves guests to files and restores them, in libxl's format.

pub mod configuration;
pub mod helper;
pub mod libxc_stream;
mod partial_file;
pub mod records;
pub mod restore;
pub mod save;
mod saved_devices;
mod saved_fields;
pub mod saved_qemu;
pub mod stream;
