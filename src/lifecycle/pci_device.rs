//! PCI devices of the host come to guests that run, and go.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::attach_device::{check_alive, record};
use crate::config::devices::pci::PciDevice;
use crate::context::Context;
use crate::devices::pci::SYSFS;
use crate::devices::pci_give::{PlannedPci, Recipient, give, place_of, plan, qemu_id, set_access, settle, show};
use crate::devices::pci_host::HostDevice;
use crate::devices::pci_nodes;
use crate::devices::pci_notes::{in_backend, owned};
use crate::devices::pci_take::{forget, rest, wait_closed};
use crate::devices::xenbus::state;
use crate::domain::libxl_devices;
use crate::domain::paths::XenstorePaths;
use crate::error::device::DeviceError;
use crate::error::pci::PciError;
use crate::error::{AtStage, Error, Failure};
use crate::memory::{Bytes, Kib, Kind};
use crate::observer::Running;
use crate::qemu::command_line::socket;
use crate::qemu::monitor::Monitor;
use crate::runs::journal::{JournalEntry, RunVerb};
use crate::stage::Stage;
use crate::xen::{Access, DomId, DomainInfo, PciAddress};

const POLL: Duration = Duration::from_millis(20);

/// Gives a device to a guest that runs. With `timeout`, a PV guest must connect it in that time.
///
/// # Errors
/// As [`plan`], [`give`] and [`show`]; [`PciError::TimedOut`]. The device is then in quarantine again.
pub fn attach_pci(
    context: &Context<'_>,
    domain: &DomainInfo,
    device: PciDevice,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let planned = context.step(Stage::CheckInput, || {
        check_alive(domain)?;
        plan(context, Path::new(SYSFS), &[device], recipient(context, domain)?)
    })?;
    let run = JournalEntry::begin(RunVerb::Attach, domain.uuid, Some(domain.domid)).at(Stage::Devices)?;
    let outcome = complete(context, domain, &planned, &run, timeout);
    outcome.map_err(|failure| undo(context, domain, device.address, run, failure))
}

fn complete(
    context: &Context<'_>,
    domain: &DomainInfo,
    planned: &[PlannedPci],
    run: &JournalEntry,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let (domid, kind) = (domain.domid, domain.kind);
    let name = context.store.plain().read(&XenstorePaths::new(domid).of_domain("name")).at(Stage::Devices)?;
    give(context, Path::new(SYSFS), domain.held(), planned, Some(&run.mark()))?;
    show(context, domid, name.as_deref().unwrap_or_default(), kind, planned, true)?;
    for PlannedPci { device, .. } in planned {
        if let Some(timeout) = timeout.filter(|_| kind == Kind::Pv) {
            context.step(Stage::WaitDevice, || {
                let connected = |state: Option<&str>| state == Some(state::CONNECTED);
                wait_for(context, domain, device.address, timeout, "the guest has not connected it", || {
                    Ok(connected(pci_nodes::backend_state(&context.store.plain(), domid)?.as_deref()))
                })
            })?;
        }
        record(context, domain.held(), |configuration| libxl_devices::add_pci(configuration, device, kind))?;
        // If this run is killed from now on, the device stays.
        settle(context.store, device.address).at(Stage::Devices)?;
    }
    Ok(())
}

/// What the checks need of a guest that runs.
fn recipient(context: &Context<'_>, domain: &DomainInfo) -> Result<Recipient, Error> {
    let node = XenstorePaths::new(domain.domid).of_domain("memory/static-max");
    let most = context.store.plain().read(&node)?.and_then(|text| text.parse().ok()).map(Kib);
    let memory = most.and_then(Kib::to_bytes).unwrap_or(Bytes(u64::MAX));
    Ok(Recipient { kind: domain.kind, has_qemu: true, memory, domid: Some(domain.domid) })
}

/// Takes the device away again after a failure.
fn undo(
    context: &Context<'_>,
    domain: &DomainInfo,
    address: PciAddress,
    mut run: JournalEntry,
    failure: Failure,
) -> Failure {
    context.store.begin_rollback();
    // Without this run's mark, it is not this run that gave the device away.
    let mark = run.mark();
    let noted = owned(&context.store.plain());
    if noted.is_ok_and(|all| !all.iter().any(|one| one.address == address && one.run.as_ref() == Some(&mark))) {
        return failure;
    }
    let running = Running::begin(context.observer, Stage::RemoveDevice);
    match take_back(context, domain, address) {
        Ok(()) => {
            running.done();
            Failure { aftermath: Some(format!("{address} was taken away again")), ..failure }
        }
        Err(problem) => {
            run.leave();
            let (domid, device, stage) = (domain.domid, format!("PCI {address}"), failure.stage);
            let cause = Some(Box::new(failure));
            let error = DeviceError::LeftBehind { domid, device, problem, cause }.into();
            Failure { stage, error, aftermath: None }
        }
    }
}

