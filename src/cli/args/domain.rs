//! The flags of the verbs for domains that exist.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::host::StoreArgs;
use super::seconds::seconds;
use crate::memory::{Kib, Model};

/// `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Number or name of the domain, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// Measure it again every so often, until the domain ends or you press Ctrl-C; with --json, one object a line
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = seconds)]
    pub watch: Option<Duration>,
    /// Draw plan and domain side by side into this file, too; - is standard output, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub svg: Option<PathBuf>,
    /// Hold it against this model's plan [default: what it was built with, or else what fits best]
    #[arg(long, value_name = "xenops|xapi|libxl")]
    pub model: Option<Model>,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `balloon`.
#[derive(Debug, Clone, Args)]
pub struct BalloonArgs {
    /// Number or name of the guest, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// What it shall hold, video included; at most its static max
    #[arg(allow_negative_numbers = true)]
    pub size: Kib,
    /// How long the guest may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
    /// Go by this model [default: what the guest was built with, or else what fits best]
    #[arg(long, value_name = "xenops|xapi|libxl")]
    pub model: Option<Model>,
    /// Go below what a guest needs to live, too
    #[arg(long)]
    pub force: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `destroy`.
#[derive(Debug, Clone, Args)]
pub struct DestroyArgs {
    /// Number or name of the domain
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// Destroy it even though another toolstack made it
    #[arg(long)]
    pub force: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `cleanup`.
#[derive(Debug, Clone, Args)]
pub struct CleanupArgs {
    /// Remove it; without this flag it is only told
    #[arg(long)]
    pub apply: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
