//! Disks and CD drives: which backend serves one, and its nodes in xenstore.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::hotplug::{Hotplug, Script, ScriptClass, check_script, is_stock_block, script_path};
use super::xenbus::XenbusDevice;
use crate::config::devices::disk::{Disk, DiskBackend, DiskFormat};
use crate::error::device::DeviceError;
use crate::memory::Kind;
use crate::os::loop_device::{FilePart, part_of};
use crate::xen::DomId;

/// The script of a disk that has none of its own.
const BLOCK: &str = "block";

/// The image of a disk, opened.
#[derive(Debug)]
pub struct OpenImage {
    /// The name of the disk.
    pub vdev: String,
    /// Its path.
    pub path: PathBuf,
    /// The open file or block device.
    pub file: File,
    /// The number of the block device; `None`: it is a file.
    pub block_device: Option<u64>,
    /// The part of a file that it is: of itself, or of the file below a loop device. `None`: it is another block device.
    pub part: Option<FilePart>,
    /// The guest may write.
    pub writable: bool,
    /// The image may be in use elsewhere.
    pub shared: bool,
}

impl OpenImage {
    /// Whether two disks of one guest cannot have these images: they are one image, and one of them may write.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let same_device = self.block_device.is_some() && self.block_device == other.block_device;
        let same_file = self.part.as_ref().zip(other.part.as_ref()).is_some_and(|(one, other)| one.overlaps(other));
        (same_device || same_file) && (self.writable || other.writable) && !(self.shared && other.shared)
    }
}

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

/// Opens the image of a disk. `None`: there is no medium, or only a script or a driver domain can open it.
///
/// # Errors
/// [`DeviceError`] if it is no image.
pub fn open_image(disk: &Disk) -> Result<Option<OpenImage>, DeviceError> {
    let (Some(target), None, None) = (&disk.target, &disk.script, &disk.backend_domain) else { return Ok(None) };
    let (vdev, path) = (disk.vdev.name.clone(), PathBuf::from(target));
    let failed = |source| DeviceError::Open { vdev: vdev.clone(), path: path.clone(), source };
    // Other kinds of files could block the open or react to it.
    let kind = fs::metadata(&path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let is = if kind.is_dir() { "directory" } else { "special file" };
        return Err(DeviceError::NotADisk { vdev, path, is });
    }
    let mut file = OpenOptions::new().read(true).write(disk.writable).open(&path).map_err(failed)?;
    let status = file.metadata().map_err(failed)?;
    if size(&mut file).map_err(failed)? == 0 {
        return Err(DeviceError::EmptyDisk { vdev, path });
    }
    let block_device = status.file_type().is_block_device().then(|| status.rdev());
    let part = match block_device {
        Some(_) => part_of(&file),
        None => Some(FilePart { device: status.dev(), inode: status.ino(), bytes: 0..u64::MAX }),
    };
    let (writable, shared) = (disk.writable, disk.shared);
    Ok(Some(OpenImage { vdev, path, file, block_device, part, writable, shared }))
}

/// The size of a file or block device.
fn size(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(size)
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
        Server::Qemu => nodes.push(("params", format!("{}:{target}", qemu_format(disk.format)))),
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
        backend_nodes: nodes,
        frontend_nodes: frontend,
        frontend_fixed: Vec::new(),
    };
    let hotplug = match (server, image) {
        (Server::Qemu, _) => Hotplug::None,
        (Server::Kernel, _) if backend != DomId::DOM0 => Hotplug::DriverDomain,
        (Server::Kernel, Some(image)) if is_stock_block(&script) => Hotplug::Block(image),
        (Server::Kernel, _) => {
            check_script(&script).map_err(|source| DeviceError::NoScript {
                device: device.label(),
                script: script.clone(),
                source,
            })?;
            Hotplug::Script(Script { path: script, class: ScriptClass::Disk, gatewaydev: None })
        }
    };
    Ok((device, hotplug))
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
