//! Linux, without Xen: processes, cgroups, descriptors, waiting with a deadline, and what others may have put in shared places.

#![expect(unsafe_code, reason = "some system calls have no safe wrapper")]

pub mod cgroup;
pub mod fd;
pub mod foreign_mappings;
pub mod launch;
pub mod lock_holders;
pub mod meminfo;
pub mod parent_death;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod restrict;
pub mod sandbox;
pub mod sealed;
pub mod shared_file;
pub mod socket;
pub mod system_call_filter;
mod untrusted;
pub mod wait;

pub use untrusted::{Untrusted, is_hidden, json, lines, one_line};
