//! The devices of a guest as they will be attached: every check of the host happens here, before a domain exists.

use std::path::Path;

use super::hotplug::Hotplug;
use super::xenbus::XenbusDevice;
use super::{disk, nic};
use crate::config::devices::disk::Disk;
use crate::config::devices::nic::Nic;
use crate::config::devices::set::Devices;
use crate::domain::find::find_by_name;
use crate::error::Error;
use crate::error::device::DeviceError;
use crate::memory::Kind;
use crate::xen::{DomId, Interface, Store};

/// A device, and what dom0 does for it.
#[derive(Debug)]
pub struct PlannedDevice {
    /// The device in xenstore.
    pub device: XenbusDevice,
    /// What dom0 does for it.
    pub hotplug: Hotplug,
}

/// The drivers of dom0's kernel, by the class of the backend, and the modules that have them.
const DRIVERS: [(&str, &str); 2] = [("vbd", "xen-blkback"), ("vif", "xen-netback")];

/// Opens the images, finds bridges, scripts and driver domains, and returns the devices of a guest.
///
/// # Errors
/// [`DeviceError`] for what the host lacks; an error of Xen or xenstored.
pub fn plan(xen: &Interface, store: &Store, devices: &Devices, kind: Kind) -> Result<Vec<PlannedDevice>, Error> {
    let mut planned = Vec::new();
    for disk in &devices.disks {
        planned.extend(plan_disk(xen, store, disk, kind)?);
    }
    for nic in &devices.nics {
        planned.push(plan_nic(xen, store, nic, kind)?);
    }
    Ok(planned)
}

fn plan_disk(xen: &Interface, store: &Store, disk: &Disk, kind: Kind) -> Result<Option<PlannedDevice>, Error> {
    let label = format!("vbd {}", disk.vdev.number);
    let backend = backend_domain(xen, store, disk.backend_domain.as_deref(), &label)?;
    let image = disk::open_image(disk)?;
    if disk.target.is_none() && disk.script.is_none() {
        // A drive without a medium is QEMU's alone: QEMU 7.2 ends when a medium comes into a drive with nodes.
        return Ok(None);
    }
    let (device, hotplug) = disk::device(disk, kind, backend, image)?;
    check_driver(&device)?;
    Ok(Some(PlannedDevice { device, hotplug }))
}

fn plan_nic(xen: &Interface, store: &Store, nic: &Nic, kind: Kind) -> Result<PlannedDevice, Error> {
    // `Devices::complete` has given the card both.
    let (Some(devid), Some(mac)) = (nic.devid, nic.mac) else {
        return Err(Error::Internal("a network card has no number or no address".to_owned()));
    };
    let backend = backend_domain(xen, store, nic.backend_domain.as_deref(), &format!("vif {devid}"))?;
    let (device, hotplug) = nic::device(nic, devid, mac, kind, backend)?;
    check_driver(&device)?;
    Ok(PlannedDevice { device, hotplug })
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
    let driver = DRIVERS.iter().find(|(kind, _)| *kind == device.backend_kind && device.backend == DomId::DOM0);
    match driver {
        Some((kind, module)) if !Path::new("/sys/bus/xen-backend/drivers").join(kind).exists() => {
            Err(DeviceError::NoBackendDriver { kind, module })
        }
        _ => Ok(()),
    }
}
