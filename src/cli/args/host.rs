//! How a run shares the host with dom0 and with other toolstacks.

use std::time::Duration;

use clap::Args;

use super::time::{seconds, some_seconds};
use crate::config::autoballoon::Autoballoon;
use crate::config::placement::{NodeList, PlacementPolicy};
use crate::memory::Kib;

/// The host's memory and locks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Host")]
pub struct HostArgs {
    /// Longest wait for free memory of the host, while it grows
    #[arg(long, value_name = "SECONDS", default_value = "64", value_parser = seconds)]
    pub wait_memory: Duration,
    /// Whether dom0 is made smaller where the host lacks memory, within --wait-memory: auto does so for create, unless dom0_mem=
    /// on Xen's command line fixes dom0's size
    #[arg(long, value_name = "auto|on|off", value_enum, hide_possible_values = true, default_value = "auto")]
    pub autoballoon: Autoballoon,
    /// Least memory that dom0 keeps [default: what a guest of dom0's size needs to run]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub dom0_min: Option<Kib>,
    /// How NUMA nodes are chosen: auto takes the fewest that fit, and others when these are full; strict fails instead; none lets
    /// Xen deal the memory [default: auto; none for build]
    #[arg(long, value_name = "auto|none|strict", value_enum, hide_possible_values = true)]
    pub placement: Option<PlacementPolicy>,
    /// The host's NUMA nodes that have the guest's memory, and whose CPUs its vCPUs prefer, such as 0,2-3
    #[arg(long, value_name = "LIST")]
    pub nodes: Option<NodeList>,
    /// Do not claim the guest's memory before it is populated: for a host whose other toolstacks take memory without claims
    #[arg(long)]
    pub no_claim: bool,
    /// Do not take the locks under which xl and OpenXT's toolstack build their guests
    #[arg(long)]
    pub no_build_lock: bool,
}

/// The connection to xenstored.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Host")]
pub struct StoreArgs {
    /// Longest wait for an answer of xenstored
    #[arg(long, value_name = "SECONDS", default_value = "30", display_order = 800, value_parser = some_seconds)]
    pub store_timeout: Duration,
}
