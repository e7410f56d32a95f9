//! `insert` and `eject`: the medium of a CD drive of an HVM guest.

use serde_json::json;

use crate::cli::args::devices::{EjectArgs, EjectHow, InsertArgs};
use crate::cli::connection::{Connection, find_guest};
use crate::cli::device_flags::parse_one;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::config::devices::disk::Disk;
use crate::config::devices::virtual_device::VirtualDevice;
use crate::error::{AtStage, Error};
use crate::lifecycle::change_medium::{Eject, change_medium};
use crate::memory::Kind;
use crate::observer;
use crate::stage::Stage;

pub(crate) fn insert(reporter: &Reporter, arguments: &InsertArgs, json: bool) -> anyhow::Result<Done> {
    let medium = observer::step(reporter, Stage::CheckInput, || {
        let InsertArgs { drive, image, format, .. } = arguments;
        let medium: Disk = parse_one("the medium", &format!("vdev={drive},cdrom,format={format},target={image}"))?;
        check_drive(&medium.vdev)?;
        Ok::<_, Error>(medium)
    })?;
    let store_timeout = arguments.store.store_timeout;
    change(reporter, &arguments.domain, &medium.vdev, Some(&medium), &arguments.eject, store_timeout, json)
}

pub(crate) fn eject(reporter: &Reporter, arguments: &EjectArgs, json: bool) -> anyhow::Result<Done> {
    let drive = observer::step(reporter, Stage::CheckInput, || {
        let drive = parse_one("drive", &arguments.drive)?;
        check_drive(&drive)?;
        Ok::<_, Error>(drive)
    })?;
    change(reporter, &arguments.domain, &drive, None, &arguments.eject, arguments.store.store_timeout, json)
}

fn check_drive(drive: &VirtualDevice) -> Result<(), Error> {
    match drive.ide_place() {
        Some(_) => Ok(()),
        None => Err(Error::BadConfig(format!("{drive} is no place of an IDE drive: a CD drive is one of hda to hdd"))),
    }
}

fn change(
    reporter: &Reporter,
    guest: &str,
    drive: &VirtualDevice,
    medium: Option<&Disk>,
    how: &EjectHow,
    store_timeout: std::time::Duration,
    json: bool,
) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, store_timeout)?;
    let domain = find_guest(&connection, guest).at(Stage::CheckInput)?;
    let domid = domain.domid;
    if domain.kind != Kind::Hvm {
        let text =
            format!("domain {domid} is a {} guest: only HVM guests have CD drives whose media change", domain.kind);
        return Ok(Err(Error::BadConfig(text)).at(Stage::CheckInput)?);
    }
    let eject = if how.force { Eject::Forced } else { Eject::Asked(how.timeout) };
    change_medium(&connection.context(), &domain, drive, medium, eject)?;
    reporter.clear_line();
    let target = medium.and_then(|disk| disk.target.as_deref());
    let object = json!({ "domid": domid, "vdev": drive.name, "target": target });
    let summary = match target {
        Some(target) => format!("{target:?} is in the CD drive {drive} of domain {domid}"),
        None => format!("the CD drive {drive} of domain {domid} is empty"),
    };
    print::finish(json, &object, &summary)
}
