//! The files that a guest starts with.

use std::path::PathBuf;

use clap::Args;

use crate::payload::firmware::FirmwareChoice;

/// Firmware and tables, or kernel and ramdisk.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Boot")]
pub struct BootArgs {
    /// HVM: seabios or ovmf, with :PATH for a file of your own [default: seabios]
    #[arg(long, value_name = "seabios|ovmf[:PATH]")]
    pub firmware: Option<FirmwareChoice>,
    /// HVM: hvmloader, which starts the firmware, at most 16 MiB [default: the installed Xen's]
    #[arg(long, value_name = "FILE")]
    pub hvmloader: Option<PathBuf>,
    /// HVM: SMBIOS structures for the guest's table, in hvmloader's format (each after its length), or a firmware's
    /// whole table
    #[arg(long, value_name = "FILE")]
    pub smbios: Option<PathBuf>,
    /// HVM: the host's own SMBIOS structures for the guest's table: types 0, 1, 2, 3, 11, 22, 39, and from 128 on
    #[arg(long)]
    pub smbios_passthrough: bool,
    /// HVM: ACPI tables for the guest, one after the other in one file
    #[arg(long, value_name = "FILE")]
    pub acpi: Option<PathBuf>,
    /// The guest's kernel. PVH, PV: at most 512 MiB, also unpacked. HVM: QEMU starts it through the firmware
    #[arg(long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// Initial ramdisk for the kernel, at most 1 GiB
    #[arg(long, value_name = "PATH")]
    pub ramdisk: Option<PathBuf>,
    /// Command line for the kernel
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
}
