//! Log, events and form of the result.

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::logging::destination::Destination;
use crate::logging::record::Format;

/// The log and the events of a run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Also write the log to a file (append), syslog or journald
    #[arg(long, global = true, display_order = 890, value_name = "FILE|syslog|journald",
        value_parser = OsStringValueParser::new().try_map(|word| Destination::parse(&word)))]
    pub log: Option<Destination>,
    /// Format of the log in a file and on standard error
    #[arg(long, global = true, display_order = 891, value_name = "text|json", default_value_t)]
    pub log_format: Format,
    /// Log every setting and every call to Xen
    #[arg(long, global = true, display_order = 892)]
    pub debug: bool,
    /// Write progress events, as JSON lines, to this open descriptor
    #[arg(long, global = true, display_order = 893, value_name = "N")]
    pub events_fd: Option<i32>,
}
