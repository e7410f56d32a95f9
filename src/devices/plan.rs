//! The devices of a guest as they will be attached: every check of the host happens here, before a domain exists.

use std::path::Path;

use super::disk::Server;
use super::hotplug::Hotplug;
use super::image::{OpenImage, open_image};
use super::pci_give::PlannedPci;
use super::sharing::user_of;
use super::xenbus::{XenbusDevice, kernel_driver};
use super::{channel, disk, external, framebuffer, nic, share};
use crate::config::devices::disk::Disk;
use crate::config::devices::machine::DiskController;
use crate::config::devices::nic::Nic;
use crate::config::devices::set::Devices;
use crate::config::devices::virtual_device::DiskClass;
use crate::domain::find::find_by_name;
use crate::error::Error;
use crate::error::device::{DeviceError, DiskUser};
use crate::memory::Kind;
use crate::qemu::devices::{DriveImage, DrivePlace, QemuDevice};
use crate::xen::{DomId, Interface, Store};

/// A device, and what dom0 does for it.
#[derive(Debug)]
pub struct PlannedDevice {
    /// The device in xenstore.
    pub device: XenbusDevice,
    /// What dom0 does for it.
    pub hotplug: Hotplug,
}

/// The devices of a guest.
#[derive(Debug, Default)]
pub struct PlannedDevices {
    /// The paravirtual devices.
    pub paravirtual: Vec<PlannedDevice>,
    /// Emulated drives without a paravirtual twin, which libxl lists.
    pub emulated_only: Vec<XenbusDevice>,
    /// QEMU's parts of them.
    pub qemu: Vec<QemuDevice>,
    /// PCI devices of the host.
    pub pci: Vec<PlannedPci>,
}

