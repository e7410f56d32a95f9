//! The steps of the procedure.

use std::fmt;

/// The steps of the procedure, in the order in which they happen. The same names stand in the log, in errors and in
/// the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Settings and files are checked; Xen is not touched yet.
    CheckInput,
    /// Handles to libxenctrl and xenstored are opened.
    Connect,
    /// The empty domain is created, or the given one looked at.
    CreateDomain,
    /// The host is given time to free the footprint.
    WaitFreeMemory,
    /// The vCPUs are allocated.
    MaxVcpus,
    /// Timers, clocks and the enlightenments of Hyper-V.
    PlatformParams,
    /// Where the vCPUs may run, and their share of the CPUs.
    Scheduling,
    /// The domain's memory limit is set to xen max.
    SetMaxMemory,
    /// The paging pool is set to the shadow size and read back.
    PagingPool,
    /// The pages that the domain will own are set aside for it.
    ClaimMemory,
    /// The store's and the console's event channels are allocated.
    EventChannels,
    /// The kernel is parsed.
    ParseImage,
    /// Memory is populated.
    Populate,
    /// The guest is given its e820.
    MemoryMap,
    /// Kernel, firmware and special pages go into the guest.
    LoadImage,
    /// Start info, `hvm_info` and the first vCPU.
    BootImage,
    /// The grant table is seeded.
    GrantTable,
    /// vCPU count, online map and APIC mode in `hvm_info`.
    HvmInfo,
    /// The rings' event channels as HVM parameters; their frames are checked.
    HvmParams,
    /// The CPUID policy is applied.
    CpuidPolicy,
    /// The paging pool is read back and restored where it shrank.
    CheckPagingPool,
    /// Keys in xenstore.
    Xenstore,
    /// xenstored learns of the domain.
    Introduce,
    /// What may be populated on demand is set.
    PodTarget,
    /// The balloon driver is told its target.
    BalloonTarget,
    /// The guest is given time to arrive there.
    WaitBalloon,
    /// A domain is measured.
    Inspect,
    /// QEMU is started.
    StartDeviceModel,
    /// QEMU gets ready.
    DeviceModel,
    /// The guest is allowed to run.
    Unpause,
    /// A foreground run waits for the guest to stop.
    WaitGuest,
    /// The domain and what belongs to it are removed.
    Destroy,
    /// What killed runs left is looked for, and removed.
    Cleanup,
}

impl Stage {
    /// The stable name in logs, events and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CheckInput => "check-input",
            Self::Connect => "connect",
            Self::CreateDomain => "create-domain",
            Self::WaitFreeMemory => "wait-free-memory",
            Self::PlatformParams => "platform-params",
            Self::MaxVcpus => "max-vcpus",
            Self::Scheduling => "scheduling",
            Self::SetMaxMemory => "set-max-memory",
            Self::PagingPool => "paging-pool",
            Self::ClaimMemory => "claim-memory",
            Self::EventChannels => "event-channels",
            Self::ParseImage => "parse-image",
            Self::Populate => "populate",
            Self::MemoryMap => "memory-map",
            Self::LoadImage => "load-image",
            Self::BootImage => "boot-image",
            Self::GrantTable => "grant-table",
            Self::HvmInfo => "hvm-info",
            Self::HvmParams => "hvm-params",
            Self::CpuidPolicy => "cpuid-policy",
            Self::CheckPagingPool => "check-paging-pool",
            Self::Xenstore => "xenstore",
            Self::Introduce => "introduce",
            Self::PodTarget => "pod-target",
            Self::BalloonTarget => "balloon-target",
            Self::WaitBalloon => "wait-balloon",
            Self::Inspect => "inspect",
            Self::StartDeviceModel => "start-device-model",
            Self::DeviceModel => "device-model",
            Self::Unpause => "unpause",
            Self::WaitGuest => "wait-guest",
            Self::Destroy => "destroy",
            Self::Cleanup => "cleanup",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
