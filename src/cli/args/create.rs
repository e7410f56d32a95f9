//! The flags of `create`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use uuid::Uuid;

use super::guest::GuestArgs;
use super::host::StoreArgs;
use super::seconds::seconds;
use crate::qemu::confinement::UserChoice;

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// `create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Name of the guest; no other domain may have it
    // A word on the command line, like --kernel's: which names are good is the configuration's to say, with its exit code.
    #[arg(long)]
    pub name: String,
    /// What goes into it
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Check all that can be checked, and tell what would be done; nothing is created, and nothing changed
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the guest paused; `xl unpause` starts it
    #[arg(long)]
    pub paused: bool,
    /// QEMU, or none for a guest without a device model [default: the installed Xen's]
    #[arg(help_heading = "QEMU", long, value_name = "PATH|none")]
    pub device_model: Option<PathBuf>,
    /// One more argument for QEMU: a disk, a CD-ROM, a serial port (repeat for each word)
    #[arg(help_heading = "QEMU", long, value_name = "ARG", allow_hyphen_values = true)]
    pub dm_arg: Vec<String>,
    /// How long QEMU may take to get ready
    #[arg(help_heading = "QEMU", long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub dm_timeout: Duration,
    /// Run QEMU as this user, given by name, UID or UID:GID [default: one of its own for each guest]
    #[arg(help_heading = "QEMU", long, value_name = "USER", conflicts_with = "device_model_root")]
    pub device_model_user: Option<UserChoice>,
    /// Run QEMU as root, with every right
    #[arg(help_heading = "QEMU", long)]
    pub device_model_root: bool,
    /// Whether a filter ends QEMU when it makes a system call that it does not need
    #[arg(help_heading = "QEMU", long, value_name = "on|off", value_enum, hide_possible_values = true, default_value_t = Switch::On)]
    #[arg(conflicts_with = "device_model_root")]
    pub device_model_filter: Switch,
    /// UUID of the guest [default: a random one]
    #[arg(long)]
    pub uuid: Option<Uuid>,
    /// Stay until the guest stops, remove it and its QEMU, and tell why it stopped
    #[arg(long, conflicts_with = "paused")]
    pub foreground: bool,
    /// FLASK label of the guest
    #[arg(help_heading = "Platform", long, value_name = "LABEL", value_parser = NonEmptyStringValueParser::new())]
    pub seclabel: Option<String>,
    /// Most frames of its grant table [default: Xen's]
    #[arg(help_heading = "Platform", long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub max_grant_frames: Option<i32>,
    /// Most frames of its maptrack table [default: Xen's]
    #[arg(help_heading = "Platform", long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub max_maptrack_frames: Option<i32>,
    /// Highest event channel port
    #[arg(help_heading = "Platform", long, value_name = "N", default_value_t = 1023)]
    pub event_channels: u32,
    /// CPU pool to run in
    #[arg(help_heading = "Host", long, value_name = "N", default_value_t = 0)]
    pub cpupool: u32,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
