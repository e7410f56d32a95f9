//! Room for the host's devices in a guest's address space.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::time::seconds;
use crate::devices::pci::SYSFS;
use crate::memory::Kib;
use crate::xen::PciAddress;

/// Devices that the guest gets later.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// Size of the hole for devices below 4 GiB: 256MiB to 2GiB [default: 256MiB for hvm, or what --pci and --vgpu need;
    /// always 64MiB for pvh, none for pv]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub mmio_hole: Option<Kib>,
    /// The guest gets PCI devices of the host later; it cannot be populated on demand
    #[arg(long)]
    pub passthrough: bool,
    /// Make room for this PCI device of the host in an HVM guest (repeat it, or use commas): a hole as large as sysfs says
    /// that the devices need, and no RAM where the host reserves memory for them, which create and build ask Xen for and
    /// plan does not know. Implies --passthrough. The device itself is not given to the guest
    #[arg(long, value_name = "SBDF", value_delimiter = ',')]
    pub pci: Vec<PciAddress>,
    /// Make room for an NVIDIA vGPU in an HVM guest: a hole of 512MiB at least, and 16MiB reserved in it. The vGPU itself is
    /// not given to the guest
    #[arg(long)]
    pub vgpu: bool,
    /// Where sysfs is
    #[arg(long, value_name = "DIR", default_value = SYSFS, hide = true)]
    pub sysfs: PathBuf,
}

/// Devices that the guest is created with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Devices")]
pub struct VirtualDeviceArgs {
    // Words on the command line, like --name: what is wrong in them has the configuration's exit code.
    /// A disk or CD drive, as in a line of xl's disk=[...] (repeat it): /dev/vg/web,raw,xvda,w or
    /// format=qcow2,vdev=xvdb,access=ro,target=/srv/b.img or, an empty CD drive, ,hdc:cdrom,r. docs/devices.md lists the words
    #[arg(long, value_name = "SPEC")]
    pub disk: Vec<String>,
    /// A network card, as in a line of xl's vif=[...] (repeat it): bridge=xenbr0,mac=00:16:3e:12:34:56 or '' for all
    /// defaults. docs/devices.md lists the words
    #[arg(long, value_name = "SPEC")]
    pub vif: Vec<String>,
    /// How long the hotplug script of a device may take
    #[arg(long, value_name = "SECONDS", default_value = "40", value_parser = seconds)]
    pub hotplug_timeout: Duration,
}
