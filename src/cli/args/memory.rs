//! How much memory a guest gets, and what shapes it.

use std::path::PathBuf;

use clap::Args;

use crate::devices::pci::SYSFS;
use crate::memory::{Kib, Kind, Model, ShadowMultiplier};
use crate::xen::PciAddress;

/// How much memory, and what shapes it.
#[derive(Debug, Clone, Args)]
pub struct MemoryArgs {
    /// Kind of guest: hvm has a BIOS and QEMU's devices; pvh and pv start their kernel at once
    #[arg(help_heading = "Memory", long, value_name = "hvm|pvh|pv", default_value_t)]
    pub kind: Kind,
    /// Memory of the guest, video included: the balloon's target
    #[arg(help_heading = "Memory", long, value_name = "SIZE", allow_negative_numbers = true)]
    pub memory: Kib,
    /// The most that the guest may balloon up to; above --memory the guest starts populated on demand, or ballooned down
    /// where it is pv [default: --memory]
    #[arg(help_heading = "Memory", long, value_name = "SIZE", allow_negative_numbers = true)]
    pub maxmem: Option<Kib>,
    /// Memory of the emulated graphics card: a power of two of MiB, or 0 for no VGA [default: 16MiB for hvm; pvh and pv
    /// have none]
    #[arg(help_heading = "Memory", long, value_name = "SIZE", allow_negative_numbers = true)]
    pub video: Option<Kib>,
    /// Room below Xen's limit for memory that QEMU's devices have of their own besides the VGA card, such as secondary-vga's
    /// and qxl-vga's [default: the model's, 1MiB for hvm]
    #[arg(help_heading = "Memory", long, value_name = "SIZE", allow_negative_numbers = true)]
    pub extra_internal: Option<Kib>,
    /// Number of virtual CPUs, 1 to 128
    #[arg(help_heading = "Memory", long, value_name = "N", default_value_t = 1)]
    pub vcpus: u32,
    /// Multiplies the paging pool that the model computes
    #[arg(help_heading = "Memory", long, value_name = "F", default_value = "1.0", allow_negative_numbers = true)]
    pub shadow_multiplier: ShadowMultiplier,
    /// Size of the hole for devices below 4 GiB: 256MiB to 2GiB [default: 256MiB for hvm, or what --pci and --vgpu need;
    /// always 64MiB for pvh, none for pv]
    #[arg(help_heading = "Memory", long, value_name = "SIZE", allow_negative_numbers = true)]
    pub mmio_hole: Option<Kib>,
    /// Whose numbers to count by: OpenXT's xenops, xapi's or libxl's
    #[arg(help_heading = "Memory", long, value_name = "xenops|xapi|libxl", default_value_t)]
    pub model: Model,
    /// The guest will get PCI devices of the host: then it cannot be populated on demand
    #[arg(help_heading = "Devices", long)]
    pub passthrough: bool,
    /// Make room for this PCI device of the host in an HVM guest (repeat it, or use commas): a hole as large as sysfs says
    /// that the devices need, and no RAM where the host reserves memory for them, which create and build ask Xen for and
    /// plan does not know. Implies --passthrough. The device itself is not given to the guest
    #[arg(help_heading = "Devices", long, value_name = "SBDF", value_delimiter = ',')]
    pub pci: Vec<PciAddress>,
    /// Make room for an NVIDIA vGPU in an HVM guest: a hole of 512MiB at least, and 16MiB reserved in it. The vGPU itself is
    /// not given to the guest
    #[arg(help_heading = "Devices", long)]
    pub vgpu: bool,
    /// Where sysfs is
    #[arg(long, value_name = "DIR", default_value = SYSFS, hide = true)]
    pub sysfs: PathBuf,
    /// Run --kernel, a PV kernel, under the installed Xen's PV shim; with --kind pvh, and --model xapi or libxl
    #[arg(help_heading = "Boot", long)]
    pub shim: bool,
}
