//! Attaches a disk or a network card to a guest that exists, or leaves the guest as it was.

use std::time::Duration;

use crate::config::devices::disk::Disk;
use crate::config::devices::nic::Nic;
use crate::config::devices::set::{Devices, MOST_NICS};
use crate::config::error::ConfigError;
use crate::context::Context;
use crate::devices::attach::attach;
use crate::devices::details::{DeviceDetails, details_of};
use crate::devices::disk::{Server, server};
use crate::devices::follow::wait_connected;
use crate::devices::plan::{GuestQemu, PlannedDevice, plan};
use crate::devices::remove::remove_at_once;
use crate::domain::devices::{ListedDevice, RUN_NODE, devices_of};
use crate::domain::paths::XenstorePaths;
use crate::domain::{libxl_devices, userdata};
use crate::error::device::DeviceError;
use crate::error::{AtStage, Error, Failure};
use crate::memory::Kind;
use crate::observer::Running;
use crate::qemu::helpers::serves_disks;
use crate::runs::journal::{JournalEntry, RunVerb, check_stays};
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, DomainRef, XenError};

/// A device for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewDevice {
    /// A disk.
    Disk(Disk),
    /// A network card.
    Nic(Nic),
}

/// How long the parts of an attachment may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// The hotplug script.
    pub script: Duration,
    /// The guest, until it has connected the device. `None`: the run does not wait for it.
    pub guest: Option<Duration>,
}

/// Attaches a device. A network card gets the lowest free number and a random address where it has none.
///
/// # Errors
/// [`DeviceError`] if the guest or the host cannot have it, or the guest does not connect it in time; an error of Xen or
/// xenstored. The device is then taken away again; [`DeviceError::LeftBehind`] if that fails.
pub fn attach_device(
    context: &Context<'_>,
    domain: &DomainInfo,
    device: NewDevice,
    timeouts: Timeouts,
) -> Result<DeviceDetails, Failure> {
    let (domid, held) = (domain.domid, domain.held());
    let (device, planned) = context.step(Stage::CheckInput, || prepare(context, domain, device))?;
    let run = JournalEntry::begin(RunVerb::Attach, domain.uuid, Some(domid)).at(Stage::Devices)?;
    let mut attaching = Attaching { context, domain: held, run: Some(run), label: planned.device.label() };
    match complete(context, domain, &device, planned, timeouts, &mut attaching) {
        Ok(details) => Ok(details),
        Err(failure) => Err(attaching.undo(failure)),
    }
}

fn complete(
    context: &Context<'_>,
    domain: &DomainInfo,
    device: &NewDevice,
    planned: PlannedDevice,
    timeouts: Timeouts,
    attaching: &mut Attaching<'_>,
) -> Result<DeviceDetails, Failure> {
    let (domid, mark) = (domain.domid, attaching.mark());
    let libxl = planned.device.paths(domid).libxl;
    attach(context, domid, &[planned], mark.as_deref(), timeouts.script)?;
    let listed = || {
        let gone = || DeviceError::NoSuchDevice { domid, device: attaching.label.clone() };
        let mut devices = details_of(&context.store.plain(), domid)?.into_iter();
        devices.find(|details| details.device.run == mark).ok_or_else(|| Error::from(gone()))
    };
    let found = listed().at(Stage::Devices)?;
    if let Some(timeout) = timeouts.guest {
        context.step(Stage::WaitDevice, || wait_connected(context, domain.held(), &found.device, timeout))?;
    }
    record(context, domain.held(), |configuration| match device {
        NewDevice::Disk(disk) => libxl_devices::add_disk(configuration, disk),
        NewDevice::Nic(nic) => libxl_devices::add_nic(configuration, found.device.devid, nic, domain.kind),
    })?;
    // With its states now.
    let found = listed().at(Stage::WaitDevice)?;
    attaching.keep(&libxl)?;
    Ok(found)
}

