//! Converts the flags of an HVM guest's emulated machine.

use std::fs::File;

use crate::cli::args::boot::BootArgs;
use crate::cli::args::devices::VirtualDeviceArgs;
use crate::cli::args::memory::MemoryArgs;
use crate::cli::args::qemu::{QemuArgs, Switch};
use crate::config::devices::machine::{DirectKernel, DiskController, GraphicsCard, Machine};
use crate::error::Error;
use crate::memory::{Kib, Kind};
use crate::payload::error::FileError;
use crate::qemu::command_line::is_option;

/// No serial port.
const NO_PORT: &str = "none";

/// Gives the graphics card its usual memory, if `--video` does not say it.
pub(crate) fn complete_video(memory: &mut MemoryArgs, devices: &VirtualDeviceArgs) {
    if memory.kind == Kind::Hvm && memory.video.is_none() {
        memory.video = devices.vga.map(GraphicsCard::usual_video);
    }
}

/// The machine of these flags, with the kernel that QEMU starts, which is taken out of `boot`. `video` is the memory of its
/// card, and `has_device_model` whether it has a QEMU.
///
/// # Errors
/// [`Error::BadConfig`] for flags that the guest cannot have; a kernel or ramdisk that cannot be read.
pub(crate) fn read(
    devices: &VirtualDeviceArgs,
    boot: &mut BootArgs,
    qemu: &QemuArgs,
    video: Kib,
    kind: Kind,
    has_device_model: bool,
) -> Result<Machine, Error> {
    let flags = [
        ("--vga", devices.vga.is_some()),
        ("--serial", !devices.serial.is_empty()),
        ("--boot", devices.boot.is_some()),
        ("--hdtype", devices.hdtype == DiskController::Ahci),
        ("--xen-platform-pci", devices.xen_platform_pci == Switch::Off),
    ];
    let given = flags.into_iter().find_map(|(flag, given)| given.then_some(flag));
    match given {
        Some(flag) if kind != Kind::Hvm => {
            return Err(Error::BadConfig(format!("{flag} is for --kind hvm; a {kind} guest has no emulated machine")));
        }
        Some(flag) if !has_device_model => {
            return Err(Error::BadConfig(format!("{flag} makes no sense without a device model")));
        }
        _ => {}
    }
    let graphics = match devices.vga {
        Some(GraphicsCard::None) if !video.is_zero() => {
            return Err(Error::BadConfig("--vga none has no memory: leave out --video".to_owned()));
        }
        None if video.is_zero() => GraphicsCard::None,
        Some(card) if video.is_zero() && card != GraphicsCard::None => {
            return Err(Error::BadConfig("--video 0 is for no graphics card: leave it or --vga out".to_owned()));
        }
        card => card.unwrap_or_default(),
    };
    if graphics == GraphicsCard::Qxl && video < GraphicsCard::Qxl.usual_video() {
        return Err(Error::BadConfig("--vga qxl needs --video 128MiB or more".to_owned()));
    }
    let own_serial = qemu.dm_arg.iter().any(|argument| is_option(argument, "serial"));
    let serial = match devices.serial.as_slice() {
        [] if own_serial => Vec::new(),
        [] => Machine::default().serial,
        [only] if only == NO_PORT => Vec::new(),
        ports if ports.iter().any(|port| port == NO_PORT) => {
            return Err(Error::BadConfig("--serial none is for no serial port: give it alone".to_owned()));
        }
        ports => ports.to_vec(),
    };
    Ok(Machine {
        graphics,
        disks: devices.hdtype,
        boot: devices.boot.clone().unwrap_or_default(),
        serial,
        platform_device: devices.xen_platform_pci == Switch::On,
        kernel: if kind == Kind::Hvm && has_device_model { take_kernel(boot)? } else { None },
        online_vcpus: None,
    })
}

/// What QEMU needs of the host for the serial ports is what it needs for these arguments.
pub(crate) fn as_arguments(machine: &Machine) -> impl Iterator<Item = String> {
    machine.serial.iter().flat_map(|port| ["-serial".to_owned(), port.clone()])
}

/// The kernel, if there is one: QEMU opens the files before it drops its rights.
fn take_kernel(boot: &mut BootArgs) -> Result<Option<DirectKernel>, Error> {
    let Some(kernel) = boot.kernel.take() else { return Ok(None) };
    let ramdisk = boot.ramdisk.take();
    for (what, path) in [("kernel", Some(&kernel)), ("ramdisk", ramdisk.as_ref())] {
        let Some(path) = path else { continue };
        let unusable = |reason: String| FileError::Unusable { what, path: path.clone(), reason };
        let is_file = File::open(path).and_then(|file| file.metadata()).map(|metadata| metadata.is_file());
        if !is_file.map_err(|error| unusable(error.to_string()))? {
            return Err(unusable("it is no regular file".to_owned()).into());
        }
    }
    let cmdline = boot.cmdline.take().unwrap_or_default();
    if let Some(control) = cmdline.chars().find(|char| char.is_control()) {
        return Err(Error::BadConfig(format!(
            "--cmdline has the control character {control:?} in it; a kernel takes one line"
        )));
    }
    Ok(Some(DirectKernel { kernel, ramdisk, cmdline }))
}
