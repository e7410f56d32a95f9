//! How long xenstored may take: a flag of every verb that asks it.

use std::time::Duration;

use clap::Args;

use super::seconds::some_seconds;

/// How xenstored is talked to, by every verb that does.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// How long xenstored may take to answer
    #[arg(help_heading = "Host", long, value_name = "SECONDS", default_value = "30", display_order = 800, value_parser = some_seconds)]
    pub store_timeout: Duration,
}
