//! QEMU as it is configured for one guest.

use std::path::PathBuf;
use std::time::Duration;

use super::confinement::RunAs;
use super::needs::Needs;

/// QEMU: which one, with what, and how long it may take.
#[derive(Debug)]
pub struct DeviceModelConfig {
    /// The program.
    pub path: PathBuf,
    /// The user's own arguments.
    pub arguments: Vec<String>,
    /// How long it may take to get ready.
    pub timeout: Duration,
    /// As whom it runs.
    pub run_as: RunAs,
    /// What it needs of the host, where it does not run as root.
    pub needs: Needs,
    /// It runs under a filter of system calls, where it does not run as root.
    pub filter: bool,
}
