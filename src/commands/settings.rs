//! From flags to what is to be done: every check that needs no Xen.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::args::{BuildArgs, CreateArgs, GuestArgs, MemoryArgs};
use crate::config::{
    Build, Create, DeviceModelConfig, Guest, Payload, read_firmware, read_guest_kernel, read_hvmloader, read_ramdisk,
    resolve_device_model,
};
use crate::device_model::is_option;
use crate::error::Error;
use crate::memory::{Kind, Plan, Request};
use crate::xen::{DomId, EventPort};

/// What Linux' boot protocol takes at most, less the NUL (`COMMAND_LINE_SIZE`, arch/x86/include/asm/setup.h; PV: `MAX_GUEST_CMDLINE`,
/// xen/include/public/xen.h, is 1024 with it).
const LONGEST_CMDLINE: usize = 1023;

/// The plan of these flags; `device_model` tells whether QEMU will add its video RAM.
///
/// # Errors
/// Where the numbers make no guest.
pub(super) fn plan(arguments: &MemoryArgs, device_model: bool) -> Result<Plan, Error> {
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
        kind: arguments.kind,
    })?)
}

fn guest(arguments: &GuestArgs, device_model: bool) -> Result<Guest, Error> {
    let plan = plan(&arguments.memory, device_model)?;
    let payload = match plan.request.kind {
        Kind::Hvm => firmware(arguments, &plan)?,
        Kind::Pvh | Kind::Pv => kernel(arguments, plan.request.kind)?,
    };
    Ok(Guest { plan, payload, wait_memory: arguments.wait_memory })
}

/// What an HVM guest starts with.
fn firmware(arguments: &GuestArgs, plan: &Plan) -> Result<Payload, Error> {
    for (flag, given) in [("--ramdisk", arguments.ramdisk.is_some()), ("--cmdline", arguments.cmdline.is_some())] {
        if given {
            return Err(Error::BadConfig(format!(
                "{flag} is for kernels that Xen starts itself: give it with --kind pvh or --kind pv"
            )));
        }
    }
    let hvmloader = read_hvmloader(arguments.kernel.as_deref())?;
    let choice = arguments.firmware.clone().unwrap_or_default();
    let firmware = read_firmware(&choice, plan.layout.lowmem_end)?;
    Ok(Payload::Firmware { hvmloader, kind: choice.kind, firmware })
}

/// What a PVH or PV guest starts with.
fn kernel(arguments: &GuestArgs, kind: Kind) -> Result<Payload, Error> {
    if arguments.firmware.is_some() {
        return Err(Error::BadConfig(format!("--firmware is for --kind hvm; a {kind} guest starts its --kernel")));
    }
    let Some(path) = &arguments.kernel else {
        return Err(Error::BadConfig(format!("--kind {kind} needs the guest's own kernel: give --kernel PATH")));
    };
    let text = arguments.cmdline.clone().unwrap_or_default();
    if text.len() > LONGEST_CMDLINE {
        return Err(Error::BadConfig(format!(
            "a --cmdline of {} bytes is longer than the {LONGEST_CMDLINE} that every kernel takes",
            text.len()
        )));
    }
    let cmdline = CString::new(text).map_err(|_| Error::BadConfig("--cmdline has a NUL byte in it".to_owned()))?;
    let ramdisk = arguments.ramdisk.as_deref().map(|path| Ok::<_, Error>((read_ramdisk(path)?, path.to_owned())));
    Ok(Payload::Kernel {
        kernel: read_guest_kernel(path)?,
        path: path.clone(),
        cmdline,
        ramdisk: ramdisk.transpose()?,
    })
}

/// The QEMU of the guest: an HVM guest has one unless told otherwise, the others have none.
fn device_model(arguments: &CreateArgs) -> Result<Option<PathBuf>, Error> {
    let (kind, chosen) = (arguments.guest.memory.kind, arguments.device_model.as_deref());
    match (kind, chosen) {
        (Kind::Hvm, _) => resolve_device_model(chosen),
        (Kind::Pvh | Kind::Pv, Some(path)) if path != Path::new("none") => {
            Err(Error::BadConfig(format!("--device-model is for --kind hvm; a {kind} guest has none")))
        }
        (Kind::Pvh | Kind::Pv, _) => Ok(None),
    }
}

/// Checks the flags of `create` and reads the files.
///
/// # Errors
/// Where a setting or a file is not usable.
pub(super) fn create(arguments: &CreateArgs) -> Result<Create, Error> {
    let device_model = device_model(arguments)?;
    if device_model.is_none() && !arguments.dm_arg.is_empty() {
        return Err(Error::BadConfig("--dm-arg makes no sense without a device model".to_owned()));
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
        guest: guest(&arguments.guest, arguments.guest.memory.kind == Kind::Hvm)?,
        ports: ports.map(|(store, console)| (EventPort(store), EventPort(console))),
    })
}
