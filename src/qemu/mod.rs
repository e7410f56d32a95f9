//! QEMU: the device model of HVM guests, its confinement, its monitor and its log.

pub mod command_line;
pub mod config;
pub mod confinement;
pub mod device_model;
pub mod devices;
mod emulated;
pub mod helpers;
pub mod log;
pub mod monitor;
pub mod needs;
pub mod qmp;
