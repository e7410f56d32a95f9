//! Linux, without Xen: processes, cgroups, descriptors, waiting with a deadline, and what others may have put in shared places.

#![expect(unsafe_code, reason = "system calls for which no crate has a safe wrapper")]

pub mod procfs;
pub mod restrict;
pub mod system_call_filter;
