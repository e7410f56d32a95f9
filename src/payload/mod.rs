//! Files that go into a guest: where they are found, and what is checked before Xen is used.

pub mod acpi_tables;
pub mod boot_files;
pub mod file;
pub mod firmware;
pub mod kernel;
pub mod read;
pub mod room;
pub mod search;
pub mod smbios;
