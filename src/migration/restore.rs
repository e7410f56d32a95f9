//! Restores a guest from a file: a domain is created as for a new guest, and its memory, vCPUs and devices come from the file.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::helper::{Event, Helper, Task};
use super::saved_file::SavedFile;
use crate::builder::built::Built;
use crate::builder::claim::give_back_claim;
use crate::builder::image::{BuildResult, check_paging_pool};
use crate::builder::post::{Identity, build_post, make_skeleton};
use crate::builder::pre::{Ports, build_pre};
use crate::config::guest::Guest;
use crate::config::name::DomainName;
use crate::context::Context;
use crate::devices::attach::attach;
use crate::devices::plan::PlannedDevices;
use crate::domain::measure::measure;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::error::migration::MigrationError;
use crate::error::{AtStage, Error, Failure, Wait};
use crate::lifecycle::guard::NewDomain;
use crate::memory::{Kib, Pages};
use crate::observer::{Progress, Unit};
use crate::os::Untrusted;
use crate::os::sealed::MemoryFile;
use crate::qemu::command_line::socket;
use crate::qemu::config::DeviceModelConfig;
use crate::qemu::device_model::DeviceModel;
use crate::qemu::devices::QemuDevices;
use crate::qemu::monitor::Monitor;
use crate::stage::Stage;
use crate::xen::{DomId, PlacedModules};

/// The interval at which QEMU is asked whether it has taken its state.
const POLL: Duration = Duration::from_millis(20);

/// A guest to restore, and what it gets of this host.
#[derive(Debug)]
pub struct RestoreJob<'a> {
    /// The file.
    pub saved: &'a SavedFile,
    /// Its plan, its settings and its part of the host.
    pub guest: &'a Guest,
    /// Its name.
    pub name: &'a DomainName,
    /// Its devices.
    pub devices: PlannedDevices,
    /// The QEMU that takes over the state of its devices, if it has one.
    pub device_model: Option<&'a DeviceModelConfig>,
    /// The QEMU that serves devices of a PVH or PV guest.
    pub backend: Option<&'a DeviceModelConfig>,
    /// How long a hotplug script may take.
    pub hotplug_timeout: Duration,
    /// How long the state may take to be read.
    pub timeout: Duration,
    /// The guest stays paused.
    pub paused: bool,
}

/// Restores a guest into an empty domain, and starts it.
///
/// # Errors
/// The step and the call that failed. The domain keeps what was done before that.
pub fn restore(
    context: &Context<'_>,
    job: &RestoreJob<'_>,
    domain: &mut NewDomain<'_>,
) -> Result<(Built, Option<DeviceModel>), Failure> {
    let RestoreJob { saved, guest, name, .. } = job;
    let (domid, held, plan) = (domain.domid(), domain.held(), &guest.plan);
    let identity = Identity { uuid: held.uuid, name: Some((*name).clone()) };
    make_skeleton(context, domid, &identity, plan.request.kind)?;
    write_keys(context, domid, &saved.guest.keys)?;
    let ports = build_pre(context, domid, guest, None, domain.run())?;
    let rings = context.step(Stage::RestoreMemory, || read_memory(context, job, domid, ports))?;
    check_paging_pool(context, domid, plan)?;
    let start = |config: &DeviceModelConfig, incoming: bool| {
        let mut devices = QemuDevices::of(domid, &job.devices.qemu).at(Stage::StartDeviceModel)?;
        if incoming {
            add_state(&mut devices, saved).at(Stage::StartDeviceModel)?;
        }
        DeviceModel::start(context, held, name, plan, config, devices)
    };
    let mut model = job.device_model.map(|config| start(config, true)).transpose()?;
    build_post(context, domid, guest, &identity, ports, rings)?;
    attach(context, domid, &job.devices.paravirtual, None, job.hotplug_timeout)?;
    if let Some(config) = job.backend {
        // It finds its devices in xenstore when it starts.
        model = Some(start(config, false)?);
    }
    if let Some(model) = &mut model {
        model.get_ready(context, domid, plan)?;
    }
    give_back_claim(context, domid, domain.run()).at(Stage::ClaimMemory)?;
    let measured_built = Some(measure(context.xen, domid).at(Stage::RestoreMemory)?);
    context.step::<_, Error>(Stage::Userdata, || {
        if !job.devices.emulated_only.is_empty() {
            context.store.transaction(|transaction| {
                job.devices.emulated_only.iter().try_for_each(|device| device.write_for_libxl(transaction, domid))
            })?;
        }
        userdata::write(context, held, &saved.checked.configuration)
    })?;
    if let (Some(model), Some(config)) = (&mut model, job.device_model) {
        context.step(Stage::Resume, || run_devices(context, domid, model, config.timeout))?;
    }
    if !job.paused {
        context.step(Stage::Unpause, || context.xen.unpause(domid))?;
    }
    Ok((Built { domid, rings, ports, measured_built, measured_running: None, plan: plan.clone() }, model))
}

