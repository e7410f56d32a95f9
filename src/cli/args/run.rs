//! How a guest is looked after.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::host::StoreArgs;
use super::time::seconds;
use crate::config::on_end::OnEnd;

/// Start the guest of an xl configuration file and look after it: restart it as the file says, shut it down in the end
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The guest's configuration, in the format of xl.cfg
    #[arg(value_name = "FILE", value_parser = clap::value_parser!(PathBuf))]
    pub file: PathBuf,
    /// Settings that are read after the file, each as a line of it
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Look after a running guest of this name, too, if another toolstack made it; xl's own process for it ends
    #[arg(long)]
    pub adopt: bool,
    /// Read the file again before each restart; without this flag SIGHUP makes the next restart do so
    #[arg(long)]
    pub reread: bool,
    /// What happens when the guest powers off: destroy, restart, rename-restart, preserve, coredump-destroy or
    /// coredump-restart [default: the file's on_poweroff]
    #[arg(long, value_name = "ACTION", hide_possible_values = true)]
    pub on_poweroff: Option<OnEnd>,
    /// What happens when it reboots [default: the file's on_reboot]
    #[arg(long, value_name = "ACTION", hide_possible_values = true)]
    pub on_reboot: Option<OnEnd>,
    /// What happens when it crashes [default: the file's on_crash]
    #[arg(long, value_name = "ACTION", hide_possible_values = true)]
    pub on_crash: Option<OnEnd>,
    /// What happens when its watchdog expires [default: the file's on_watchdog]
    #[arg(long, value_name = "ACTION", hide_possible_values = true)]
    pub on_watchdog: Option<OnEnd>,
    /// Most restarts within --restart-window; with one more, the run ends
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub restart_limit: u16,
    /// The time in which restarts are counted
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub restart_window: Duration,
    /// How long the guest may take to shut down after SIGTERM or SIGINT; then, or with a second signal, it is destroyed
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub shutdown_timeout: Duration,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
    /// Flags of create, which change what the file says
    #[arg(last = true, value_name = "FLAGS OF CREATE")]
    pub flags: Vec<OsString>,
}
