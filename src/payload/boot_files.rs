//! The files that a guest starts with, read and checked.

use std::ffi::CString;
use std::path::PathBuf;

use crate::os::sealed::Sealed;
use crate::payload::firmware::FirmwareKind;

/// What a guest starts with, file by file.
#[derive(Debug)]
pub enum BootFiles {
    /// HVM: hvmloader, which starts a firmware.
    Firmware {
        /// hvmloader's bytes.
        hvmloader: Vec<u8>,
        /// Which firmware hvmloader is to start.
        kind: FirmwareKind,
        /// The firmware's bytes.
        firmware: Vec<u8>,
        /// What hvmloader puts into the guest's own tables.
        modules: FirmwareModules,
    },
    /// PVH and PV: a kernel.
    Kernel {
        /// The kernel, as the plain ELF file that it was unpacked to; or the PV shim.
        kernel: Module,
        /// What it finds beside itself: an initial ramdisk; the PV shim finds a kernel first.
        modules: Vec<Module>,
        /// PV: the features that it must have, in words of its ELF notes.
        features: CString,
        /// PV: bits for its start info (`SIF_*`).
        start_flags: u32,
    },
}

/// What hvmloader is handed for the tables that it makes, checked; of HVM guests only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirmwareModules {
    /// SMBIOS structures, in hvmloader's format.
    pub smbios: Option<Vec<u8>>,
    /// ACPI tables, one after the other.
    pub acpi: Option<Vec<u8>>,
}

/// A file that goes into a guest.
#[derive(Debug)]
pub struct Module {
    /// Its bytes: what was made of a kernel, or the file itself.
    pub data: Sealed,
    /// Where they were read from.
    pub path: PathBuf,
    /// The command line that goes with it.
    pub cmdline: CString,
}
