//! The files that a guest starts with.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::time::seconds;
use crate::config::bios_string::BiosString;
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
    /// HVM: a string in the guest's SMBIOS tables, as in xl's smbios=[...] (repeat it): system_manufacturer=Example
    #[arg(long, value_name = "NAME=TEXT")]
    pub bios_string: Vec<BiosString>,
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
    /// The PV shim of --shim [default: the installed Xen's]
    #[arg(long, value_name = "FILE", requires = "shim")]
    pub shim_file: Option<PathBuf>,
    /// Command line of the PV shim [default: pv-shim console=xen,pv]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "shim")]
    pub shim_cmdline: Option<String>,
    /// What is appended to the PV shim's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "shim")]
    pub shim_extra: Option<String>,
}

/// A program that takes the kernel out of the guest's first disk, for `create`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Boot")]
pub struct BootloaderArgs {
    /// PVH, PV: program in dom0 that takes kernel, ramdisk and command line out of the first disk, as in xl: pygrub, or
    /// a path. It is confined; --kernel and --ramdisk then name files on the disk
    #[arg(long, value_name = "NAME|PATH", value_parser = NonEmptyStringValueParser::new())]
    pub bootloader: Option<String>,
    /// One more argument for it (repeat for each word)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true, requires = "bootloader")]
    pub bootloader_arg: Vec<String>,
    /// Longest time that it may take
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds, requires = "bootloader")]
    pub bootloader_timeout: Duration,
    /// Run it as root, with every right; the guest decides what it reads
    #[arg(long, requires = "bootloader")]
    pub bootloader_unconfined: bool,
}
