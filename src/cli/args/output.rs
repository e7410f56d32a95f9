//! What a run reports besides its result, and where.

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::logging::destination::Destination;
use crate::logging::record::Format;

/// What is told of a run beside its result, and where.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Write the log there too, from info on: a file (appended to), syslog or journald
    #[arg(help_heading = "Output", long, global = true, display_order = 890, value_name = "FILE|syslog|journald",
        value_parser = OsStringValueParser::new().try_map(|word| Destination::parse(&word)))]
    pub log: Option<Destination>,
    /// How the log looks in a file and on standard error
    #[arg(
        help_heading = "Output",
        long,
        global = true,
        display_order = 891,
        value_name = "text|json",
        default_value_t
    )]
    pub log_format: Format,
    /// Log every setting and every call to Xen
    #[arg(help_heading = "Output", long, global = true, display_order = 892)]
    pub debug: bool,
    /// Tell a program how far the run is: JSON lines on this open descriptor
    #[arg(help_heading = "Output", long, global = true, display_order = 893, value_name = "N")]
    pub events_fd: Option<i32>,
}
