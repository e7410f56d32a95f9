//! Linux, without Xen: processes, cgroups, descriptors, waiting with a deadline, and what others may have put in shared places.

pub mod meminfo;
pub mod procfs;
