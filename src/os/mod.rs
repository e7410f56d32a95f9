//! Linux, without Xen: processes, cgroups, descriptors, waiting with a deadline, and what others may have put in shared places.

pub mod lock_holders;
pub mod procfs;
pub mod shared_file;
mod untrusted;

pub use untrusted::{Untrusted, json, lines, one_line};
