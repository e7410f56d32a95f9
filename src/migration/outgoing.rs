//! What a guest gives up to be saved to a file or migrated: what stands in the way of that, its configuration, and the state of its
//! QEMU.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd};

use serde_json::{Value, json};

use super::stream;
use crate::context::Context;
use crate::domain::devices::devices_of;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::monitor::MonitorError;
use crate::error::{Error, Failure, Wait};
use crate::lifecycle::balloon::set_target;
use crate::lifecycle::departure::{self, Departure};
use crate::lifecycle::suspend::{SuspendWay, has_device_model, suspend_way};
use crate::lifecycle::teardown::teardown;
use crate::memory::{Kib, Kind, Pages};
use crate::observer;
use crate::os::sealed::MemoryFile;
use crate::qemu::command_line::socket;
use crate::qemu::helpers::Ending;
use crate::qemu::monitor::Monitor;
use crate::runs::journal::JournalEntry;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, DomainRef, XenError};

pub(super) fn obstacle(domain: &DomainInfo, obstacle: Obstacle) -> Error {
    MigrationError::Obstacle { domid: domain.domid, obstacle }.into()
}

/// Destroys the domain of a guest that has gone; `elsewhere` says where it is, if that fails.
pub(super) fn destroy(
    context: &Context<'_>,
    domain: DomainRef,
    departure: Departure,
    run: &mut JournalEntry,
    elsewhere: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let left_behind = |cleanup| Error::LeftBehind { domid: domain.domid, cleanup, cause: None };
    departure::record(domain, departure);
    let destroyed = observer::step(context.observer, Stage::Destroy, || {
        teardown(context.xen, context.store, domain, Ending::InOrder).map_err(left_behind)
    });
    destroyed.map_err(|failure| {
        run.leave();
        Failure { aftermath: Some(elsewhere()), ..failure }
    })
}

/// The failure of a run whose guest was to leave and stays. `resumed` is what came of letting it run on, and `goes_on` how it does.
pub(super) fn stays(
    domid: DomId,
    mut run: JournalEntry,
    failure: Failure,
    resumed: Result<(), Failure>,
    goes_on: &str,
) -> Failure {
    if let Err(Failure { error, .. }) = resumed {
        run.leave();
        let cause = Some(Box::new(failure));
        let stuck = MigrationError::StillSuspended { domid, problem: error.to_string(), cause };
        return Failure { stage: Stage::Resume, error: stuck.into(), aftermath: None };
    }
    let aftermath = if matches!(failure.error, Error::TimedOut { wait: Wait::Suspend { answered: true }, .. }) {
        // A later cleanup finds the entry, and lets the guest run on.
        run.leave();
        format!("domain {domid} may still suspend itself: `dombuild cleanup --apply` lets it run on then")
    } else {
        format!("domain {domid} {goes_on}")
    };
    Failure { aftermath: Some(aftermath), ..failure }
}

/// Stops QEMU's devices, and returns their state; with `gives_up_images`, QEMU releases its locks on their images. QEMU gets a
/// descriptor: a confined one can open no file.
pub(super) fn save_devices(
    context: &Context<'_>,
    domain: &DomainInfo,
    gives_up_images: bool,
) -> Result<Vec<u8>, Error> {
    let failed = || Error::io("take QEMU's state");
    let memory = MemoryFile::new(c"qemu state").map_err(failed())?;
    let mut state = File::from(memory.writer().map_err(failed())?);
    // QEMU takes a descriptor whose access mode is the one that it opens the file with.
    let path = format!("/proc/self/fd/{}", state.as_raw_fd());
    let writer = OpenOptions::new().write(true).open(path).map_err(failed())?;
    let command = || {
        let mut monitor = Monitor::open(&socket("libxl", domain.domid), context.cancel)?;
        monitor.execute("stop", &json!({}), None)?;
        let added = monitor.execute("add-fd", &json!({}), Some(writer.as_fd()))?;
        let set = &added["fdset-id"];
        let arguments = json!({ "filename": format!("/dev/fdset/{set}"), "live": gives_up_images });
        let saved = monitor.execute("xen-save-devices-state", &arguments, None);
        monitor.execute("remove-fd", &json!({ "fdset-id": set }), None)?;
        saved.map(drop)
    };
    command().map_err(|error: MonitorError| MigrationError::Monitor(error))?;
    state.rewind().map_err(failed())?;
    let mut bytes = Vec::new();
    state.take(stream::LONGEST_EMULATOR + 1).read_to_end(&mut bytes).map_err(failed())?;
    if !(1..=stream::LONGEST_EMULATOR).contains(&(bytes.len() as u64)) {
        return Err(failed()(io::Error::other(format!("it has {} bytes", bytes.len()))));
    }
    Ok(bytes)
}

