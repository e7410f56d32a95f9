//! The command line: verbs here, flags in one file for each group of the help.

pub mod boot;
pub mod devices;
mod help;
pub mod host;
pub mod memory;
pub mod migration;
pub mod output;
pub mod pci;
pub mod platform;
pub mod qemu;
pub mod run;
mod time;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, Args, Parser, Subcommand};

use boot::{BootArgs, BootloaderArgs};
use devices::{AttachArgs, DetachArgs, EjectArgs, InsertArgs, VirtualDeviceArgs};
use help::{
    AFTER_ATTACH, AFTER_BALLOON, AFTER_BUILD, AFTER_CHECK, AFTER_CLEANUP, AFTER_CREATE, AFTER_DESTROY, AFTER_DETACH,
    AFTER_EJECT, AFTER_FEATURES, AFTER_HELP, AFTER_INSERT, AFTER_INSPECT, AFTER_LIST, AFTER_MIGRATE,
    AFTER_MIGRATE_RECEIVE, AFTER_PCI, AFTER_PLAN, AFTER_RESTORE, AFTER_RESUME, AFTER_RUN, AFTER_SAVE, AFTER_XENGUEST,
};
use host::{HostArgs, StoreArgs};
use memory::MemoryArgs;
use migration::{MigrateArgs, ReceiveArgs, RestoreArgs, ResumeArgs, SaveArgs};
use output::OutputArgs;
use pci::PciArgs;
use platform::{DomainArgs, PlatformArgs};
use qemu::QemuArgs;
use run::RunArgs;
use time::seconds;

use crate::memory::{Kib, Model};

/// Plans, builds, starts and measures Xen guests: HVM, PVH and PV.
///
/// A guest's memory is computed first (`plan` shows it, without root and without Xen), and the guest is
/// built by that plan. The plan is exact: Xen reports the same page counts. A run that fails leaves nothing behind.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Print one JSON object, errors included
    // Last in every verb's list, before --help.
    #[arg(long, global = true, display_order = 900, help_heading = "Output")]
    pub json: bool,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
// The flags of a verb are made when it is called: those of all verbs are a part of what every start costs.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Show the memory layout of a guest; needs neither root nor Xen
    #[command(after_help = AFTER_PLAN)]
    Plan(PlanArgs),
    /// Check an xl configuration file, or the file of a saved guest; needs neither root nor Xen
    #[command(after_help = AFTER_CHECK)]
    Check(CheckArgs),
    /// Create, build and start a guest, by its flags or by its xl configuration file
    #[command(after_help = AFTER_CREATE)]
    Create(Box<CreateArgs>),
    /// Start the guest of an xl configuration file and look after it: restart it as the file says, shut it down in the end
    #[command(after_help = AFTER_RUN)]
    Run(RunArgs),
    /// Build into a domain that another toolstack created; dombuild never destroys it
    #[command(after_help = AFTER_BUILD)]
    Build(Box<BuildArgs>),
    /// Measure a live domain of any toolstack, and compare it with its plan
    #[command(after_help = AFTER_INSPECT)]
    Inspect(InspectArgs),
    /// Change the memory of a running guest, and wait until it has that size
    #[command(after_help = AFTER_BALLOON)]
    Balloon(BalloonArgs),
    /// Attach a disk, a network card or a PCI device to a guest, and wait until the guest has connected it
    #[command(after_help = AFTER_ATTACH)]
    Attach(AttachArgs),
    /// Detach a device from a guest, which is asked to release it
    #[command(after_help = AFTER_DETACH)]
    Detach(DetachArgs),
    /// Put an image into a CD drive of an HVM guest; what is in it comes out
    #[command(after_help = AFTER_INSERT)]
    Insert(InsertArgs),
    /// Take the medium out of a CD drive of an HVM guest
    #[command(after_help = AFTER_EJECT)]
    Eject(EjectArgs),
    /// Save a guest to a file in xl's format, and destroy it
    #[command(after_help = AFTER_SAVE)]
    Save(SaveArgs),
    /// Restore a guest from a file of `dombuild save` or `xl save`
    #[command(after_help = AFTER_RESTORE)]
    Restore(Box<RestoreArgs>),
    /// Send a running guest to another host, and destroy it here once it runs there
    #[command(after_help = AFTER_MIGRATE)]
    Migrate(MigrateArgs),
    /// Take a guest that another host sends; `migrate` and `xl migrate` start it there
    #[command(after_help = AFTER_MIGRATE_RECEIVE)]
    MigrateReceive(Box<ReceiveArgs>),
    /// Let a suspended guest run on, under the name that it had before a migration
    #[command(after_help = AFTER_RESUME)]
    Resume(ResumeArgs),
    /// Destroy a guest with its device model and its keys in xenstore
    #[command(after_help = AFTER_DESTROY)]
    Destroy(DestroyArgs),
    /// Find and remove what killed runs of dombuild left behind
    #[command(after_help = AFTER_CLEANUP)]
    Cleanup(CleanupArgs),
    /// Replace XenServer's helper xenguest, for toolstacks that call it; a link to dombuild named xenguest does the same
    #[command(after_help = AFTER_XENGUEST, override_usage = "dombuild xenguest OPTIONS")]
    Xenguest(XenguestArgs),
    /// List the PCI devices of the host, make them assignable to guests, and give them back to dom0
    #[command(after_help = AFTER_PCI)]
    Pci(PciArgs),
    /// List every domain: its kind, its memory and its plan, how long it runs, and who created it; or their devices
    #[command(after_help = AFTER_LIST)]
    List(ListArgs),
    /// Show what this dombuild and this host can do; needs no Xen
    #[command(after_help = AFTER_FEATURES)]
    Features,
}

