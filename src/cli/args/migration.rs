//! `save` and `restore`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::host::{HostArgs, StoreArgs};
use super::time::{seconds, some_seconds};
use crate::qemu::confinement::UserChoice;

/// `save`.
#[derive(Debug, Clone, Args)]
pub struct SaveArgs {
    /// Number or name of the guest, whoever created it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// The file, which must not exist
    #[arg(value_name = "FILE", value_parser = clap::value_parser!(PathBuf))]
    pub file: PathBuf,
    /// Let the guest run on afterwards
    #[arg(long)]
    pub checkpoint: bool,
    /// Keep the guest paused afterwards; `xl unpause` lets it run on
    #[arg(long, conflicts_with = "checkpoint")]
    pub keep_paused: bool,
    /// How long the guest may take for its answer to the request to suspend itself, and as long again until it has done so
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = some_seconds)]
    pub suspend_timeout: Duration,
    /// Longest time for all of it
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = some_seconds)]
    pub timeout: Duration,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `restore`.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// The file, written by `dombuild save` or `xl save`
    #[arg(value_name = "FILE", value_parser = clap::value_parser!(PathBuf))]
    pub file: PathBuf,
    /// Check everything and print what the guest is; create and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the guest paused; `xl unpause` starts it
    #[arg(long)]
    pub paused: bool,
    /// Longest time for its state to be read
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = some_seconds)]
    pub timeout: Duration,
    /// Host
    #[command(flatten)]
    pub host: HostArgs,
    /// Longest run of a device's hotplug script
    #[arg(long, value_name = "SECONDS", default_value = "40", value_parser = seconds, help_heading = "Devices")]
    pub hotplug_timeout: Duration,
    /// Longest wait until QEMU is ready
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, help_heading = "QEMU")]
    pub dm_timeout: Duration,
    /// Run QEMU as this user, given by name, UID or UID:GID [default: as the file says]
    #[arg(long, value_name = "USER", conflicts_with = "device_model_root", help_heading = "QEMU")]
    pub device_model_user: Option<UserChoice>,
    /// Run QEMU as root, with all capabilities
    #[arg(long, help_heading = "QEMU")]
    pub device_model_root: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
