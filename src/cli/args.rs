//! Every flag, once.

mod help;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use help::{
    AFTER_BALLOON, AFTER_BUILD, AFTER_CLEANUP, AFTER_CREATE, AFTER_DESTROY, AFTER_FEATURES, AFTER_HELP, AFTER_INSPECT,
    AFTER_PLAN, AFTER_XENGUEST,
};

use crate::config::autoballoon::Autoballoon;
use crate::devices::pci::SYSFS;
use crate::logging::destination::Destination;
use crate::logging::record::Format;
use crate::memory::{Kib, Kind, Model, ShadowMultiplier};
use crate::payload::firmware::FirmwareChoice;
use crate::qemu::confinement::UserChoice;
use crate::xen::PciAddress;

/// Plans, builds, starts and measures Xen guests: HVM, PVH and PV.
///
/// A guest's memory is computed first (`plan` shows it, without root and without Xen), then Xen is told, and what Xen
/// shows afterwards equals the plan to the page. Whatever fails, nothing stays behind.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Print one JSON object, errors included
    // Last in every verb's list, before --help.
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,
    /// What else is told of the run
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What is told of a run beside its result, and where.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Write the log there too, from info on: a file (appended to), syslog or journald
    #[arg(long, global = true, display_order = 890, value_name = "FILE|syslog|journald",
        value_parser = OsStringValueParser::new().try_map(|word| Destination::parse(&word)))]
    pub log: Option<Destination>,
    /// How the log looks in a file and on standard error
    #[arg(long, global = true, display_order = 891, value_name = "text|json", default_value_t)]
    pub log_format: Format,
    /// Log every setting and every call to Xen
    #[arg(long, global = true, display_order = 892)]
    pub debug: bool,
    /// Tell a program how far the run is: JSON lines on this open descriptor
    #[arg(long, global = true, display_order = 893, value_name = "N")]
    pub events_fd: Option<i32>,
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

/// How much memory, and what shapes it.
#[derive(Debug, Clone, Args)]
pub struct MemoryArgs {
    /// Kind of guest: hvm has a BIOS and QEMU's devices; pvh and pv start their kernel at once
    #[arg(long, value_name = "hvm|pvh|pv", default_value_t)]
    pub kind: Kind,
    /// Memory of the guest, video included: the balloon's target
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub memory: Kib,
    /// The most that the guest may balloon up to; above --memory the guest starts populated on demand, or ballooned down
    /// where it is pv [default: --memory]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub maxmem: Option<Kib>,
    /// Memory of the emulated graphics card: a power of two of MiB, or 0 for no VGA [default: 16MiB for hvm; pvh and pv
    /// have none]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub video: Option<Kib>,
    /// Room below Xen's limit for memory that QEMU's devices have of their own besides the VGA card, such as secondary-vga's
    /// and qxl-vga's [default: the model's, 1MiB for hvm]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub extra_internal: Option<Kib>,
    /// Number of virtual CPUs, 1 to 128
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcpus: u32,
    /// Multiplies the paging pool that the model computes
    #[arg(long, value_name = "F", default_value = "1.0", allow_negative_numbers = true)]
    pub shadow_multiplier: ShadowMultiplier,
    /// Size of the hole for devices below 4 GiB: 256MiB to 2GiB [default: 256MiB for hvm, or what --pci and --vgpu need;
    /// always 64MiB for pvh, none for pv]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub mmio_hole: Option<Kib>,
    /// Whose numbers to count by: OpenXT's xenops, xapi's or libxl's
    #[arg(long, value_name = "xenops|xapi|libxl", default_value_t)]
    pub model: Model,
    /// The guest will get PCI devices of the host: then it cannot be populated on demand
    #[arg(long)]
    pub passthrough: bool,
    /// Make room for this PCI device of the host in an HVM guest (repeat it, or use commas): a hole as large as sysfs says
    /// that the devices need, and no RAM where the host reserves memory for them, which create and build ask Xen for and
    /// plan does not know. Implies --passthrough. The device itself is not given to the guest
    #[arg(long, value_name = "SBDF", value_delimiter = ',')]
    pub pci: Vec<PciAddress>,
    /// Make room for an NVIDIA vGPU in an HVM guest: a hole of 512MiB at least, and 16MiB reserved in it. The vGPU itself is
    /// not given to the guest
    #[arg(long)]
    pub vgpu: bool,
    /// Where sysfs is
    #[arg(long, value_name = "DIR", default_value = SYSFS, hide = true)]
    pub sysfs: PathBuf,
    /// Run --kernel, a PV kernel, under the installed Xen's PV shim; with --kind pvh, and --model xapi or libxl
    #[arg(long)]
    pub shim: bool,
}

