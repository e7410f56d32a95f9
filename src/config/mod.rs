//! The typed and checked configuration of a guest. No file is read here, and Xen is not called.

pub mod autoballoon;
pub mod bios_string;
pub mod cmdline;
pub mod cpu_pool;
pub mod cpuid_policy;
pub mod devices;
pub mod error;
pub mod guest;
pub mod host_access;
pub mod name;
pub mod on_end;
pub mod placement;
pub mod platform;
#[cfg(test)]
pub(crate) mod tests;