/// A file names the guest and its memory.
fn required_without_file(arg: Arg) -> Arg {
    arg.required(false).required_unless_present("file")
}

/// Show the memory layout of a guest; needs neither root nor Xen
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Memory
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Write the picture as SVG as well, for a browser or for paper; - writes that alone, to standard output
    #[arg(long, value_name = "FILE|-")]
    pub svg: Option<PathBuf>,
}

/// Check an xl configuration file, or the file of a saved guest; needs neither root nor Xen
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The file, in the format of xl.cfg, or written by `dombuild save` or `xl save`
    #[arg(value_name = "FILE", value_parser = clap::value_parser!(PathBuf))]
    pub file: PathBuf,
    /// Settings that are read after the file, each as a line of it: memory=512 or 'extra="console=hvc0"'
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// An unknown key is an error
    #[arg(long)]
    pub strict: bool,
    /// Print only the configuration in libxl's format: that which xl makes of it, as `xl create -n` does, or the saved guest's
    #[arg(long)]
    pub libxl_json: bool,
    /// xl's own configuration, whose defaults --libxl-json takes; it may be missing where the flag is not given [default:
    /// /etc/xen/xl.conf]
    #[arg(long, value_name = "FILE", requires = "libxl_json")]
    pub xl_conf: Option<PathBuf>,
}

/// What goes into the guest, the same for `create` and `build`.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// Memory
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Boot files
    #[command(flatten)]
    pub boot: BootArgs,
    /// Platform
    #[command(flatten)]
    pub platform: PlatformArgs,
    /// Host
    #[command(flatten)]
    pub host: HostArgs,
}

