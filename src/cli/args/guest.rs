//! What goes into a guest: the flags that `create` and `build` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::memory::MemoryArgs;
use super::seconds::seconds;
use crate::config::autoballoon::Autoballoon;
use crate::memory::Kib;
use crate::payload::firmware::FirmwareChoice;

/// What goes into the guest, the same for `create` and `build`.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// Memory
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// HVM: seabios or ovmf, with :PATH for a file of your own [default: seabios]
    #[arg(help_heading = "Boot", long, value_name = "seabios|ovmf[:PATH]")]
    pub firmware: Option<FirmwareChoice>,
    /// HVM: SMBIOS structures for the guest's table: each with its length in front as hvmloader wants them, or a firmware's
    /// whole table
    #[arg(help_heading = "Boot", long, value_name = "FILE")]
    pub smbios: Option<PathBuf>,
    /// HVM: the host's own SMBIOS structures for the guest's table: types 0, 1, 2, 3, 11, 22, 39, and from 128 on
    #[arg(help_heading = "Boot", long)]
    pub smbios_passthrough: bool,
    /// HVM: ACPI tables for the guest, one after the other in one file
    #[arg(help_heading = "Boot", long, value_name = "FILE")]
    pub acpi: Option<PathBuf>,
    /// HVM: another hvmloader [default: the installed Xen's]
    #[arg(help_heading = "Boot", long, value_name = "FILE")]
    pub hvmloader: Option<PathBuf>,
    /// PVH, PV: the guest's kernel, at most 512 MiB, also unpacked
    #[arg(help_heading = "Boot", long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// PVH, PV: initial ramdisk for the kernel, at most 1 GiB; it is not looked into
    #[arg(help_heading = "Boot", long, value_name = "PATH")]
    pub ramdisk: Option<PathBuf>,
    /// PVH, PV: command line for the kernel
    #[arg(help_heading = "Boot", long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// A setting of CPUs, clocks, ACPI or Hyper-V's enlightenments, as docs/platform.md lists them: vcpu/0/affinity=01,
    /// nested-virt=true, viridian=true, timeoffset=-3600 (repeat for each)
    #[arg(help_heading = "Platform", long, value_name = "KEY=VALUE")]
    pub platform: Vec<String>,
    /// How long to wait for the host to free memory, while its free memory still grows
    #[arg(help_heading = "Host", long, value_name = "SECONDS", default_value = "64", value_parser = seconds)]
    pub wait_memory: Duration,
    /// Whether dom0 is made smaller where the host lacks memory, within --wait-memory: auto does so for create, unless dom0_mem=
    /// on Xen's command line fixes dom0's size
    #[arg(
        help_heading = "Host",
        long,
        value_name = "auto|on|off",
        value_enum,
        hide_possible_values = true,
        default_value = "auto"
    )]
    pub autoballoon: Autoballoon,
    /// What dom0 keeps at least [default: what a guest that sees as much memory needs to live]
    #[arg(help_heading = "Host", long, value_name = "SIZE", allow_negative_numbers = true)]
    pub dom0_min: Option<Kib>,
    /// Do not claim the guest's memory before it is populated: for a host whose other toolstacks take memory without claims
    #[arg(help_heading = "Host", long)]
    pub no_claim: bool,
    /// Do not take the locks under which xl and OpenXT's toolstack build their guests
    #[arg(help_heading = "Host", long)]
    pub no_build_lock: bool,
}