/// Changes libxl's configuration of a guest that has one.
pub(super) fn record(
    context: &Context<'_>,
    domain: DomainRef,
    change: impl FnOnce(&mut serde_json::Value),
) -> Result<(), Failure> {
    context.step(Stage::Userdata, || {
        let file = userdata::configuration_path(domain);
        if !file.exists() {
            log::info!("domain {} has no configuration of libxl's ({}): none is changed", domain.domid, file.display());
        }
        userdata::update(context, domain, change)
    })
}

/// A device that is being attached. It is taken away again, unless it is kept.
struct Attaching<'a> {
    context: &'a Context<'a>,
    domain: DomainRef,
    /// `None` once the device is kept or taken away.
    run: Option<JournalEntry>,
    label: String,
}

impl Attaching<'_> {
    fn mark(&self) -> Option<String> {
        self.run.as_ref().map(JournalEntry::mark)
    }

    /// Completes the attachment: if this run is killed from now on, the device stays.
    fn keep(&mut self, libxl: &str) -> Result<(), Failure> {
        self.context.store.plain().remove(&format!("{libxl}/{RUN_NODE}")).at(Stage::Devices)?;
        self.run = None;
        Ok(())
    }

    fn undo(mut self, failure: Failure) -> Failure {
        match self.take_away() {
            Ok(false) => failure,
            Ok(true) => Failure { aftermath: Some(format!("{} was taken away again", self.label)), ..failure },
            Err(problem) => {
                let (domid, device, stage) = (self.domain.domid, self.label.clone(), failure.stage);
                let cause = Some(Box::new(failure));
                let error = DeviceError::LeftBehind { domid, device, problem, cause }.into();
                Failure { stage, error, aftermath: None }
            }
        }
    }

    /// Whether there was something to take away.
    fn take_away(&mut self) -> Result<bool, String> {
        let Some(mut run) = self.run.take() else { return Ok(false) };
        let (store, domid, mark) = (self.context.store, self.domain.domid, run.mark());
        let running = Running::begin(self.context.observer, Stage::RemoveDevice);
        store.begin_rollback();
        let work = || {
            let devices = devices_of(&store.plain(), domid).map_err(|error| error.to_string())?;
            let ours: Vec<ListedDevice> =
                devices.into_iter().filter(|device| device.run.as_ref() == Some(&mark)).collect();
            remove_at_once(store, domid, &ours)?;
            Ok(!ours.is_empty())
        };
        match work() {
            Ok(found) => {
                running.done();
                Ok(found)
            }
            Err(problem) => {
                run.leave();
                Err(problem)
            }
        }
    }
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        if let Err(problem) = self.take_away() {
            log::error!("{} of domain {} was left behind: {problem}", self.label, self.domain.domid);
        }
    }
}

/// The device with all that it needs, and what the host does for it.
fn prepare(
    context: &Context<'_>,
    domain: &DomainInfo,
    mut device: NewDevice,
) -> Result<(NewDevice, PlannedDevice), Error> {
    check_alive(domain)?;
    check(&device, domain.kind)?;
    let (store, domid) = (context.store.plain(), domain.domid);
    let present = details_of(&store, domid)?;
    let mut devices = Devices::default();
    match &mut device {
        NewDevice::Disk(disk) => {
            let number = disk.vdev.number;
            if numbers(context, &present, domid, &["vbd", "qdisk"])?.contains(&number) {
                return Err(DeviceError::NumberTaken { device: format!("vbd {number} ({})", disk.vdev) }.into());
            }
            devices.disks.push(disk.clone());
        }
        NewDevice::Nic(nic) => {
            let taken = numbers(context, &present, domid, &["vif"])?;
            let devid = match nic.devid {
                Some(devid) if taken.contains(&devid) => {
                    return Err(DeviceError::NumberTaken { device: format!("vif {devid}") }.into());
                }
                Some(devid) => devid,
                None => (0..MOST_NICS)
                    .find(|devid| !taken.contains(devid))
                    .ok_or(DeviceError::TooManyNics { most: MOST_NICS })?,
            };
            nic.devid = Some(devid);
            // libxl gives a card that is attached later no emulated twin either.
            nic.emulated = Some(false);
            devices.nics.push(nic.clone());
            devices.complete();
            *nic = devices.nics.first().cloned().unwrap_or_else(|| nic.clone());
            let mac = nic.mac.map(|mac| mac.to_string());
            let has_it = |other: &&DeviceDetails| {
                let address = other.mac.as_ref().map(|mac| mac.raw_for_comparison().to_ascii_lowercase());
                address.is_some() && address == mac
            };
            if let (Some(other), Some(mac)) = (present.iter().find(has_it), &mac) {
                return Err(DeviceError::MacTaken { device: other.device.label(), mac: mac.clone() }.into());
            }
        }
    }
    let qemu = if serves_disks(context.store, domain.held())? { GuestQemu::Serves } else { GuestQemu::Absent };
    if let NewDevice::Disk(disk) = &device
        && server(disk, domain.kind) == Server::Qemu
        && qemu == GuestQemu::Absent
    {
        let reason = "only QEMU can serve it, and the guest has no QEMU that serves disks (it has one if it is created with such \
            a disk, and an HVM guest's serves with --device-model-root)";
        return Err(DeviceError::NotHotplugged { device: format!("disk {}", disk.vdev), reason }.into());
    }
    let planned = plan(context.xen, context.store, &devices, never_emulated(domain.kind), qemu)?.paravirtual.pop();
    let planned = planned.ok_or_else(|| Error::Internal("the device has no backend".to_owned()))?;
    Ok((device, planned))
}

