//! The configuration of QEMU for one guest.

use std::path::PathBuf;
use std::time::Duration;

use super::confinement::RunAs;
use super::needs::Needs;

/// The configuration of QEMU.
#[derive(Debug)]
pub struct DeviceModelConfig {
    /// The program.
    pub path: PathBuf,
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
