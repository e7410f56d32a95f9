//! Saves guests to files, restores and migrates them, in libxl's format.

pub mod checker;
pub mod configuration;
pub mod helper;
pub mod incoming;
mod libxc_pages;
pub mod libxc_records;
mod libxc_shapes;
pub mod libxc_stream;
mod outgoing;
pub mod outline;
mod partial_file;
pub mod passage;
pub mod restore;
pub mod save;
pub mod saved;
mod saved_devices;
mod saved_fields;
pub mod saved_file;
pub mod saved_qemu;
pub mod send;
pub mod stream;
#[cfg(test)]
#[path = "../../tests/data/streams.rs"]
mod streams;
pub mod wire;
