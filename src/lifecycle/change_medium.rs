//! Changes the medium of an emulated CD drive while its guest runs, by QEMU's monitor.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::attach_device::{check_alive, record};
use crate::config::devices::disk::Disk;
use crate::config::devices::virtual_device::VirtualDevice;
use crate::context::Context;
use crate::devices::disk::params;
use crate::devices::image::{OpenImage, open_image};
use crate::devices::sharing::user_of;
use crate::domain::libxl_devices;
use crate::domain::paths::XenstorePaths;
use crate::error::device::{DeviceError, GuestPart};
use crate::error::monitor::MonitorError;
use crate::error::{AtStage, Error, Failure};
use crate::qemu::command_line::socket;
use crate::qemu::devices::drive_id;
use crate::qemu::monitor::Monitor;
use crate::stage::Stage;
use crate::xen::{DomainInfo, Store};

/// The interval at which the guest's tray is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Whether the guest is asked to give its medium back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eject {
    /// The guest opens the drive within this time, where it has locked it.
    Asked(Duration),
    /// The medium goes at once.
    Forced,
}

/// Takes the medium out of a CD drive, and puts another one in: an image that `new` names, or none. What was in it is out
/// if the new one cannot be put in.
///
/// # Errors
/// [`DeviceError::NoSuchDevice`], [`DeviceError::InUse`], [`DeviceError::GuestTimedOut`], [`DeviceError::Monitor`]; an error of
/// Xen or xenstored.
pub fn change_medium(
    context: &Context<'_>,
    domain: &DomainInfo,
    drive: &VirtualDevice,
    new: Option<&Disk>,
    eject: Eject,
) -> Result<(), Failure> {
    let domid = domain.domid;
    let image = context.step::<_, Error>(Stage::CheckInput, || {
        check_alive(domain)?;
        open(context.store, new)
    })?;
    let mut ejected = false;
    let changed = context.step::<_, Error>(Stage::ChangeMedium, || {
        let mut monitor =
            Monitor::open(&socket("libxl", domid), context.cancel).map_err(|error| of_qemu(drive, error))?;
        let found = monitor.execute("query-block", &json!({}), None).map_err(|error| of_qemu(drive, error))?;
        let state = drive_of(&found, drive.number)
            .ok_or_else(|| DeviceError::NoSuchDevice { domid, device: format!("CD drive {drive}") })?;
        if state.get("inserted").is_some() {
            take_out(context, domain, &mut monitor, drive, eject)?;
            ejected = true;
        }
        match &image {
            Some((disk, image)) => put_in(&mut monitor, drive, disk, image).map_err(|error| of_qemu(drive, error)),
            None => Ok(()),
        }
    });
    let medium = match (&changed, &image) {
        (Ok(()), Some((disk, _))) => Some(*disk),
        (Ok(()), None) => None,
        (Err(_), _) if ejected => None,
        (Err(_), _) => return changed,
    };
    let recorded = write_down(context, domain, drive, medium);
    match changed {
        Err(failure) => {
            if let Err(problem) = recorded {
                log::warn!("libxl's configuration still has a medium in the CD drive {drive}: {problem}");
            }
            let aftermath = format!("the CD drive {drive} is empty");
            Err(Failure { aftermath: Some(aftermath), ..failure })
        }
        Ok(()) => recorded,
    }
}

/// Opens the image of the new medium.
fn open<'a>(store: &Store, new: Option<&'a Disk>) -> Result<Option<(&'a Disk, OpenImage)>, Error> {
    let Some(disk) = new else { return Ok(None) };
    let Some(image) = open_image(disk)? else {
        return Err(Error::Internal("the medium has no image".to_owned()));
    };
    match user_of(store, &image, &format!("vbd {}", disk.vdev.number))? {
        Some(user) => Err(DeviceError::InUse { vdev: image.vdev, path: image.path, user }.into()),
        None => Ok(Some((disk, image))),
    }
}

fn of_qemu(drive: &VirtualDevice, error: MonitorError) -> Error {
    DeviceError::Monitor { device: format!("CD drive {drive}"), error }.into()
}

/// The drive among the answer to `query-block`, if it takes other media.
fn drive_of(answer: &Value, number: u32) -> Option<&Value> {
    let id = drive_id(number);
    let drives = answer.as_array()?.iter();
    drives.into_iter().find(|drive| drive["device"] == id.as_str() && drive["removable"] == true)
}

/// Ejects the medium. QEMU asks a guest that has locked the drive, and refuses until the guest has opened it.
fn take_out(
    context: &Context<'_>,
    domain: &DomainInfo,
    monitor: &mut Monitor<'_>,
    drive: &VirtualDevice,
    eject: Eject,
) -> Result<(), Error> {
    let arguments = json!({ "id": drive_id(drive.number), "force": eject == Eject::Forced });
    let start = Instant::now();
    loop {
        let refusal = match monitor.execute("eject", &arguments, None) {
            Ok(_) => return Ok(()),
            Err(MonitorError::Refused { says, .. }) if says.raw_for_comparison().contains("is locked") => says,
            Err(error) => return Err(of_qemu(drive, error)),
        };
        context.cancel.check()?;
        match eject {
            Eject::Asked(after) if start.elapsed() >= after => {
                return Err(DeviceError::GuestTimedOut {
                    domid: domain.domid,
                    device: format!("the medium of the CD drive {drive}"),
                    part: GuestPart::Release,
                    ends: refusal,
                    paused: domain.paused,
                    after,
                }
                .into());
            }
            _ => thread::sleep(POLL),
        }
    }
}

/// Gives QEMU the open image. QEMU opens no file itself: a confined one sees none.
fn put_in(
    monitor: &mut Monitor<'_>,
    drive: &VirtualDevice,
    disk: &Disk,
    image: &OpenImage,
) -> Result<(), MonitorError> {
    let added = monitor.execute("add-fd", &json!({}), Some(image.file.as_fd()))?;
    let set = &added["fdset-id"];
    // QEMU finds the driver by the path, and this one shows no block device.
    let driver = if image.block_device.is_some() { "host_device" } else { "file" };
    let file = json!({
        "driver": disk.format.as_str(),
        "file": { "driver": driver, "filename": format!("/dev/fdset/{set}") },
    });
    let arguments = json!({ "id": drive_id(drive.number), "filename": format!("json:{file}") });
    let changed = monitor.execute("blockdev-change-medium", &arguments, None);
    // The drive has a descriptor of its own.
    let removed = monitor.execute("remove-fd", &json!({ "fdset-id": set }), None);
    changed.and(removed).map(|_| ())
}

/// Changes the medium in libxl's configuration, and in its copy in xenstore if the drive has one. The backend's node stays: QEMU
/// 7.2 ends when a drive that was created empty gets a medium there.
fn write_down(
    context: &Context<'_>,
    domain: &DomainInfo,
    drive: &VirtualDevice,
    medium: Option<&Disk>,
) -> Result<(), Failure> {
    record(context, domain.held(), |configuration| libxl_devices::set_medium(configuration, drive.number, medium))?;
    let libxl = format!("{}/device/vbd/{}", XenstorePaths::new(domain.domid).libxl, drive.number);
    let work = || {
        context.store.transaction(|transaction| match transaction.read(&libxl)? {
            Some(_) => transaction.write(&format!("{libxl}/params"), &medium.map(params).unwrap_or_default()),
            None => Ok(()),
        })
    };
    work().at(Stage::Userdata)
}
