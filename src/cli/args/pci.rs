//! `pci`: the PCI devices of the host.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::host::StoreArgs;
use crate::devices::pci::SYSFS;
use crate::xen::PciAddress;

/// List the PCI devices of the host, make them assignable to guests, and give them back to dom0
#[derive(Debug, Clone, Args)]
pub struct PciArgs {
    /// What to do
    #[command(subcommand)]
    pub action: PciAction,
}

/// What happens to the devices.
#[derive(Debug, Clone, Subcommand)]
pub enum PciAction {
    /// List the devices that guests have or can get: driver, owner, resets, and what they share with others
    List(PciListArgs),
    /// Take a device from its driver in dom0, so that a guest can get it (as xl pci-assignable-add)
    Assign(PciAssignArgs),
    /// Give an assignable device back to dom0, and to the driver that it had (as xl pci-assignable-remove -r)
    Release(PciReleaseArgs),
}

/// List the devices that guests have or can get: driver, owner, resets, and what they share with others
#[derive(Debug, Clone, Args)]
pub struct PciListArgs {
    /// Every device of the host
    #[arg(long)]
    pub all: bool,
    /// Where sysfs is
    #[arg(long, value_name = "DIR", default_value = SYSFS, hide = true)]
    pub sysfs: PathBuf,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Take a device from its driver in dom0, so that a guest can get it
#[derive(Debug, Clone, Args)]
pub struct PciAssignArgs {
    /// The device: 0000:03:00.0 or 03:00.0
    #[arg(value_name = "SBDF")]
    pub address: PciAddress,
    /// Take it although dom0 uses it: a network interface of it is up, a disk of it is mounted, or a driver has a device that
    /// shares its DMA
    #[arg(long)]
    pub force: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Give an assignable device back to dom0, and to the driver that it had
#[derive(Debug, Clone, Args)]
pub struct PciReleaseArgs {
    /// The device: 0000:03:00.0 or 03:00.0
    #[arg(value_name = "SBDF")]
    pub address: PciAddress,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
