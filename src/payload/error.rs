//! Why a file cannot go into a guest.

use std::io;
use std::path::PathBuf;

use crate::memory::Kib;

/// Why a file cannot go into a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is missing, or is not what it should be.
    #[error("{what} {path}: {reason}")]
    Unusable {
        /// What it is: `kernel`, `firmware`, `ramdisk`, `device model`, `SMBIOS file` …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// None of the usual places has the file.
    #[error("{what} {path}: no {name} is installed; install Debian's package {package}")]
    NotInstalled {
        /// What it is: `hvmloader`, `firmware`, `device model` …
        what: &'static str,
        /// The likeliest place.
        path: PathBuf,
        /// The name of the software.
        name: &'static str,
        /// The Debian package that has it.
        package: String,
    },
    /// dom0 itself lacks the memory to prepare the file.
    #[error(
        "{what} {path}: not enough memory in dom0: at least {} KiB are required; {} KiB are available, of which {} KiB \
         are left to other programs; give dom0 more memory, or use a smaller {what}", required.0, available.0, reserve.0
    )]
    NotEnoughDom0Memory {
        /// What it is: `kernel` or `ramdisk`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The memory that is needed, at least.
        required: Kib,
        /// The memory that dom0 has available (`MemAvailable`).
        available: Kib,
        /// The part of it that is left to other programs.
        reserve: Kib,
    },
    /// The host has no SMBIOS table at this path.
    #[error("this host has no SMBIOS table to pass on (no {0})")]
    NoHostSmbios(PathBuf),
    /// The program that unpacks kernels cannot be started.
    #[error("no child can be started to unpack a kernel: {0}")]
    Unpacker(#[source] io::Error),
    /// The host cannot confine the program that unpacks kernels.
    #[error("this host cannot confine a child that looks into a guest's kernel: {0}")]
    Unconfined(String),
    /// The kernel of dom0 does not tell how much memory there is.
    #[error("the memory of dom0 is not known: {0}")]
    Dom0MemoryUnknown(#[source] io::Error),
}
