//! `save`, `restore`, `migrate`, `migrate-receive` and `resume`.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use uuid::Uuid;

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
    /// What it gets of this host
    #[command(flatten)]
    pub guest: RestoredGuestArgs,
}

/// What a guest that is restored gets of this host.
#[derive(Debug, Clone, Args)]
pub struct RestoredGuestArgs {
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
    /// Run QEMU as this user, given by name, UID or UID:GID [default: as its configuration says]
    #[arg(long, value_name = "USER", conflicts_with = "device_model_root", help_heading = "QEMU")]
    pub device_model_user: Option<UserChoice>,
    /// Run QEMU as root, with all capabilities
    #[arg(long, help_heading = "QEMU")]
    pub device_model_root: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Send a running guest to another host, and destroy it here once it runs there
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// Number or name of the guest, whoever created it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// The other host, as ssh takes it; with --ssh '' a command for the shell
    #[arg(value_name = "HOST", required_unless_present = "fd", conflicts_with = "fd", value_parser = NonEmptyStringValueParser::new())]
    pub host: Option<String>,
    /// The command that reaches the other host, for the shell; if it is empty, HOST is the whole command
    #[arg(long, value_name = "COMMAND", default_value = "ssh", conflicts_with = "fd")]
    pub ssh: String,
    /// The program on the other host, as its shell takes it
    #[arg(long, value_name = "COMMAND", default_value = "dombuild migrate-receive", conflicts_with = "fd")]
    pub receiver: String,
    /// Use this descriptor, a socket to a receiver on the other host, instead
    #[arg(long, value_name = "N")]
    pub fd: Option<RawFd>,
    /// What to run, for the shell, with `--has UUID` behind it, if the last answer of the other side is lost [default: the
    /// receiver, over --ssh]
    #[arg(long, value_name = "COMMAND")]
    pub ask: Option<String>,
    /// Suspend the guest before its memory is sent, not after
    #[arg(long, conflicts_with_all = ["max_rounds", "max_downtime", "at_limit"])]
    pub no_live: bool,
    /// Most rounds in which the memory is sent while the guest runs
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_rounds: u32,
    /// Suspend the guest as soon as the rest takes this long, as far as it can be foreseen [default: as soon as fewer than 50
    /// pages are left]
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub max_downtime: Option<u64>,
    /// After the most rounds: suspend the guest for as long as the rest takes, or leave it here
    #[arg(long, value_name = "suspend|give-up", default_value = "suspend")]
    pub at_limit: LimitChoice,
    /// How long the guest may take for its answer to the request to suspend itself, and as long again until it has done so
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = some_seconds)]
    pub suspend_timeout: Duration,
    /// How long the other side may take, once it has everything, until the guest runs there
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = some_seconds)]
    pub answer_timeout: Duration,
    /// Longest time for all of it
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = some_seconds)]
    pub timeout: Duration,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// What happens after the most rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LimitChoice {
    /// The guest is suspended for as long as the rest takes.
    Suspend,
    /// The guest stays here.
    GiveUp,
}

/// Take a guest that another host sends; `migrate` and `xl migrate` start it there
#[derive(Debug, Clone, Args)]
pub struct ReceiveArgs {
    /// Use this descriptor, a socket to the other host, instead of standard input and output
    #[arg(long, value_name = "N")]
    pub fd: Option<RawFd>,
    /// Leave the guest paused once it is this host's; `xl unpause` starts it
    #[arg(short = 'p', long)]
    pub paused: bool,
    /// Take no guest; print where the guest of this UUID is, which was sent here: `migrate` asks so if the last answer is lost
    #[arg(long, value_name = "UUID")]
    pub has: Option<Uuid>,
    /// For `xl migrate`, which gives it: nothing waits here for the guest's end
    #[arg(short = 'e', hide = true)]
    pub no_daemon: bool,
    /// What it gets of this host
    #[command(flatten)]
    pub guest: RestoredGuestArgs,
}

/// Let a suspended guest run on, under the name that it had before a migration
#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    /// Number or name of the guest
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
