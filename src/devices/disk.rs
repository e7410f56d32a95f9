//! Disks and CD drives: which backend serves one, and its nodes in xenstore.

use super::hotplug::{Hotplug, Script, ScriptClass, check_script, is_stock_block, script_path};
use super::image::OpenImage;
use super::xenbus::{self, XenbusDevice};
use crate::config::devices::disk::{Disk, DiskBackend, DiskFormat};
use crate::error::device::DeviceError;
use crate::memory::Kind;
use crate::xen::DomId;

/// The script of a disk that has none of its own.
const BLOCK: &str = "block";

/// The program that serves a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// blkback in dom0, or in a driver domain.
    Kernel,
    /// QEMU.
    Qemu,
}

/// The server of a disk: blkback for raw images and scripts, QEMU for all other formats (libxl__device_disk_set_backend,
/// tools/libs/light/libxl_device.c, Xen 4.17). QEMU serves the CD drives of HVM guests, so that their media can be changed.
#[must_use]
pub fn server(disk: &Disk, kind: Kind) -> Server {
    match disk.backend {
        Some(DiskBackend::Qdisk) => Server::Qemu,
        Some(_) => Server::Kernel,
        None if disk.cdrom && kind == Kind::Hvm => Server::Qemu,
        None if disk.script.is_some() || disk.backend_domain.is_some() || disk.format == DiskFormat::Raw => {
            Server::Kernel
        }
        None => Server::Qemu,
    }
}

/// The device in xenstore (tools/libs/light/libxl_disk.c, device_disk_add, Xen 4.17) and how it is plugged.
///
/// # Errors
/// [`DeviceError::NoScript`].
pub fn device(
    disk: &Disk,
    kind: Kind,
    backend: DomId,
    image: Option<OpenImage>,
) -> Result<(XenbusDevice, Hotplug), DeviceError> {
    let server = server(disk, kind);
    let target = disk.target.as_deref().unwrap_or_default();
    let script = script_path(disk.script.as_deref().unwrap_or(BLOCK));
    let mut nodes = Vec::new();
    match server {
        Server::Kernel => {
            nodes.push(("params", target.to_owned()));
            nodes.push(("script", script.display().to_string()));
        }
        Server::Qemu => nodes.push(("params", params(disk))),
    }
    let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
    nodes.extend([
        ("removable", flag(disk.cdrom)),
        ("bootable", flag(true)),
        ("dev", disk.vdev.name.clone()),
        ("type", if server == Server::Kernel { "phy" } else { "qdisk" }.to_owned()),
        ("mode", if disk.writable { "w" } else { "r" }.to_owned()),
        ("device-type", device_type(disk).to_owned()),
    ]);
    if disk.direct_io_safe {
        nodes.push(("direct-io-safe", flag(true)));
    }
    nodes.push(("discard-enable", flag(disk.discard.unwrap_or(disk.writable))));
    nodes.push(("specification", "xen".to_owned()));
    let mut frontend = vec![
        ("virtual-device", disk.vdev.number.to_string()),
        ("device-type", device_type(disk).to_owned()),
        ("trusted", flag(disk.trusted.unwrap_or(true))),
    ];
    if kind == Kind::Pv {
        frontend.push(("protocol", "x86_64-abi".to_owned()));
    }
    let device = XenbusDevice {
        kind: "vbd",
        backend_kind: if server == Server::Kernel { "vbd" } else { "qdisk" },
        backend,
        devid: disk.vdev.number,
        backend_nodes: xenbus::nodes(nodes),
        frontend_nodes: xenbus::nodes(frontend),
        frontend_fixed: Vec::new(),
    };
    let hotplug = match (server, image) {
        (Server::Qemu, _) => Hotplug::None,
        (Server::Kernel, _) if backend != DomId::DOM0 => Hotplug::WaitOnly,
        (Server::Kernel, Some(image)) if is_stock_block(&script) => Hotplug::Block(image),
        (Server::Kernel, _) => {
            check_script(&script).map_err(|source| DeviceError::NoScript {
                device: device.label(),
                script: script.clone(),
                source,
            })?;
            Hotplug::Script(Script { path: script, class: ScriptClass::Disk, gatewaydev: None, tap: false })
        }
    };
    Ok((device, hotplug))
}

/// The image of a disk that QEMU serves, as `params` has it: the format and the path.
#[must_use]
pub fn params(disk: &Disk) -> String {
    format!("{}:{}", qemu_format(disk.format), disk.target.as_deref().unwrap_or_default())
}

fn device_type(disk: &Disk) -> &'static str {
    if disk.cdrom { "cdrom" } else { "disk" }
}

/// The format as QEMU's backend names it in `params` (libxl__device_disk_string_of_format).
fn qemu_format(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "aio",
        DiskFormat::Qcow => "qcow",
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Vhd => "vhd",
        DiskFormat::Qed => "qed",
    }
}
