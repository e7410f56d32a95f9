//! Builds Xen domains through Xen's own libraries.

#![forbid(unsafe_code)]

pub use dombuild_memory as memory;
pub use dombuild_os as os;
pub use dombuild_xen as xen;

pub mod builder;
pub mod cancel;
pub mod cli;
pub mod config;
pub mod context;
pub mod devices;
pub mod domain;
pub mod error;
pub mod lifecycle;
pub mod logging;
pub mod observer;
pub mod payload;
pub mod picture;
pub mod qemu;
pub mod runs;
pub mod stage;
