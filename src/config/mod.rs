//! What the user asked for, typed and validated once, before Xen is touched.

mod files;
mod name;

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::args::{BuildArgs, CreateArgs, GuestArgs, MemoryArgs};
use crate::error::Error;
use crate::memory::{Plan, Request};
use crate::xen::{DomId, EventPort};

pub use files::{Candidates, FirmwareChoice, FirmwareKind, LOG_DIRECTORY, RUN_DIRECTORY};
pub use name::DomainName;

/// A guest: its plan and the files that go into it.
#[derive(Debug)]
pub struct Guest {
    /// The memory.
    pub plan: Plan,
    /// hvmloader's bytes.
    pub kernel: Vec<u8>,
    /// Which firmware hvmloader is to start.
    pub firmware_kind: FirmwareKind,
    /// The firmware's bytes.
    pub firmware: Vec<u8>,
    /// How long to wait for free memory.
    pub wait_memory: Duration,
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

/// The plan of these flags; `device_model` tells whether QEMU will add its video RAM.
///
/// # Errors
/// Where the numbers make no guest.
pub fn plan(arguments: &MemoryArgs, device_model: bool) -> Result<Plan, Error> {
    let hole = arguments.mmio_hole;
    let mmio_hole = hole
        .to_bytes()
        .ok_or_else(|| Error::BadConfig(format!("--mmio-hole of {} KiB is beyond any address", hole.get())))?;
    Ok(Plan::new(&Request {
        target: arguments.memory,
        static_max: arguments.maxmem,
        video: arguments.video,
        vcpus: arguments.vcpus,
        shadow_multiplier: arguments.shadow_multiplier,
        mmio_hole,
        device_model,
    })?)
}

impl Guest {
    fn from_args(arguments: &GuestArgs, device_model: bool) -> Result<Self, Error> {
        let plan = plan(&arguments.memory, device_model)?;
        let kernel = files::kernel(arguments.kernel.as_deref())?;
        let firmware = files::firmware(&arguments.firmware, plan.layout.lowmem_end)?;
        Ok(Self { plan, kernel, firmware_kind: arguments.firmware.kind, firmware, wait_memory: arguments.wait_memory })
    }
}

impl Create {
    /// Checks the flags and reads the files.
    ///
    /// # Errors
    /// Where a setting or a file is not usable.
    pub fn from_args(arguments: &CreateArgs) -> Result<Self, Error> {
        let device_model = files::device_model(arguments.device_model.as_deref())?;
        if device_model.is_none() && !arguments.dm_arg.is_empty() {
            return Err(Error::BadConfig("--dm-arg makes no sense with --device-model none".to_owned()));
        }
        let name = arguments
            .name
            .parse()
            .map_err(|reason| Error::BadConfig(format!("--name {:?} cannot be: {reason}", arguments.name)))?;
        if arguments.uuid.is_some_and(|uuid| uuid.is_nil()) {
            return Err(Error::BadConfig("the nil UUID belongs to dom0; give another, or none".to_owned()));
        }
        if arguments.event_channels < 16 {
            return Err(Error::BadConfig(format!(
                "--event-channels {} is too few for a guest to start; give at least 16",
                arguments.event_channels
            )));
        }
        Ok(Self {
            name,
            uuid: arguments.uuid.unwrap_or_else(Uuid::new_v4),
            guest: Guest::from_args(&arguments.guest, device_model.is_some())?,
            device_model: device_model.map(|path| DeviceModelConfig {
                path,
                arguments: arguments.dm_arg.clone(),
                timeout: arguments.dm_timeout,
            }),
            paused: arguments.paused,
            foreground: arguments.foreground,
            seclabel: arguments.seclabel.clone(),
            max_grant_frames: arguments.max_grant_frames,
            max_maptrack_frames: arguments.max_maptrack_frames,
            event_channels: arguments.event_channels,
            cpupool: arguments.cpupool,
        })
    }
}

impl Build {
    /// Checks the flags and reads the files.
    ///
    /// # Errors
    /// Where a setting or a file is not usable.
    pub fn from_args(arguments: &BuildArgs) -> Result<Self, Error> {
        let domid = DomId::new(arguments.domid)
            .ok_or_else(|| Error::BadConfig(format!("--domid {} is no guest's number", arguments.domid)))?;
        let ports = arguments.store_port.zip(arguments.console_port);
        if ports.is_some_and(|(store, console)| store == console) {
            return Err(Error::BadConfig("--store-port and --console-port must differ".to_owned()));
        }
        Ok(Self {
            domid,
            guest: Guest::from_args(&arguments.guest, true)?,
            ports: ports.map(|(store, console)| (EventPort(store), EventPort(console))),
        })
    }
}
