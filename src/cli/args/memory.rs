//! How much memory a guest has, and by which model it is counted.

use clap::Args;

use super::devices::DeviceArgs;
use crate::config::placement::VnodeSpec;
use crate::memory::{Kib, Kind, Model, ShadowMultiplier};

/// The size of a guest.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryArgs {
    /// Kind of guest: hvm has a BIOS and QEMU's devices; pvh and pv start their kernel at once
    #[arg(long, value_name = "hvm|pvh|pv", default_value_t)]
    pub kind: Kind,
    /// Memory of the guest, video included: the balloon's target
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub memory: Kib,
    /// Largest memory of the guest. If it is above --memory, hvm and pvh guests start populated on demand, pv guests
    /// ballooned down [default: --memory]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub maxmem: Option<Kib>,
    /// Memory of the emulated graphics card: a power of two of MiB, or 0 for no VGA [default: 16MiB for hvm; pvh and pv
    /// have none]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub video: Option<Kib>,
    /// Memory of QEMU's devices except the VGA card, such as secondary-vga and qxl-vga; it adds to Xen's limit [default: the model's, 1MiB for hvm]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub extra_internal: Option<Kib>,
    /// Number of virtual CPUs, 1 to 128
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcpus: u32,
    /// Multiplies the paging pool that the model computes
    #[arg(long, value_name = "F", default_value = "1.0", allow_negative_numbers = true)]
    pub shadow_multiplier: ShadowMultiplier,
    /// The paging pool, instead of the one that the model computes; HVM and PVH
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, conflicts_with = "shadow_multiplier")]
    pub shadow_memory: Option<Kib>,
    /// A NUMA node that the guest sees: pnode=N,size=SIZE,vcpus=LIST[,distances=LIST], with : between the parts of a list, as in
    /// pnode=0,size=2GiB,vcpus=0-1,distances=10:21. Repeat it for each node; hvm and pvh
    #[arg(long, value_name = "NODE")]
    pub vnode: Vec<VnodeSpec>,
    /// Memory model: that of OpenXT's xenops, xapi or libxl
    #[arg(long, value_name = "xenops|xapi|libxl", default_value_t)]
    pub model: Model,
    /// Devices
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// Run --kernel, a PV kernel, under the installed Xen's PV shim; needs pvh and the model xapi or libxl
    #[arg(long, help_heading = "Boot")]
    pub shim: bool,
}
