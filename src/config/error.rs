//! Why settings make no guest.

use super::devices::error::DeviceSetError;
use super::devices::pci::PciSpecError;
use crate::memory::Kind;
use crate::xen::Altp2m;

/// Why settings make no guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A guest cannot have these PCI devices.
    #[error(transparent)]
    Pci(#[from] PciSpecError),
    /// A platform setting is not of the form KEY=VALUE.
    #[error("{0:?} is not KEY=VALUE")]
    NotKeyValue(String),
    /// There is no platform setting of this name.
    #[error("there is no platform setting {0}")]
    UnknownSetting(String),
    /// A platform setting that has a flag of its own.
    #[error("the platform setting {key} has a flag of its own, {flag}")]
    HasFlag {
        /// The setting.
        key: String,
        /// Its flag.
        flag: &'static str,
    },
    /// A platform setting cannot have this value.
    #[error("{name} is {value:?}: {reason}; it takes {takes}")]
    BadSetting {
        /// The setting: its key, or its node in xenstore.
        name: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// The values that the setting takes.
        takes: &'static str,
    },
    /// More vCPUs are online at the start than there are, or none.
    #[error("vcpu/current is {online}, but the guest has {vcpus} vCPUs: give 1 to {vcpus}")]
    OnlineVcpus {
        /// The vCPUs that are to be online.
        online: u32,
        /// The guest's vCPUs.
        vcpus: u32,
    },
    /// The affinity of a vCPU that the guest does not have.
    #[error("vcpu/{vcpu}/affinity: the guest has vCPUs 0 to {}", vcpus.saturating_sub(1))]
    AffinityOfVcpu {
        /// The vCPU.
        vcpu: u32,
        /// The guest's vCPUs.
        vcpus: u32,
    },
    /// A list of CPUs cannot be used on this host.
    #[error("vcpu/{vcpu}/affinity: {reason}")]
    CpuList {
        /// The vCPU.
        vcpu: u32,
        /// Why.
        reason: String,
    },
    /// The sockets would not be full.
    #[error("cores-per-socket is {cores}, which does not divide the {vcpus} vCPUs")]
    CoresPerSocket {
        /// The cores of each socket.
        cores: u32,
        /// The guest's vCPUs.
        vcpus: u32,
    },
    /// Xen has no nested virtualisation under populate on demand.
    #[error("a guest that is populated on demand cannot have nested virtualisation: let it start with all its memory")]
    NestedOnDemand,
    /// A guest that cannot have alternate memory maps.
    #[error("altp2m {mode}: {guests} cannot have alternate memory maps")]
    Altp2m {
        /// The mode that was asked for.
        mode: Altp2m,
        /// The guests that cannot have it.
        guests: &'static str,
    },
    /// More strings of an OEM than hvmloader reads.
    #[error("more than {0} SMBIOS strings are oem: hvmloader reads no more")]
    OemStrings(usize),
    /// Two ways to say which Hyper-V features the guest sees.
    #[error("viridian: words of xl's and viridian_… keys are given: give the words alone")]
    ViridianTwice,
    /// xl ignores its words for these guests.
    #[error("viridian: xl's words are for HVM guests, and this is a {0} guest; xl ignores them for others")]
    ViridianNotHvm(Kind),
    /// The guest cannot have these devices together.
    #[error(transparent)]
    Devices(#[from] DeviceSetError),
}