/// Writes the nodes that the guest was created with.
fn write_keys(context: &Context<'_>, domid: DomId, nodes: &[(String, String)]) -> Result<(), Failure> {
    if nodes.is_empty() {
        return Ok(());
    }
    let keys = XenstorePaths::new(domid);
    context.step(Stage::Xenstore, || {
        context.store.transaction(|transaction| {
            nodes.iter().try_for_each(|(name, value)| transaction.write(&keys.of_domain(name), value))
        })
    })
}

/// Reads memory and vCPUs from the file, in a child.
fn read_memory(context: &Context<'_>, job: &RestoreJob<'_>, domid: DomId, ports: Ports) -> Result<BuildResult, Error> {
    let state = &job.saved.checked.state;
    let failed = || Error::io("read the saved guest");
    let mut position = job.saved.at_stream().map_err(failed())?;
    // The child reads on from there: both descriptors have one position.
    let stream = position.try_clone().map_err(failed())?.into();
    let frames = Pages(job.saved.checked.outline.bounds().last_frame);
    let mut helper = Helper::start(Task::Restore(ports.into()), domid, stream, frames, job.timeout)?;
    let total = Kib((state.libxc.end - state.start) / 1024);
    let event = helper.wait(context, || {
        let at = position.stream_position().unwrap_or(0).saturating_sub(state.start);
        let done = Kib(at / 1024);
        let text = format!("{} of {} MiB are restored", done.0 / 1024, total.0 / 1024);
        context.observer.progress(&Progress {
            what: "restoring",
            done: done.0.min(total.0),
            total: total.0,
            unit: Unit::Kib,
            text: &text,
        });
    })?;
    let Event::Done(Some((store_gfn, console_gfn))) = event else {
        return Err(Error::Internal("the child that restores the guest answers wrongly".to_owned()));
    };
    Ok(BuildResult { store_gfn, console_gfn, modules: PlacedModules::default() })
}

/// Lets QEMU begin with the state in the file, and wait then.
fn add_state(devices: &mut QemuDevices, saved: &SavedFile) -> Result<(), Error> {
    let Some(range) = &saved.checked.state.emulator else { return Ok(()) };
    let failed = || Error::io("copy QEMU's state");
    let mut file = &saved.checked.file;
    file.seek(SeekFrom::Start(range.start)).map_err(failed())?;
    let memory = MemoryFile::new(c"qemu state").map_err(failed())?;
    memory.fill(file, range.end - range.start).map_err(failed())?;
    File::from(memory.writer().map_err(failed())?).rewind().map_err(failed())?;
    let state = memory.end_writing().map_err(failed())?;
    // QEMU activates the drives when it goes on. QEMU 10 has two descriptors of each by then, and one's lock is in the way of the
    // other's. No other guest has the images: that was checked.
    for argument in devices.arguments.iter_mut().filter(|argument| argument.contains("file.filename=/dev/fdset/")) {
        *argument = argument.replacen("file.filename=", "file.locking=off,file.filename=", 1);
    }
    devices.arguments.extend(["-incoming".to_owned(), format!("fd:{}", state.as_raw_fd()), "-S".to_owned()]);
    devices.descriptors.push(state);
    Ok(())
}

/// Waits until QEMU has taken its devices' state, and lets them run. A state that does not fit its devices ends QEMU.
fn run_devices(context: &Context<'_>, domid: DomId, model: &mut DeviceModel, timeout: Duration) -> Result<(), Error> {
    let monitor = |error| Error::from(MigrationError::Monitor(error));
    let end = Instant::now() + timeout;
    let mut connection = Monitor::open(&socket("libxl", domid), context.cancel);
    loop {
        // A QEMU that has ended tells why in its log.
        model.check()?;
        let status = connection.as_mut().map_or(Ok(Value::Null), |open| open.execute("query-status", &json!({}), None));
        let status = status.map_err(monitor).or_else(|error| model.check().and(Err(error)))?;
        match status["status"].as_str() {
            Some("paused" | "postmigrate") => break,
            Some("inmigrate" | "prelaunch") => {}
            None if connection.is_err() => connection = Monitor::open(&socket("libxl", domid), context.cancel),
            other => {
                let text = other.unwrap_or("unknown").to_owned();
                return Err(MigrationError::NotIncoming(Untrusted::from(text)).into());
            }
        }
        context.cancel.check()?;
        if Instant::now() >= end {
            return Err(Error::TimedOut {
                what: format!("the device model {} has not taken on the state of its devices", model.pid()),
                after: timeout,
                wait: Wait::Migration,
            });
        }
        thread::sleep(POLL);
    }
    match connection {
        Ok(mut open) => open.execute("cont", &json!({}), None).map(drop).map_err(monitor),
        Err(error) => Err(monitor(error)),
    }
}
