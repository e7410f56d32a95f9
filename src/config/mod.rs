//! What the user asked for, typed and validated once, before Xen is touched.

pub mod acpi_tables;
mod autoballoon;
mod cmdline;
pub mod confinement;
mod device_model_needs;
mod files;
mod kernel;
mod name;
pub mod pci;
pub mod platform;
mod room;
pub mod smbios;

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::error::Error;
use crate::memory::{Pages, Plan, Request};
use crate::xen::{DomId, EventPort, ImageLimits, Interface, Sealed};

pub use autoballoon::{Autoballoon, Dom0Share};
pub use cmdline::CmdlineOf;
pub use confinement::{RunAs, UserChoice};
pub use device_model_needs::Needs;
pub use files::{
    Candidates, FirmwareChoice, FirmwareKind, LOG_DIRECTORY, OPENXT_LOCK, RUN_DIRECTORY, RUNS_DIRECTORY, XL_LOCK,
    load_ramdisk, map_ramdisk, map_shim, map_shim_kernel, read_firmware, read_hvmloader, resolve_device_model,
};
use files::{RAMDISK, firmware_needs};
pub use kernel::{
    KERNELS_DIRECTORY, Keep, LARGEST_KERNEL, Packing, Unpacking, check_placement, is_32_bit, remove_dead_unpackers,
    unpack_main, unpack_words,
};
pub use name::DomainName;
pub use pci::PciAddress;
pub use platform::Platform;

/// A guest: its plan and the files that go into it.
#[derive(Debug)]
pub struct Guest {
    /// The memory.
    pub plan: Plan,
    /// What it starts with.
    pub payload: Payload,
    /// Everything else.
    pub platform: Platform,
    /// How large its kernel and modules may be.
    pub limits: ImageLimits,
    /// The host's PCI devices that it is to get, as far as they are known: its memory makes room for them.
    pub devices: Vec<PciAddress>,
    /// How long to wait for free memory.
    pub wait_memory: Duration,
    /// What is claimed of the host's memory while it is built.
    pub claim: Claim,
    /// Other toolstacks' build locks are taken, where there are any.
    pub build_locks: bool,
    /// What it may have of dom0's memory.
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
    /// What the domain owns once it is built; its device model is somebody else's.
    Built,
    /// That, and what the device model adds.
    Running,
}

impl Guest {
    /// What the domain will own of what this run builds, and what was asked for QEMU's devices on top.
    #[must_use]
    pub fn owned_in_the_end(&self) -> Pages {
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

    /// Asks Xen what the host reserves for the guest's devices, and plans the memory anew around that.
    ///
    /// # Errors
    /// Where Xen refuses to tell, or no such guest can be.
    pub fn ask_reserved(&mut self, xen: &Interface) -> Result<(), Error> {
        let reserved = pci::reserved_for(xen, &self.devices)?;
        if reserved.is_empty() {
            return Ok(());
        }
        self.plan = Plan::new(&Request { reserved, ..self.plan.request.clone() })?;
        if let Payload::Firmware { firmware, .. } = &self.payload {
            let (needed, lowmem_end) = (firmware_needs(firmware.len()), self.plan.layout.lowmem_end);
            if lowmem_end < needed {
                return Err(Error::BadConfig(format!(
                    "what the host reserves for the PCI devices leaves the guest {lowmem_end} of low memory, and its \
                     firmware needs {needed}: leave a device out of --pci"
                )));
            }
        }
        Ok(())
    }
}

/// What a guest starts with, file by file.
#[derive(Debug)]
pub enum Payload {
    /// HVM: hvmloader, which starts a firmware.
    Firmware {
        /// hvmloader's bytes.
        hvmloader: Vec<u8>,
        /// Which firmware hvmloader is to start.
        kind: FirmwareKind,
        /// The firmware's bytes.
        firmware: Vec<u8>,
        /// What hvmloader puts into the guest's own tables.
        modules: FirmwareModules,
    },
    /// PVH and PV: a kernel.
    Kernel {
        /// The kernel, as the plain ELF file that it was unpacked to; or the PV shim.
        kernel: Module,
        /// What it finds beside itself: an initial ramdisk; the PV shim finds a kernel first.
        modules: Vec<Module>,
        /// PV: the features that it must have, in words of its ELF notes.
        features: CString,
        /// PV: bits for its start info (`SIF_*`).
        start_flags: u32,
    },
}

/// What hvmloader is handed for the tables that it makes, checked; of HVM guests only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirmwareModules {
    /// SMBIOS structures, in hvmloader's format.
    pub smbios: Option<Vec<u8>>,
    /// ACPI tables, one after the other.
    pub acpi: Option<Vec<u8>>,
}

/// A file that goes into a guest.
#[derive(Debug)]
pub struct Module {
    /// Its bytes: what was made of a kernel, or the file itself.
    pub data: Sealed,
    /// Where they were read from.
    pub path: PathBuf,
    /// The command line that goes with it.
    pub cmdline: CString,
}

/// `create`, ready to be carried out.
#[derive(Debug)]
pub struct Create {
    /// The guest's name.
    pub name: DomainName,
    /// Its UUID.
    pub uuid: Uuid,
    /// What goes into it.
    pub guest: Guest,
    /// QEMU, where it is to have one.
    pub device_model: Option<DeviceModelConfig>,
    /// It stays paused.
    pub paused: bool,
    /// The run lasts as long as the guest.
    pub foreground: bool,
    /// Its FLASK label.
    pub seclabel: Option<String>,
    /// Grant table frames.
    pub max_grant_frames: Option<i32>,
    /// Maptrack frames.
    pub max_maptrack_frames: Option<i32>,
    /// Highest event channel port.
    pub event_channels: u32,
    /// CPU pool.
    pub cpupool: u32,
}

/// QEMU: which one, with what, and how long it may take.
#[derive(Debug)]
pub struct DeviceModelConfig {
    /// The program.
    pub path: PathBuf,
    /// The user's own arguments.
    pub arguments: Vec<String>,
    /// How long it may take to get ready.
    pub timeout: Duration,
    /// As whom it runs.
    pub run_as: RunAs,
    /// What it needs of the host, where it does not run as root.
    pub needs: Needs,
    /// It runs under a filter of system calls, where it does not run as root.
    pub filter: bool,
}

/// `build`, ready to be carried out.
#[derive(Debug)]
pub struct Build {
    /// The given domain.
    pub domid: DomId,
    /// What goes into it.
    pub guest: Guest,
    /// Store and console port, where the caller has them already.
    pub ports: Option<(EventPort, EventPort)>,
}