/// Looks for what makes it impossible to save the guest, and returns how it can be suspended.
pub(super) fn look_for_obstacles(context: &Context<'_>, domain: &DomainInfo) -> Result<SuspendWay, Error> {
    let (xen, store, domid) = (context.xen, context.store, domain.domid);
    let refused = |found| Err(obstacle(domain, found));
    if domain.dying {
        return refused(Obstacle::Dying);
    }
    if let Some(reason) = domain.shutdown {
        return refused(Obstacle::ShutDown(reason));
    }
    if domain.kind != Kind::Pv {
        let pod = xen.pod_pages(domid)?;
        if pod.entries > Pages(0) {
            return refused(Obstacle::OnDemand { entries: pod.entries, cache: pod.cache });
        }
    }
    if devices_of(&store.plain(), domid)?.iter().any(|device| device.kind == "pci") {
        return refused(Obstacle::PciDevices);
    }
    if xen.has_vnuma(domid)? {
        return refused(Obstacle::VirtualNuma);
    }
    if has_device_model(domain) {
        // A QEMU that does not answer would be found when the guest is suspended already.
        let answers = Monitor::open(&socket("libxl", domid), context.cancel)
            .and_then(|mut monitor| monitor.execute("query-status", &json!({}), None));
        answers.map_err(MigrationError::Monitor)?;
    }
    suspend_way(xen, domain)
}

/// The guest's configuration as libxl keeps it, with what has changed since: its name, its memory, its vCPUs.
pub(super) fn configuration(context: &Context<'_>, domain: &DomainInfo) -> Result<Value, Error> {
    let Some(mut configuration) = userdata::read(domain.held())? else {
        return Err(obstacle(domain, Obstacle::NoConfiguration(userdata::configuration_path(domain.held()))));
    };
    let truth = |value: &Value| value == "True";
    let info = &configuration["b_info"];
    if truth(&info["nested_hvm"]) || truth(&info["type.hvm"]["nested_hvm"]) {
        return Err(obstacle(domain, Obstacle::Nested));
    }
    if truth(&info["disable_migrate"]) {
        return Err(obstacle(domain, Obstacle::NoMigrate));
    }
    let keys = XenstorePaths::new(domain.domid);
    let plain = context.store.plain();
    let paths = ["name", "memory/target", "memory/static-max"].map(|name| keys.of_domain(name));
    let [name, target, most] = plain.read_all(&paths)?.try_into().unwrap_or_default();
    if let Some(name) = name {
        configuration["c_info"]["name"] = name.into();
    }
    let number = |text: Option<String>| text.and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(most) = number(most) {
        configuration["b_info"]["max_memkb"] = most.into();
    }
    if let Some(target) = number(target) {
        set_target(&mut configuration, Kib(target));
    }
    configuration["b_info"]["avail_vcpus"] = online(context, domain)?.into();
    Ok(configuration)
}

/// The vCPUs that the guest may use.
fn online(context: &Context<'_>, domain: &DomainInfo) -> Result<Vec<u32>, XenError> {
    let keys = XenstorePaths::new(domain.domid);
    let paths: Vec<_> =
        (0..domain.existing_vcpus).map(|vcpu| keys.of_domain(&format!("cpu/{vcpu}/availability"))).collect();
    let states = context.store.plain().read_all(&paths)?;
    Ok((0..).zip(states).filter(|(_, state)| state.as_deref() != Some("offline")).map(|(vcpu, _)| vcpu).collect())
}
