//! Every flag, once: one file for each group.

mod build;
mod create;
mod domain;
mod guest;
mod help;
mod host;
mod memory;
mod output;
mod seconds;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use build::BuildArgs;
pub use create::{CreateArgs, Switch};
pub use domain::{BalloonArgs, CleanupArgs, DestroyArgs, InspectArgs, ListArgs};
pub use guest::GuestArgs;
use help::{
    AFTER_BALLOON, AFTER_BUILD, AFTER_CLEANUP, AFTER_CREATE, AFTER_DESTROY, AFTER_FEATURES, AFTER_HELP, AFTER_INSPECT,
    AFTER_LIST, AFTER_PLAN, AFTER_XENGUEST,
};
pub use host::StoreArgs;
pub use memory::MemoryArgs;
pub use output::OutputArgs;

/// Plans, builds, starts and measures Xen guests: HVM, PVH and PV.
///
/// A guest's memory is computed first (`plan` shows it, without root and without Xen), then Xen is told, and what Xen
/// shows afterwards equals the plan to the page. Whatever fails, nothing stays behind.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Print one JSON object, errors included
    // Last in every verb's list, before --help.
    #[arg(help_heading = "Output", long, global = true, display_order = 900)]
    pub json: bool,
    /// What else is told of the run
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the memory layout of a guest; needs neither root nor Xen
    #[command(after_help = AFTER_PLAN)]
    Plan(PlanArgs),
    /// Create, build and start a guest
    #[command(after_help = AFTER_CREATE)]
    Create(Box<CreateArgs>),
    /// Build into a domain that somebody else created; it is never destroyed by dombuild
    #[command(after_help = AFTER_BUILD)]
    Build(Box<BuildArgs>),
    /// Measure a live domain, whoever built it, and hold it against its plan
    #[command(after_help = AFTER_INSPECT)]
    Inspect(InspectArgs),
    /// Move a running guest to another size, and wait until it is there
    #[command(after_help = AFTER_BALLOON)]
    Balloon(BalloonArgs),
    /// Destroy a guest with its device model and its keys in xenstore
    #[command(after_help = AFTER_DESTROY)]
    Destroy(DestroyArgs),
    /// Find what killed runs of dombuild left behind, and remove it
    #[command(after_help = AFTER_CLEANUP)]
    Cleanup(CleanupArgs),
    /// Stand in for XenServer's helper xenguest, for the toolstacks that call it; a link to dombuild named xenguest does the
    /// same
    #[command(after_help = AFTER_XENGUEST, override_usage = "dombuild xenguest OPTIONS")]
    Xenguest(XenguestArgs),
    /// List every domain: its kind, its memory and the plan of it, how long it runs, and who created it
    #[command(after_help = AFTER_LIST)]
    List(ListArgs),
    /// Show what this dombuild and this host can do; works without Xen too
    #[command(after_help = AFTER_FEATURES)]
    Features,
}

/// `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Memory
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Write the picture as SVG as well, for a browser or for paper; - writes that alone, to standard output
    #[arg(long, value_name = "FILE|-")]
    pub svg: Option<PathBuf>,
}

/// `xenguest`.
#[derive(Debug, Clone, Args)]
pub struct XenguestArgs {
    /// The helper's own options, which are not dombuild's
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}
