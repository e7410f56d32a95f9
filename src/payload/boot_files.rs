//! The boot files of a guest, read and checked.

use std::ffi::CString;
use std::path::PathBuf;

use crate::os::sealed::Sealed;
use crate::payload::firmware::FirmwareKind;

/// The boot files of a guest, by guest type.
#[derive(Debug)]
pub enum BootFiles {
    /// HVM: hvmloader, which starts a firmware.
    Firmware {
        /// hvmloader's bytes.
        hvmloader: Vec<u8>,
        /// The firmware that hvmloader starts.
        kind: FirmwareKind,
        /// The firmware's bytes.
        firmware: Vec<u8>,
        /// Additions to the guest's own tables.
        modules: FirmwareModules,
    },
    /// PVH and PV: a kernel.
    Kernel {
        /// The kernel as an unpacked plain ELF file, or the PV shim.
        kernel: Module,
        /// The modules of the kernel: an initial ramdisk; for the PV shim, the guest's kernel comes first.
        modules: Vec<Module>,
        /// PV: the features that the guest must have, in the syntax of its ELF notes.
        features: CString,
        /// PV: bits for its start info (`SIF_*`).
        start_flags: u32,
    },
    /// A guest that is restored: its files are in its memory.
    Saved {
        /// HVM: the firmware that runs in it.
        firmware: Option<FirmwareKind>,
        /// PV: what xenstore has of its files, by the names of the nodes below `image`.
        image: Vec<(&'static str, String)>,
    },
}

/// The checked additions to hvmloader's tables; for HVM guests only.
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
    /// Its bytes: the plain form of a kernel, or the file itself.
    pub data: Sealed,
    /// The path from which they were read.
    pub path: PathBuf,
    /// The command line of this file.
    pub cmdline: CString,
}
