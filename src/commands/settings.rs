//! From flags to what is to be done: every check that needs no Xen.

use uuid::Uuid;

use crate::args::{BuildArgs, CreateArgs, GuestArgs, MemoryArgs};
use crate::config::{Build, Create, DeviceModelConfig, Guest, read_firmware, read_kernel, resolve_device_model};
use crate::device_model::is_option;
use crate::error::Error;
use crate::memory::{Kib, Kind, Plan, Request};
use crate::xen::{DomId, EventPort};

/// The plan of these flags; `device_model` tells whether QEMU will add its video RAM.
///
/// # Errors
/// Where the numbers make no guest.
pub(super) fn plan(arguments: &MemoryArgs, device_model: bool) -> Result<Plan, Error> {
    let bytes = |hole: Kib| {
        let beyond = || Error::BadConfig(format!("--mmio-hole of {} KiB is beyond any address", hole.get()));
        hole.to_bytes().ok_or_else(beyond)
    };
    let mmio_hole = arguments.mmio_hole.map(bytes).transpose()?;
    Ok(Plan::new(&Request {
        kind: arguments.kind,
        model: arguments.model,
        target: arguments.memory,
        static_max: arguments.maxmem,
        video: arguments.video,
        vcpus: arguments.vcpus,
        shadow_multiplier: arguments.shadow_multiplier,
        mmio_hole,
        device_model,
        passthrough: arguments.passthrough,
        shim: arguments.shim,
    })?)
}

fn guest(arguments: &GuestArgs, device_model: bool) -> Result<Guest, Error> {
    let plan = plan(&arguments.memory, device_model)?;
    let kind = plan.request.kind;
    if kind != Kind::Hvm {
        return Err(Error::BadConfig(format!(
            "a {kind} guest can be planned, but not be built yet: give --kind hvm, or leave it out"
        )));
    }
    let kernel = read_kernel(arguments.kernel.as_deref())?;
    let firmware = read_firmware(&arguments.firmware, plan.layout.lowmem_end)?;
    Ok(Guest { plan, kernel, firmware_kind: arguments.firmware.kind, firmware, wait_memory: arguments.wait_memory })
}

/// Checks the flags of `create` and reads the files.
///
/// # Errors
/// Where a setting or a file is not usable.
pub(super) fn create(arguments: &CreateArgs) -> Result<Create, Error> {
    let device_model = resolve_device_model(arguments.device_model.as_deref())?;
    if device_model.is_none() && !arguments.dm_arg.is_empty() {
        return Err(Error::BadConfig("--dm-arg makes no sense with --device-model none".to_owned()));
    }
    if arguments.dm_arg.iter().any(|argument| is_option(argument, "daemonize")) {
        return Err(Error::BadConfig(
            "--dm-arg -daemonize would hide QEMU from dombuild; QEMU stays without it as well".to_owned(),
        ));
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
    Ok(Create {
        name,
        uuid: arguments.uuid.unwrap_or_else(Uuid::new_v4),
        guest: guest(&arguments.guest, device_model.is_some())?,
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

/// Checks the flags of `build` and reads the files.
///
/// # Errors
/// Where a setting or a file is not usable.
pub(super) fn build(arguments: &BuildArgs) -> Result<Build, Error> {
    let domid = DomId::new(arguments.domid)
        .ok_or_else(|| Error::BadConfig(format!("--domid {} is no guest's number", arguments.domid)))?;
    let ports = arguments.store_port.zip(arguments.console_port);
    if ports.is_some_and(|(store, console)| store == console) {
        return Err(Error::BadConfig("--store-port and --console-port must differ".to_owned()));
    }
    Ok(Build {
        domid,
        guest: guest(&arguments.guest, true)?,
        ports: ports.map(|(store, console)| (EventPort(store), EventPort(console))),
    })
}
