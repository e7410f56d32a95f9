//! A guest: its plan, its files and its settings.

use std::time::Duration;

use crate::config::autoballoon::Dom0Share;
use crate::config::placement::Placement;
use crate::config::platform::Platform;
use crate::memory::{Pages, Plan};
use crate::payload::boot_files::BootFiles;
use crate::xen::{ImageLimits, PciAddress};

/// A guest: its plan and the files that go into it.
#[derive(Debug)]
pub struct Guest {
    /// The memory.
    pub plan: Plan,
    /// Its boot files.
    pub boot_files: BootFiles,
    /// Everything else.
    pub platform: Platform,
    /// The NUMA nodes of the host that it is placed on.
    pub placement: Placement,
    /// The maximum sizes of its kernel and modules.
    pub limits: ImageLimits,
    /// The host's PCI devices for the guest, as far as they are known: its memory layout leaves space for them.
    pub devices: Vec<PciAddress>,
    /// How long to wait for free memory.
    pub wait_memory: Duration,
    /// The claim on the host's memory during the build.
    pub claim: Claim,
    /// Other toolstacks' build locks are taken, where there are any.
    pub build_locks: bool,
    /// The memory that it may take from dom0.
    pub dom0_share: Dom0Share,
}

/// How much memory a build claims before it takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// None. What other runs leave for it is the same.
    Nothing {
        /// What the device model adds is a part of that: the same run starts it.
        device_model: bool,
    },
    /// The pages that the domain owns once it is built; another toolstack provides its device model.
    Built,
    /// The same, plus the pages that the device model adds.
    Running,
}

impl Guest {
    /// A guest with the usual settings, for a domain whose device model another program starts: libxl's platform, memory
    /// claimed, build locks taken, up to 64 seconds for memory to become free, and nothing of dom0's.
    #[must_use]
    pub fn new(plan: Plan, boot_files: BootFiles) -> Self {
        Self {
            plan,
            boot_files,
            platform: Platform::usual(),
            placement: Placement::NONE,
            limits: ImageLimits::default(),
            devices: Vec::new(),
            wait_memory: Duration::from_secs(64),
            claim: Claim::Built,
            build_locks: true,
            dom0_share: Dom0Share::NOTHING,
        }
    }

    /// What the domain will own of what this run builds, and what was asked for QEMU's devices on top.
    #[must_use]
    pub fn final_pages(&self) -> Pages {
        match self.claim {
            Claim::Running | Claim::Nothing { device_model: true } => {
                let asked = self.plan.request.extra_internal.filter(|_| self.plan.device_model).unwrap_or_default();
                Pages(self.plan.owned_pages_running.0.saturating_add(asked.to_pages_floor().0))
            }
            Claim::Built | Claim::Nothing { device_model: false } => self.plan.owned_pages_built,
        }
    }

    /// Whether memory is claimed for it.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        !matches!(self.claim, Claim::Nothing { .. })
    }
}
