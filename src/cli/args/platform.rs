//! Identity, settings and limits of the guest's virtual hardware.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use uuid::Uuid;

use crate::config::cpu_pool::CpuPool;
use crate::memory::Kib;
use crate::xen::Altp2m;

/// Settings of the platform, for `create` and `build`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Platform")]
pub struct PlatformArgs {
    /// A setting of CPUs, clocks, ACPI or Hyper-V's enlightenments, as docs/platform.md lists them: vcpu/0/affinity=01,
    /// nested-virt=true, viridian=true, timeoffset=-3600 (repeat for each)
    #[arg(long, value_name = "KEY=VALUE")]
    pub platform: Vec<String>,
    /// Changes of its CPUID in xl's syntax: host,FEATURE=VALUE,... or LEAF:REGISTER=BITS,... (repeat to give
    /// more; the later one counts): host,avx2=0 or 1:ecx=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0
    #[arg(long, value_name = "TEXT")]
    pub cpuid: Vec<String>,
    /// Alternate memory maps of an HVM or PVH guest, for tools that watch it from outside: external, limited or mixed. Xen needs
    /// altp2m on its command line, and Intel's EPT
    #[arg(long, value_name = "MODE")]
    pub altp2m: Option<Altp2m>,
}

/// What Xen gives to the domain when it creates it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Platform")]
pub struct DomainArgs {
    /// UUID of the guest [default: a random one]
    #[arg(long)]
    pub uuid: Option<Uuid>,
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
    /// Highest version of its grant table, 1 or 2 [default: Xen's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2))]
    pub max_grant_version: Option<u32>,
    /// Performance counters of the processor, if Xen was booted with vpmu
    #[arg(long)]
    pub vpmu: bool,
    /// Unknown MSRs read as 0, as before Xen 4.15, instead of raising a fault
    #[arg(long)]
    pub msr_relaxed: bool,
    /// The buffer of each vCPU's processor trace (Intel PT): a power of two from 4KiB to 64MiB
    #[arg(long, value_name = "SIZE")]
    pub vmtrace: Option<Kib>,
    /// The guest may serve devices to other guests: it owns the directories in xenstore for that
    #[arg(long)]
    pub driver_domain: bool,
    /// Drivers of an HVM guest may route its emulated interrupts over event channels. Until Xen 4.18, every guest's may
    #[arg(long)]
    pub hvm_pirq: bool,
    /// CPU pool to run in, by number or name
    #[arg(long, value_name = "N|NAME", default_value = "0")]
    pub cpupool: CpuPool,
}
