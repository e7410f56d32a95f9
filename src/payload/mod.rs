//! The boot files of a guest: the search for them, and the checks that need no Xen.

pub mod acpi_tables;
pub mod boot_files;
pub mod error;
pub mod file;
pub mod firmware;
pub mod kernel;
pub mod read;
pub mod room;
pub mod search;
pub mod smbios;