impl PlannedDevices {
    /// The devices in one line; `None`: there are none.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let labels: Vec<_> = self.paravirtual.iter().map(|planned| planned.device.label()).collect();
        let mut parts = if labels.is_empty() { Vec::new() } else { vec![labels.join(", ")] };
        let emulated = self.qemu.iter().filter(|device| device.is_emulated()).count();
        if emulated > 0 {
            parts.push(format!("{emulated} emulated"));
        }
        if self.qemu.iter().any(|device| matches!(device, QemuDevice::Vnc(_))) {
            parts.push("VNC".to_owned());
        }
        parts.extend(self.pci.iter().map(|planned| format!("PCI {}", planned.device.address)));
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The QEMU of a guest, as far as its devices depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestQemu {
    /// An HVM guest has no QEMU: nothing is emulated.
    Absent,
    /// The QEMU of an HVM guest that has no rights on xenstore: it emulates devices and cannot serve paravirtual ones.
    Confined,
    /// A QEMU that serves paravirtual devices.
    Serves,
}

/// Opens the images, finds bridges, scripts and driver domains, and returns the devices of a guest.
///
/// # Errors
/// [`DeviceError`] for what the host lacks; an error of Xen or xenstored.
pub fn plan(
    xen: &Interface,
    store: &Store,
    devices: &Devices,
    kind: Kind,
    qemu: GuestQemu,
) -> Result<PlannedDevices, Error> {
    let mut planned = PlannedDevices::default();
    let mut images = Vec::new();
    for disk in &devices.disks {
        plan_disk(xen, store, (disk, devices), kind, qemu, &mut images, &mut planned)?;
    }
    for nic in &devices.nics {
        plan_nic(xen, store, nic, kind, qemu, &mut planned)?;
    }
    plan_served(devices, kind, qemu, &mut planned)?;
    plan_external(xen, store, devices, &mut planned)?;
    plan_emulated(devices, qemu, &mut planned)?;
    planned.qemu.sort_by_key(place_on_bus);
    Ok(planned)
}

/// The order of libxl's arguments for QEMU. QEMU gives the devices their places on the PCI bus in that order, and a guest that
/// is restored, by xl too, must find them there.
fn place_on_bus(device: &QemuDevice) -> u8 {
    match device {
        QemuDevice::Usb(_) => 0,
        QemuDevice::Sound(_) => 1,
        QemuDevice::Nic { .. } => 2,
        QemuDevice::Ahci => 3,
        _ => 4,
    }
}

fn plan_disk(
    xen: &Interface,
    store: &Store,
    (disk, devices): (&Disk, &Devices),
    kind: Kind,
    qemu: GuestQemu,
    images: &mut Vec<(String, OpenImage)>,
    planned: &mut PlannedDevices,
) -> Result<(), Error> {
    let label = format!("vbd {}", disk.vdev.number);
    let backend = backend_domain(xen, store, disk.backend_domain.as_deref(), &label)?;
    let mut image = open_image(disk)?;
    if let Some(image) = &mut image {
        image.migrates_from = devices.migrates_from;
        let twice = images.iter().find(|(_, other)| image.conflicts_with(other));
        let user = match twice {
            Some((other, _)) => Some(DiskUser::SameGuest(other.clone())),
            None => user_of(store, image, &label)?,
        };
        if let Some(user) = user {
            return Err(DeviceError::InUse { vdev: image.vdev.clone(), path: image.path.clone(), user }.into());
        }
        images.push((label, image.try_clone()?));
    }
    let emulated = if kind == Kind::Hvm && qemu != GuestQemu::Absent {
        emulated_disk(disk, devices.machine.disks, image.as_ref())?
    } else {
        None
    };
    let is_emulated = emulated.is_some();
    if let Some(image) = &mut image {
        image.emulated = is_emulated;
    }
    planned.qemu.extend(emulated);
    // A drive without a medium is QEMU's alone: QEMU 7.2 ends when a medium comes into a drive with nodes.
    let empty = disk.target.is_none() && disk.script.is_none();
    if empty || (disk::server(disk, kind) == Server::Qemu && qemu != GuestQemu::Serves) {
        // The emulated drive has no paravirtual twin: nothing would serve it.
        if !is_emulated {
            return Err(DeviceError::NoQemu { device: format!("disk {}", disk.vdev), is_disk: true }.into());
        }
        let (device, _) = disk::device(disk, kind, backend, None)?;
        planned.emulated_only.push(device);
        return Ok(());
    }
    let (device, hotplug) = disk::device(disk, kind, backend, image)?;
    check_driver(&device)?;
    planned.paravirtual.push(PlannedDevice { device, hotplug });
    Ok(())
}

/// The emulated twin of a disk, if QEMU can open its image and has a place for it.
fn emulated_disk(
    disk: &Disk,
    controller: DiskController,
    image: Option<&OpenImage>,
) -> Result<Option<QemuDevice>, DeviceError> {
    let image = match image {
        Some(image) => {
            let file = image.file.try_clone().map_err(|source| DeviceError::Open {
                vdev: image.vdev.clone(),
                path: image.path.clone(),
                source,
            })?;
            Some(DriveImage {
                path: image.path.clone(),
                file,
                block_device: image.block_device.is_some(),
                format: disk.format,
            })
        }
        None => None,
    };
    let ahci_port = disk.vdev.ahci_port().filter(|_| controller == DiskController::Ahci);
    Ok(match (disk.vdev.ide_place(), image) {
        (Some(ide), image) if disk.cdrom => Some(QemuDevice::Cdrom { ide, number: disk.vdev.number, image }),
        (Some(ide), Some(image)) => {
            let place = ahci_port.map_or(DrivePlace::Ide(ide), DrivePlace::Ahci);
            Some(QemuDevice::Disk { place, image, writable: disk.writable })
        }
        (None, Some(image)) if disk.vdev.class == DiskClass::Scsi => {
            Some(QemuDevice::Disk { place: DrivePlace::Scsi(disk.vdev.disk), image, writable: disk.writable })
        }
        // xvde and xvdf have no place on IDE.
        (None, Some(image)) => {
            ahci_port.map(|port| QemuDevice::Disk { place: DrivePlace::Ahci(port), image, writable: disk.writable })
        }
        _ => None,
    })
}

fn plan_nic(
    xen: &Interface,
    store: &Store,
    nic: &Nic,
    kind: Kind,
    qemu: GuestQemu,
    planned: &mut PlannedDevices,
) -> Result<(), Error> {
    // `Devices::complete` has given the card both.
    let (Some(devid), Some(mac)) = (nic.devid, nic.mac) else {
        return Err(Error::Internal("a network card has no number or no address".to_owned()));
    };
    let backend = backend_domain(xen, store, nic.backend_domain.as_deref(), &format!("vif {devid}"))?;
    let has_tap = nic::is_emulated(nic, kind) && qemu != GuestQemu::Absent && backend == DomId::DOM0;
    let (device, hotplug) = nic::device(nic, devid, mac, kind, backend, has_tap)?;
    check_driver(&device)?;
    planned.paravirtual.push(PlannedDevice { device, hotplug });
    if has_tap {
        planned.qemu.push(QemuDevice::Nic { devid, mac, model: nic.model.clone() });
    }
    Ok(())
}

/// The devices that only QEMU serves.
fn plan_served(
    devices: &Devices,
    kind: Kind,
    qemu: GuestQemu,
    planned: &mut PlannedDevices,
) -> Result<(), DeviceError> {
    let mut serve = |name: String, device: XenbusDevice| {
        if qemu != GuestQemu::Serves {
            return Err(DeviceError::NoQemu { device: name, is_disk: false });
        }
        planned.paravirtual.push(PlannedDevice { device, hotplug: Hotplug::None });
        Ok(())
    };
    for (devid, share) in (0..).zip(&devices.shares) {
        serve(format!("share {}", share.tag), share::device(devid, share)?)?;
    }
    for (devid, channel) in (1..).zip(&devices.channels) {
        serve(format!("channel {}", channel.name), channel::device(devid, channel)?)?;
        planned.qemu.push(QemuDevice::Channel { devid, connection: channel.connection.clone() });
    }
    if let Some(framebuffer) = &devices.framebuffer {
        match kind {
            Kind::Pv | Kind::Pvh => {
                for device in framebuffer::devices(framebuffer) {
                    serve(device.label(), device)?;
                }
            }
            // VNC shows the graphics card.
            Kind::Hvm if qemu == GuestQemu::Absent => {
                return Err(DeviceError::NoQemu { device: "VNC".to_owned(), is_disk: false });
            }
            Kind::Hvm => {}
        }
        planned.qemu.push(QemuDevice::Vnc(framebuffer::with_free_display(framebuffer)?));
    }
    Ok(())
}

/// The devices that another domain serves, or a program in dom0.
fn plan_external(xen: &Interface, store: &Store, devices: &Devices, planned: &mut PlannedDevices) -> Result<(), Error> {
    for (devid, external) in external::numbered(devices) {
        let kind = external.kind();
        let backend = backend_domain(xen, store, external.backend_domain(), &format!("{kind} {devid}"))?;
        let device = external.device(devid, backend);
        planned.paravirtual.push(PlannedDevice { device, hotplug: external.hotplug() });
    }
    Ok(())
}

/// The devices that only QEMU has.
fn plan_emulated(devices: &Devices, qemu: GuestQemu, planned: &mut PlannedDevices) -> Result<(), DeviceError> {
    let ahci = (devices.machine.disks == DiskController::Ahci).then_some(("the AHCI controller", QemuDevice::Ahci));
    let usb = devices.usb.clone().map(|usb| ("USB", QemuDevice::Usb(usb)));
    let sound = devices.sound.map(|model| ("the sound card", QemuDevice::Sound(model)));
    for (name, device) in ahci.into_iter().chain(usb).chain(sound) {
        if qemu == GuestQemu::Absent {
            return Err(DeviceError::NoQemu { device: name.to_owned(), is_disk: false });
        }
        planned.qemu.push(device);
    }
    Ok(())
}

/// The domain that serves a device: dom0, or the one of this name or number.
fn backend_domain(xen: &Interface, store: &Store, name: Option<&str>, device: &str) -> Result<DomId, Error> {
    let Some(name) = name else { return Ok(DomId::DOM0) };
    let numbered = name.parse().ok().and_then(DomId::new);
    let found = match numbered {
        Some(domid) => xen.domain(domid)?.map(|domain| domain.domid),
        None => find_by_name(xen, &store.plain(), name)?,
    };
    found.ok_or_else(|| DeviceError::NoBackendDomain { device: device.to_owned(), name: name.to_owned() }.into())
}

/// Whether dom0's kernel has the driver of a backend that it serves.
fn check_driver(device: &XenbusDevice) -> Result<(), DeviceError> {
    let kind = device.backend_kind;
    match kernel_driver(kind).filter(|_| device.backend == DomId::DOM0) {
        Some(module) if !Path::new("/sys/bus/xen-backend/drivers").join(kind).exists() => {
            Err(DeviceError::NoBackendDriver { kind, module })
        }
        _ => Ok(()),
    }
}
