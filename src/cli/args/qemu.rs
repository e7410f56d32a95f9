//! The guest's device model.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::time::seconds;
use crate::qemu::confinement::UserChoice;

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// QEMU, and the user and the filter that confine it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "QEMU")]
pub struct QemuArgs {
    /// QEMU, or none for a guest without a device model [default: the installed Xen's]
    #[arg(long, value_name = "PATH|none")]
    pub device_model: Option<PathBuf>,
    /// One more argument for QEMU: a disk, a CD-ROM, a serial port (repeat for each word)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub dm_arg: Vec<String>,
    /// Longest wait until QEMU is ready
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub dm_timeout: Duration,
    /// Run QEMU as this user, given by name, UID or UID:GID [default: one of its own for each guest]
    #[arg(long, value_name = "USER", conflicts_with = "device_model_root")]
    pub device_model_user: Option<UserChoice>,
    /// Run QEMU as root, with all capabilities
    #[arg(long)]
    pub device_model_root: bool,
    /// A seccomp filter kills QEMU when it makes a system call that it does not need
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true, default_value_t = Switch::On)]
    #[arg(conflicts_with = "device_model_root")]
    pub device_model_filter: Switch,
}