/// Whether a guest can connect or release a device at all.
pub(super) fn check_alive(domain: &DomainInfo) -> Result<(), Error> {
    check_stays(domain.held())?;
    match domain.dying || domain.shutdown.is_some() {
        true => Err(DeviceError::Stopped { domid: domain.domid }.into()),
        false => Ok(()),
    }
}

/// Whether a guest of this kind that exists can have the device.
fn check(device: &NewDevice, kind: Kind) -> Result<(), Error> {
    let refused = |device: String, reason| Err(DeviceError::NotHotplugged { device, reason }.into());
    let devices = match device {
        NewDevice::Disk(disk) => {
            let name = format!("disk {}", disk.vdev);
            if kind == Kind::Hvm && disk.cdrom {
                return refused(name, "the CD drives of an HVM guest are emulated, and are there from its start");
            }
            Devices { disks: vec![disk.clone()], ..Devices::default() }
        }
        NewDevice::Nic(nic) => {
            if kind == Kind::Hvm && (nic.emulated == Some(true) || nic.model.is_some()) {
                let reason = "an emulated card is there from the guest's start; leave type=ioemu and model= out";
                return refused("the network card".to_owned(), reason);
            }
            Devices { nics: vec![nic.clone()], ..Devices::default() }
        }
    };
    Ok(devices.check(never_emulated(kind)).map_err(ConfigError::from)?)
}

/// The kind of guest whose devices these are like: nothing that comes to a guest that exists is emulated.
const fn never_emulated(kind: Kind) -> Kind {
    match kind {
        Kind::Pv => Kind::Pv,
        Kind::Hvm | Kind::Pvh => Kind::Pvh,
    }
}

/// The numbers that devices of a class have: by libxl's list, by the guest's directory, and by dom0's backends of these
/// classes. Some toolstacks keep no list of libxl's.
fn numbers(
    context: &Context<'_>,
    present: &[DeviceDetails],
    domid: DomId,
    backend_kinds: &[&str],
) -> Result<Vec<u32>, XenError> {
    let class = if backend_kinds.contains(&"vif") { "vif" } else { "vbd" };
    let mut directories = vec![XenstorePaths::new(domid).of_domain(&format!("device/{class}"))];
    directories.extend(backend_kinds.iter().map(|kind| format!("/local/domain/0/backend/{kind}/{domid}")));
    let lists = context.store.plain().children_of_all(&directories)?;
    let mut found: Vec<u32> = lists.iter().flatten().filter_map(|name| name.parse().ok()).collect();
    found.extend(present.iter().filter(|details| details.device.kind == class).map(|details| details.device.devid));
    Ok(found)
}
