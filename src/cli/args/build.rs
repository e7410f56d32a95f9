//! The flags of `build`.

use clap::Args;

use super::guest::GuestArgs;
use super::host::StoreArgs;

/// `build`.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    /// The domain, created as --kind says (HVM and PVH with hardware-assisted paging) and still empty
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..0x7ff0))]
    pub domid: u32,
    /// What goes into it; --vcpus must equal what the domain was created with
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Event channel of the xenstore ring, where the caller allocated it
    #[arg(long, value_name = "P", requires = "console_port", value_parser = clap::value_parser!(u32).range(1..))]
    pub store_port: Option<u32>,
    /// Event channel of the console ring, where the caller allocated it
    #[arg(long, value_name = "P", requires = "store_port", value_parser = clap::value_parser!(u32).range(1..))]
    pub console_port: Option<u32>,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