/// Create, build and start a guest, by its flags or by its xl configuration file
#[derive(Debug, Clone, Args)]
#[command(mut_arg("memory", required_without_file))]
pub struct CreateArgs {
    /// The guest's configuration, in the format of xl.cfg; flags change what it says
    #[arg(value_name = "FILE", value_parser = clap::value_parser!(PathBuf))]
    pub file: Option<PathBuf>,
    /// Settings that are read after the file, each as a line of it: memory=512 or 'extra="console=hvc0"'
    #[arg(value_name = "KEY=VALUE", requires = "file")]
    pub settings: Vec<String>,
    /// Name of the guest; no other domain may have it
    // A word on the command line, like --kernel's: which names are good is the configuration's to say, with its exit code.
    #[arg(long, required = false, required_unless_present = "file")]
    pub name: String,
    /// Check everything and print the steps; create and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print only the configuration that the guest would have in libxl's format
    #[arg(long, requires = "dry_run")]
    pub libxl_json: bool,
    /// Leave the guest paused; `xl unpause` starts it
    #[arg(short = 'p', long)]
    pub paused: bool,
    /// Wait until the guest stops, remove it and its QEMU, and print why it stopped
    #[arg(short = 'F', long, conflicts_with = "paused")]
    pub foreground: bool,
    /// Show the guest's console, by `xl console`, once it has started
    #[arg(short = 'c', long, conflicts_with_all = ["foreground", "json"])]
    pub console: bool,
    /// Show the guest's VNC display, by `xl vncviewer`, once it has started
    #[arg(short = 'V', long, conflicts_with_all = ["foreground", "json", "console"])]
    pub vncviewer: bool,
    /// Print nothing about the guest if all goes well
    #[arg(short = 'q', long, conflicts_with = "json")]
    pub quiet: bool,
    /// What goes into it
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Boot loader
    #[command(flatten)]
    pub bootloader: BootloaderArgs,
    /// Devices
    #[command(flatten)]
    pub devices: VirtualDeviceArgs,
    /// QEMU
    #[command(flatten)]
    pub qemu: QemuArgs,
    /// The domain
    #[command(flatten)]
    pub domain: DomainArgs,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

impl CreateArgs {
    /// The verb of xl that shows the started guest.
    pub(crate) fn viewer(&self) -> Option<&'static str> {
        match (self.console, self.vncviewer) {
            (true, _) => Some("console"),
            (_, true) => Some("vncviewer"),
            _ => None,
        }
    }
}

/// Build into a domain that another toolstack created; dombuild never destroys it
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

/// Measure a live domain of any toolstack, and compare it with its plan
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Number or name of the domain, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// Measure it again every so often, until the domain ends or you press Ctrl-C; with --json, one object a line
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = seconds)]
    pub watch: Option<Duration>,
    /// Also draw plan and domain side by side into this file; - writes only that, to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub svg: Option<PathBuf>,
    /// Also count its pages on each NUMA node: Xen's debug key u does that for every domain and prints it to Xen's console
    #[arg(long)]
    pub nodes: bool,
    /// Compare with the plan of this model [default: the guest's own, or the best match]
    #[arg(long, value_name = "xenops|xapi|libxl")]
    pub model: Option<Model>,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// List every domain: its kind, its memory and its plan, how long it runs, and who created it; or their devices
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// List the devices of the guests instead
    #[arg(long)]
    pub devices: bool,
    /// Only those of this guest
    #[arg(value_name = "DOMID|NAME", requires = "devices", value_parser = NonEmptyStringValueParser::new())]
    pub domain: Option<String>,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Change the memory of a running guest, and wait until it has that size
#[derive(Debug, Clone, Args)]
pub struct BalloonArgs {
    /// Number or name of the guest, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// New size, video included; at most its static max
    #[arg(allow_negative_numbers = true)]
    pub size: Kib,
    /// How long the guest may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
    /// Use this memory model [default: the guest's own, or the best match]
    #[arg(long, value_name = "xenops|xapi|libxl")]
    pub model: Option<Model>,
    /// Allow less memory than a guest needs to run
    #[arg(long)]
    pub force: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Replace XenServer's helper xenguest, for toolstacks that call it; a link to dombuild named xenguest does the same
#[derive(Debug, Clone, Args)]
pub struct XenguestArgs {
    /// The helper's own options, which are not dombuild's
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}

/// Destroy a guest with its device model and its keys in xenstore
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

/// Find and remove what killed runs of dombuild left behind
#[derive(Debug, Clone, Args)]
pub struct CleanupArgs {
    /// Remove it; without this flag cleanup only lists it
    #[arg(long)]
    pub apply: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
