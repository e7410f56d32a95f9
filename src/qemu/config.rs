//! The configuration of QEMU for one guest.

use std::path::PathBuf;
use std::time::Duration;

use super::confinement::RunAs;
use super::needs::Needs;

/// What a QEMU does for its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QemuRole {
    /// It emulates the devices of an HVM guest.
    DeviceModel,
    /// It serves Xen's devices to a PVH or PV guest: disks of formats that the kernel does not know.
    Backend,
}

/// The graphics card of an HVM guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphicsCard {
    /// QEMU's standard VGA card.
    Std,
    /// Cirrus Logic's, which xl gives a guest by default.
    Cirrus,
    /// None, or one of the user's own arguments.
    None,
}

/// The configuration of QEMU.
#[derive(Debug)]
pub struct DeviceModelConfig {
    /// What it does for the guest.
    pub role: QemuRole,
    /// The program.
    pub path: PathBuf,
    /// The graphics card. It has the video RAM of the guest's plan; none means that there is no card.
    pub card: GraphicsCard,
    /// The user's own arguments.
    pub arguments: Vec<String>,
    /// How long it may take to become ready.
    pub timeout: Duration,
    /// The user that runs it.
    pub run_as: RunAs,
    /// What it needs of the host, if it does not run as root.
    pub needs: Needs,
    /// Whether it runs under a system call filter, if it does not run as root.
    pub filter: bool,
}
