//! Linux interfaces for a program that starts and supervises less trusted processes. It does not depend on Xen.
//!
//! ```
//! use dombuild_os::pidfd::Process;
//! use std::process::Command;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut child = Command::new("sleep").arg("60").spawn()?;
//! // A pidfd refers to this process only: the kernel can reuse the number, but not the descriptor.
//! let process = Process::open(i32::try_from(child.id())?)?.ok_or("the process has ended")?;
//! assert!(!process.has_ended());
//!
//! process.signal(nix::sys::signal::Signal::SIGTERM)?;
//! child.wait()?;
//! assert!(process.has_ended());
//! # Ok(())
//! # }
//! ```
//!
//! Processes:
//!
//! - [`mod@entry`]: the start and end of a program, at less cost than the standard library's.
//! - [`launch`]: starts a program inside a cgroup.
//! - [`pidfd`]: process handles.
//! - [`cgroup`]: a cgroup of version 2 for a group of processes.
//! - [`parent_death`]: kills a child when its parent dies.
//! - [`process`]: closes inherited descriptors; detects set-uid.
//! - [`procfs`]: start time, user, group and command line of a process.
//! - [`lock_holders`]: the processes that hold a lock on a file.
//! - [`foreign_mappings`]: the processes that map pages of Xen domains.
//!
//! Isolation:
//!
//! - [`sandbox`]: a child that parses untrusted input.
//! - [`sandboxed_child`]: starts such a child and waits for its answer.
//! - [`child_cgroup`]: the memory that it may take.
//! - [`confined_program`]: a program of the host that parses untrusted input.
//! - [`landlock`]: the files that a process may reach.
//! - [`restrict`]: namespaces and resource limits of a device model.
//! - [`system_call_filter`]: the system calls that a device model may make.
//!
//! Files and descriptors:
//!
//! - [`sealed`]: mapped files that cannot change.
//! - [`shared_file`]: opens files in directories that other users can write to.
//! - [`fd`]: takes ownership of inherited descriptors.
//! - [`socket`]: connects to Unix sockets without blocking.
//! - [`wait`]: waits for a descriptor with a deadline and cancellation.
//!
//! Devices:
//!
//! - [`loop_device`]: block devices of files.
//! - [`network_interface`]: network interfaces, bridges and tap devices.
//!
//! Other:
//!
//! - [`meminfo`]: memory of the machine.
//! - [`Untrusted`]: text from other processes, shown escaped.

#![expect(unsafe_code, reason = "some system calls have no safe wrapper")]

pub mod cgroup;
pub mod child_cgroup;
pub mod confined_program;
pub mod entry;
pub mod fd;
pub mod foreign_mappings;
pub mod landlock;
pub mod launch;
pub mod lock_holders;
pub mod loop_device;
pub mod meminfo;
pub mod network_interface;
pub mod parent_death;
pub mod pauses;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod restrict;
pub mod sandbox;
pub mod sandboxed_child;
pub mod sealed;
pub mod shared_file;
pub mod socket;
pub mod system_call_filter;
mod untrusted;
pub mod wait;

pub use untrusted::{Untrusted, is_hidden, json, lines, one_line};