/// What goes into the guest, the same for `create` and `build`.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// Memory
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// HVM: seabios or ovmf, with :PATH for a file of your own [default: seabios]
    #[arg(long, value_name = "seabios|ovmf[:PATH]")]
    pub firmware: Option<FirmwareChoice>,
    /// HVM: SMBIOS structures for the guest's table: each with its length in front as hvmloader wants them, or a firmware's
    /// whole table
    #[arg(long, value_name = "FILE")]
    pub smbios: Option<PathBuf>,
    /// HVM: the host's own SMBIOS structures for the guest's table: types 0, 1, 2, 3, 11, 22, 39, and from 128 on
    #[arg(long)]
    pub smbios_passthrough: bool,
    /// HVM: ACPI tables for the guest, one after the other in one file
    #[arg(long, value_name = "FILE")]
    pub acpi: Option<PathBuf>,
    /// HVM: hvmloader, which starts the firmware, at most 512 MiB [default: the installed Xen's]
    #[arg(long, value_name = "FILE")]
    pub hvmloader: Option<PathBuf>,
    /// PVH, PV: the guest's kernel, at most 512 MiB, also unpacked
    #[arg(long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// PVH, PV: initial ramdisk for the kernel, at most 1 GiB; it is not looked into
    #[arg(long, value_name = "PATH")]
    pub ramdisk: Option<PathBuf>,
    /// PVH, PV: command line for the kernel
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// A setting of CPUs, clocks, ACPI or Hyper-V's enlightenments, as docs/platform.md lists them: vcpu/0/affinity=01,
    /// nested-virt=true, viridian=true, timeoffset=-3600 (repeat for each)
    #[arg(long, value_name = "KEY=VALUE")]
    pub platform: Vec<String>,
    /// How long to wait for the host to free memory, while its free memory still grows
    #[arg(long, value_name = "SECONDS", default_value = "64", value_parser = seconds)]
    pub wait_memory: Duration,
    /// Whether dom0 is made smaller where the host lacks memory, within --wait-memory: auto does so for create, unless dom0_mem=
    /// on Xen's command line fixes dom0's size
    #[arg(long, value_name = "auto|on|off", value_enum, hide_possible_values = true, default_value = "auto")]
    pub autoballoon: Autoballoon,
    /// What dom0 keeps at least [default: what a guest that sees as much memory needs to live]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub dom0_min: Option<Kib>,
    /// Do not claim the guest's memory before it is populated: for a host whose other toolstacks take memory without claims
    #[arg(long)]
    pub no_claim: bool,
    /// Do not take the locks under which xl and OpenXT's toolstack build their guests
    #[arg(long)]
    pub no_build_lock: bool,
}

/// How xenstored is talked to, by every verb that does.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// How long xenstored may take to answer
    #[arg(long, value_name = "SECONDS", default_value = "30", display_order = 800, value_parser = some_seconds)]
    pub store_timeout: Duration,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// `create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Name of the guest; no other domain may have it
    // A word on the command line, like --kernel's: which names are good is the configuration's to say, with its exit code.
    #[arg(long)]
    pub name: String,
    /// What goes into it
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Check all that can be checked, and tell what would be done; nothing is created, and nothing changed
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the guest paused; `xl unpause` starts it
    #[arg(long)]
    pub paused: bool,
    /// QEMU, or none for a guest without a device model [default: the installed Xen's]
    #[arg(long, value_name = "PATH|none")]
    pub device_model: Option<PathBuf>,
    /// One more argument for QEMU: a disk, a CD-ROM, a serial port (repeat for each word)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub dm_arg: Vec<String>,
    /// How long QEMU may take to get ready
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub dm_timeout: Duration,
    /// Run QEMU as this user, given by name, UID or UID:GID [default: one of its own for each guest]
    #[arg(long, value_name = "USER", conflicts_with = "device_model_root")]
    pub device_model_user: Option<UserChoice>,
    /// Run QEMU as root, with every right
    #[arg(long)]
    pub device_model_root: bool,
    /// Whether a filter ends QEMU when it makes a system call that it does not need
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true, default_value_t = Switch::On)]
    #[arg(conflicts_with = "device_model_root")]
    pub device_model_filter: Switch,
    /// UUID of the guest [default: a random one]
    #[arg(long)]
    pub uuid: Option<Uuid>,
    /// Stay until the guest stops, remove it and its QEMU, and tell why it stopped
    #[arg(long, conflicts_with = "paused")]
    pub foreground: bool,
    /// FLASK label of the guest
    #[arg(long, value_name = "LABEL", value_parser = NonEmptyStringValueParser::new())]
    pub seclabel: Option<String>,
    /// Most frames of its grant table [default: Xen's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub max_grant_frames: Option<i32>,
    /// Most frames of its maptrack table [default: Xen's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub max_maptrack_frames: Option<i32>,
    /// Highest event channel port
    #[arg(long, value_name = "N", default_value_t = 1023)]
    pub event_channels: u32,
    /// CPU pool to run in
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cpupool: u32,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

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

/// `xenguest`.
#[derive(Debug, Clone, Args)]
pub struct XenguestArgs {
    /// The helper's own options, which are not dombuild's
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
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

fn some_seconds(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err("at least 1 second".to_owned()) } else { Ok(time) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if seconds > 86_400 {
        return Err("at most 86400 seconds (a day)".to_owned());
    }
    Ok(Duration::from_secs(seconds))
}