/// Takes a device from a guest that runs, and waits until the guest has released it. What has it mapped cannot be made to
/// let go of it: a guest that does not follow keeps the device.
///
/// # Errors
/// [`PciError::NotIts`], [`PciError::TimedOut`]; an error of QEMU, Xen or xenstored.
pub fn detach_pci(
    context: &Context<'_>,
    domain: &DomainInfo,
    address: PciAddress,
    timeout: Duration,
) -> Result<(), Failure> {
    let domid = domain.domid;
    let number = context.step(Stage::CheckInput, || {
        check_alive(domain)?;
        let devices = in_backend(&context.store.plain(), domid)?;
        let found = devices.iter().find(|(_, other)| *other == address);
        Ok::<_, Error>(found.map(|(number, _)| *number).ok_or(PciError::NotIts { domid, address })?)
    })?;
    context.step(Stage::WaitDevice, || match domain.kind {
        Kind::Hvm => leave_qemu(context, domain, address, timeout),
        _ => leave_guest(context, domain, address, number, timeout),
    })?;
    context.step(Stage::RemoveDevice, || remove(context, domid, address))?;
    record(context, domain.held(), |configuration| libxl_devices::remove_pci(configuration, address))
}

fn leave_guest(
    context: &Context<'_>,
    domain: &DomainInfo,
    address: PciAddress,
    number: u32,
    timeout: Duration,
) -> Result<(), Error> {
    let domid = domain.domid;
    if !context.store.transaction(|transaction| pci_nodes::ask_to_release(transaction, domid, number))? {
        return Ok(());
    }
    wait_for(context, domain, address, timeout, "the guest has not released it", || {
        Ok(pci_nodes::backend_state(&context.store.plain(), domid)?.as_deref() == Some(state::CONNECTED))
    })
}

fn leave_qemu(context: &Context<'_>, domain: &DomainInfo, address: PciAddress, timeout: Duration) -> Result<(), Error> {
    let refused = |error| DeviceError::Monitor { device: format!("PCI device {address}"), error };
    let id = qemu_id(address);
    let mut monitor = Monitor::open(&socket("libxl", domain.domid), context.cancel).map_err(refused)?;
    monitor.execute("device_del", &json!({ "id": id }), None).map_err(refused)?;
    wait_for(context, domain, address, timeout, "the guest has not ejected it", || {
        let buses = monitor.execute("query-pci", &json!({}), None).map_err(refused)?;
        Ok(place_of(&buses, &id).is_none())
    })
}

fn wait_for(
    context: &Context<'_>,
    domain: &DomainInfo,
    address: PciAddress,
    after: Duration,
    what: &'static str,
    mut done: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let end = Instant::now() + after;
    loop {
        if done()? {
            return Ok(());
        }
        context.cancel.check()?;
        let stopped = context.xen.find(domain.held())?.is_none_or(|info| info.dying || info.shutdown.is_some());
        if stopped {
            return Err(DeviceError::Stopped { domid: domain.domid }.into());
        }
        if Instant::now() >= end {
            return Err(PciError::TimedOut { address, what, after }.into());
        }
        thread::sleep(POLL);
    }
}

/// Takes back what a killed attachment has given to a guest that exists.
///
/// # Errors
/// What failed, in one sentence.
pub fn take_back(context: &Context<'_>, domain: &DomainInfo, address: PciAddress) -> Result<(), String> {
    if domain.kind == Kind::Hvm {
        leave_qemu_at_once(context, domain.domid, address);
    }
    remove(context, domain.domid, address).map_err(|error| error.to_string())
}

/// Has QEMU remove a device that the guest has not used yet.
fn leave_qemu_at_once(context: &Context<'_>, domid: DomId, address: PciAddress) {
    let removed = Monitor::open(&socket("libxl", domid), context.cancel)
        .and_then(|mut monitor| monitor.execute("device_del", &json!({ "id": qemu_id(address) }), None));
    if let Err(error) = removed {
        log::debug!("{error}");
    }
}

/// Takes a device that nothing in the guest uses any more: its rights, its memory, its nodes and its note.
fn remove(context: &Context<'_>, domid: DomId, address: PciAddress) -> Result<(), Error> {
    context.xen.deassign_device(domid, address)?;
    if let Some(host) = HostDevice::find(Path::new(SYSFS), address)? {
        set_access(context, domid, &host.ranges, Access::Revoke)?;
        if host.irq != 0
            && let Err(error) = context.xen.withdraw_irq(domid, host.irq)
        {
            log::debug!("{error}");
        }
    }
    if context.store.transaction(|transaction| pci_nodes::remove(transaction, domid, address))? {
        wait_closed(context.store, domid).map_err(Error::Internal)?;
    }
    rest(context.xen, Path::new(SYSFS), address).map_err(Error::Internal)?;
    Ok(forget(context.store, address)?)
}
