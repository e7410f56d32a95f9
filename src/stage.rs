//! The steps of the procedure.

use std::fmt;

/// The steps of the procedure, in the order in which they happen. The log, the errors and the documentation use the same
/// names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Settings and files are checked; Xen is not touched yet.
    CheckInput,
    /// Handles to libxenctrl and xenstored are opened.
    Connect,
    /// The empty domain is created, or the given one checked.
    CreateDomain,
    /// The run waits until the host has the footprint free.
    WaitFreeMemory,
    /// The vCPUs are allocated.
    MaxVcpus,
    /// Timers, clocks and Hyper-V enlightenments are set.
    PlatformParams,
    /// The affinity of the vCPUs and the domain's CPU share are set.
    Scheduling,
    /// The domain's memory limit is set to xen max.
    SetMaxMemory,
    /// The paging pool is set to the shadow size and read back.
    PagingPool,
    /// The pages that the domain will own are claimed.
    ClaimMemory,
    /// The store's and the console's event channels are allocated.
    EventChannels,
    /// The kernel is parsed.
    ParseImage,
    /// QEMU is started.
    StartDeviceModel,
    /// Memory is populated.
    Populate,
    /// The guest's e820 is set.
    MemoryMap,
    /// Kernel, firmware and special pages are loaded into the guest.
    LoadImage,
    /// Start info, `hvm_info` and the first vCPU are set up.
    BootImage,
    /// The grant table is seeded.
    GrantTable,
    /// vCPU count, online map and APIC mode are written to `hvm_info`.
    HvmInfo,
    /// The event channels of the rings are set as HVM parameters, and the frames of the rings checked.
    HvmParams,
    /// The CPUID policy is applied.
    CpuidPolicy,
    /// The paging pool is read back, and restored if it shrank.
    CheckPagingPool,
    /// The xenstore keys are written.
    Xenstore,
    /// The domain is introduced to xenstored.
    Introduce,
    /// The domain gets its I/O ports, interrupts and I/O memory of the host.
    HostAccess,
    /// Devices are attached: their nodes are written, and their backends are ready.
    Devices,
    /// The PoD target is set.
    PodTarget,
    /// The target of the balloon driver is written.
    BalloonTarget,
    /// The run waits until the guest has reached its target.
    WaitBalloon,
    /// The run waits until the guest has connected a device, or given it back.
    WaitDevice,
    /// A device is taken away from a guest.
    RemoveDevice,
    /// The medium of a CD drive is changed.
    ChangeMedium,
    /// Xen is asked for the page counts of a domain.
    Inspect,
    /// The run waits until QEMU is ready.
    DeviceModel,
    /// The guest's configuration is written for libxl.
    Userdata,
    /// The guest is unpaused.
    Unpause,
    /// A foreground run waits for the guest to stop.
    WaitGuest,
    /// The guest suspends itself, or is stopped, and its QEMU's state is taken.
    Suspend,
    /// The two sides of a migration tell each other how far they are.
    HandOver,
    /// The state of a guest is written to a file or to the other side.
    SaveMemory,
    /// The state of a guest is read from a file or from the other side.
    RestoreMemory,
    /// A suspended guest runs on.
    Resume,
    /// The domain and what belongs to it are removed.
    Destroy,
    /// Cleanup finds what killed runs left, and removes it.
    Cleanup,
}

impl Stage {
    /// Every step, in order.
    pub const ALL: [Self; 44] = [
        Self::CheckInput,
        Self::Connect,
        Self::CreateDomain,
        Self::WaitFreeMemory,
        Self::MaxVcpus,
        Self::PlatformParams,
        Self::Scheduling,
        Self::SetMaxMemory,
        Self::PagingPool,
        Self::ClaimMemory,
        Self::EventChannels,
        Self::ParseImage,
        Self::StartDeviceModel,
        Self::Populate,
        Self::MemoryMap,
        Self::LoadImage,
        Self::BootImage,
        Self::GrantTable,
        Self::HvmInfo,
        Self::HvmParams,
        Self::CpuidPolicy,
        Self::CheckPagingPool,
        Self::Xenstore,
        Self::Introduce,
        Self::HostAccess,
        Self::Devices,
        Self::PodTarget,
        Self::BalloonTarget,
        Self::WaitBalloon,
        Self::WaitDevice,
        Self::RemoveDevice,
        Self::ChangeMedium,
        Self::Inspect,
        Self::DeviceModel,
        Self::Userdata,
        Self::Unpause,
        Self::WaitGuest,
        Self::Suspend,
        Self::HandOver,
        Self::SaveMemory,
        Self::RestoreMemory,
        Self::Resume,
        Self::Destroy,
        Self::Cleanup,
    ];

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
            Self::HostAccess => "host-access",
            Self::Devices => "devices",
            Self::PodTarget => "pod-target",
            Self::BalloonTarget => "balloon-target",
            Self::WaitBalloon => "wait-balloon",
            Self::WaitDevice => "wait-device",
            Self::RemoveDevice => "remove-device",
            Self::ChangeMedium => "change-medium",
            Self::Inspect => "inspect",
            Self::StartDeviceModel => "start-device-model",
            Self::DeviceModel => "device-model",
            Self::Userdata => "userdata",
            Self::Unpause => "unpause",
            Self::WaitGuest => "wait-guest",
            Self::Suspend => "suspend",
            Self::HandOver => "hand-over",
            Self::SaveMemory => "save-memory",
            Self::RestoreMemory => "restore-memory",
            Self::Resume => "resume",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/interface.md has the steps of `create` in order, and the other steps after them.
    #[test]
    fn the_interface_documents_this_order() {
        let page = include_str!("../docs/interface.md");
        let section = page.split_once("## Stages").expect("the section").1.split("\n## ").next().expect("its text");
        let words = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let paragraph = section.split("\n\n").nth(2).expect("the list");
        let mut of_create = words(paragraph);
        // The directories come first, and the keys at the end.
        let first = of_create.iter().position(|word| word == "xenstore").expect("the directories");
        of_create.remove(first);
        let all: Vec<String> = Stage::ALL.iter().map(|stage| stage.name().to_owned()).collect();
        let known: Vec<String> = all.iter().filter(|name| of_create.contains(name)).cloned().collect();
        assert_eq!(of_create, known);
        let documented = words(section);
        for name in &all {
            assert!(documented.contains(name), "{name} is not documented");
        }
    }
}
