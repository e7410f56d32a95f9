//! Restores a guest from a file or from another host: a domain is created as for a new guest, and its memory, vCPUs and devices
//! come from there.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::checker::{Checking, StateChecker};
use super::helper::{Event, Helper, Task};
use super::incoming;
use super::libxc_records::{Bounds, Container};
use super::libxc_stream::CheckedStream;
use super::saved::{Saved, Source};
use super::stream;
use crate::builder::built::Built;
use crate::builder::claim::give_back_claim;
use crate::builder::image::{BuildResult, check_paging_pool};
use crate::builder::post::{Identity, finish_post, make_skeleton, prepare_post};
use crate::builder::pre::{Ports, build_pre};
use crate::cancel::Cancel;
use crate::config::guest::Guest;
use crate::config::name::DomainName;
use crate::context::Context;
use crate::devices::attach::attach;
use crate::devices::plan::PlannedDevices;
use crate::domain::measure::measure;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::error::damage::{Damage, Fault};
use crate::error::migration::{FileProblem, MigrationError};
use crate::error::{AtStage, Error, Failure, Wait};
use crate::lifecycle::guard::NewDomain;
use crate::memory::{Gfn, Kib, Kind, Pages};
use crate::observer::{Progress, Unit};
use crate::os::Untrusted;
use crate::os::sealed::MemoryFile;
use crate::qemu::command_line::socket;
use crate::qemu::config::DeviceModelConfig;
use crate::qemu::device_model::DeviceModel;
use crate::qemu::devices::QemuDevices;
use crate::qemu::monitor::Monitor;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, PlacedModules, RingPorts};

/// How long the verdict on a stream may take once libxenguest has failed.
const VERDICT: Duration = Duration::from_secs(5);

/// The interval at which QEMU is asked whether it has taken its state.
const POLL: Duration = Duration::from_millis(20);

/// A guest to restore, and what it gets of this host.
#[derive(Debug)]
pub struct RestoreJob<'a> {
    /// The saved guest.
    pub saved: &'a Saved,
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
}

/// A guest that is restored, and has not run yet. Its QEMU has its state and waits.
#[derive(Debug)]
pub struct Restored {
    /// The domain.
    pub built: Built,
    /// Its QEMU, or the one that serves its devices.
    pub model: Option<DeviceModel>,
    /// How long QEMU may take for its state, if it has one.
    incoming: Option<Duration>,
}

impl Restored {
    /// Lets QEMU's devices run and, unless it is to stay paused, the guest.
    ///
    /// # Errors
    /// The call that failed.
    pub fn start(&mut self, context: &Context<'_>, paused: bool) -> Result<(), Failure> {
        let domid = self.built.domid;
        if let (Some(model), Some(timeout)) = (&mut self.model, self.incoming) {
            context.step(Stage::Resume, || run_devices(context, domid, model, timeout))?;
        }
        if !paused {
            context.step(Stage::Unpause, || context.xen.unpause(domid))?;
        }
        Ok(())
    }
}

/// Restores a guest into an empty domain, under this name.
///
/// # Errors
/// The step and the call that failed. The domain keeps what was done before that.
pub fn restore(context: &Context<'_>, job: &RestoreJob<'_>, domain: &mut NewDomain<'_>) -> Result<Restored, Failure> {
    let RestoreJob { saved, guest, name, .. } = job;
    let (domid, held, plan) = (domain.domid(), domain.held(), &guest.plan);
    let identity = Identity { uuid: held.uuid, name: Some((*name).clone()), driver_domain: false };
    make_skeleton(context, domid, &identity, plan.request.kind)?;
    domain.has_its_name(name);
    write_keys(context, domid, &saved.guest.keys)?;
    let prepared = build_pre(context, domid, guest, None, domain.run())?;
    let ports = prepared.ports;
    // All that can be written before the stream is read, at the end of which the guest of a live migration stands still.
    prepare_post(context, domid, guest, &identity, &prepared)?;
    context.step::<_, Error>(Stage::Userdata, || userdata::write(context, held, &saved.configuration))?;
    let (rings, mut state) = context.step(Stage::RestoreMemory, || read_state(context, job, domid, ports))?;
    check_paging_pool(context, domid, plan)?;
    let mut start = |config: &DeviceModelConfig| {
        let mut devices = QemuDevices::of(domid, &job.devices.qemu).at(Stage::StartDeviceModel)?;
        if let Some(state) = state.take() {
            add_state(&mut devices, state);
        }
        DeviceModel::start(context, held, name, plan, config, devices)
    };
    let mut model = job.device_model.map(&mut start).transpose()?;
    finish_post(context, domid, guest, &prepared, rings)?;
    attach(context, domid, &job.devices.paravirtual, None, job.hotplug_timeout)?;
    if let Some(config) = job.backend {
        // It finds its devices in xenstore when it starts.
        model = Some(start(config)?);
    }
    if let Some(model) = &mut model {
        model.get_ready(context, domid, plan)?;
    }
    give_back_claim(context, domid, domain.run()).at(Stage::ClaimMemory)?;
    let measured_built = Some(measure(context.xen, domid).at(Stage::RestoreMemory)?);
    if !job.devices.emulated_only.is_empty() {
        context.step(Stage::Xenstore, || {
            context.store.batch(|transaction| {
                job.devices.emulated_only.iter().try_for_each(|device| device.write_for_libxl(transaction, domid))
            })
        })?;
    }
    let built = Built {
        domid,
        rings,
        ports,
        measured_built,
        measured_running: None,
        plan: plan.clone(),
        nodes: prepared.nodes.node_pages(),
    };
    Ok(Restored { built, model, incoming: job.device_model.map(|config| config.timeout) })
}

/// Writes the nodes that the guest was created with.
fn write_keys(context: &Context<'_>, domid: DomId, nodes: &[(String, String)]) -> Result<(), Failure> {
    if nodes.is_empty() {
        return Ok(());
    }
    let keys = XenstorePaths::new(domid);
    context.step(Stage::Xenstore, || {
        context.store.batch(|transaction| {
            nodes.iter().try_for_each(|(name, value)| transaction.write(&keys.of_domain(name), value))
        })
    })
}

/// Reads memory and vCPUs in a child, and returns the state of QEMU's devices.
fn read_state(
    context: &Context<'_>,
    job: &RestoreJob<'_>,
    domid: DomId,
    ports: Ports,
) -> Result<(BuildResult, Option<OwnedFd>), Error> {
    let Saved { bounds, source, .. } = job.saved;
    let start =
        |stream| Helper::start(Task::Restore(ports.into()), domid, stream, Pages(bounds.last_frame), job.timeout);
    let (event, emulator) = match source {
        Source::File(checked) => {
            let failed = || Error::io("read the saved guest");
            let file = checked.at_stream().map_err(failed())?;
            // The child reads on from there: both descriptors have one position.
            let mut helper = start(file.try_clone().map_err(failed())?.into())?;
            let state = &checked.state;
            let event = helper.wait(context.cancel, || tell(context, file, &(state.start..state.libxc.end)))?;
            (event, state.emulator.as_ref().map(|range| state_in(file, range)).transpose()?)
        }
        Source::Wire { wire, offset } => {
            let stream = (wire.input()?, *offset);
            let checker = StateChecker::this_program();
            let restoring = RestoringStream::start(domid, &checker, stream, *bounds, ports.into(), job.timeout)?;
            let (checked, rings) = restoring.finish(context.cancel)?;
            let kind = job.saved.guest.request.kind;
            if (checked.container == Container::Pv) != (kind == Kind::Pv) {
                return Err(MigrationError::BadIncoming(FileProblem::OtherKind { configured: kind }).into());
            }
            (Event::Done(Some(rings)), incoming::read_tail(wire, checked.end)?)
        }
    };
    let Event::Done(Some((store_gfn, console_gfn))) = event else {
        return Err(Error::Internal("the child that restores the guest answers wrongly".to_owned()));
    };
    incoming::check_qemu(emulator.is_some(), job.device_model.is_some())?;
    Ok((BuildResult { store_gfn, console_gfn, modules: PlacedModules::default(), elsewhere: Pages(0) }, emulator))
}

/// A stream of libxenguest that is read into a domain. A child without rights checks each record before libxenguest sees it.
#[derive(Debug)]
pub struct RestoringStream {
    helper: Helper,
    checking: Checking,
}

impl RestoringStream {
    /// Begins to read a stream from this descriptor, which is at `offset`.
    ///
    /// # Errors
    /// If a child cannot be started.
    pub fn start(
        domid: DomId,
        checker: &StateChecker,
        (stream, offset): (OwnedFd, u64),
        bounds: Bounds,
        ports: RingPorts,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let (checking, pipe) = checker.forward(stream, offset, bounds, timeout)?;
        let helper = Helper::start(Task::Restore(ports), domid, pipe, Pages(bounds.last_frame), timeout)?;
        Ok(Self { helper, checking })
    }

    /// What becomes readable when libxenguest has ended.
    #[must_use]
    pub fn end(&self) -> BorrowedFd<'_> {
        self.helper.socket()
    }

    /// Waits for the end, and returns what was in the stream and the frames of the store ring and of the console ring.
    ///
    /// # Errors
    /// [`MigrationError::BadStream`], [`MigrationError::ConnectionLost`] if it ends too early; those of libxenguest and of the
    /// children.
    pub fn finish(self, cancel: &Cancel) -> Result<(CheckedStream, (Gfn, Gfn)), Error> {
        let Self { mut helper, mut checking } = self;
        let event = helper.wait(cancel, || ());
        drop(helper);
        if event.is_err() {
            // It may wait for a sender that waits as well.
            checking.hurry(VERDICT);
        }
        match (event, checking.wait(cancel, || ())) {
            (_, Err(error)) if is_damage(&error) => Err(of_connection(error)),
            // What is not passed on is a consequence of libxenguest's end.
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Event::Done(Some(rings))), Ok(checked)) => Ok((checked, rings)),
            (Ok(_), Ok(_)) => Err(Error::Internal("the child that restores the guest answers wrongly".to_owned())),
        }
    }
}

/// What bounds the state of a guest of which only the domain is known.
#[must_use]
pub fn bounds_of_domain(domain: &DomainInfo) -> Bounds {
    /// QEMU's cards, above 4 GiB.
    const CARDS: u64 = 1 << 18;
    let low = if domain.kind == Kind::Pv { 0 } else { stream::LOW_FRAMES };
    Bounds::new(domain.max_pages.0.saturating_add(low + CARDS), domain.existing_vcpus)
}

/// Whether the stream itself is bad.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Migration(error) if matches!(**error, MigrationError::BadStream(_)))
}

/// The end of a stream in the middle is the end of the connection.
fn of_connection(error: Error) -> Error {
    match &error {
        Error::Migration(inner) => match &**inner {
            MigrationError::BadStream(Damage { fault: Fault::CutOff, .. }) => {
                let source = io::ErrorKind::UnexpectedEof.into();
                MigrationError::ConnectionLost { what: "its memory", source }.into()
            }
            _ => error,
        },
        _ => error,
    }
}

fn tell(context: &Context<'_>, mut file: &File, range: &Range<u64>) {
    let at = file.stream_position().unwrap_or(0).saturating_sub(range.start);
    let (done, total) = (Kib(at / 1024), Kib((range.end - range.start) / 1024));
    let text = format!("{} of {} MiB are restored", done.0 / 1024, total.0 / 1024);
    context.observer.progress(&Progress {
        what: "restoring",
        done: done.0.min(total.0),
        total: total.0,
        unit: Unit::Kib,
        text: &text,
    });
}

/// The state of QEMU's devices in a file.
fn state_in(mut file: &File, range: &Range<u64>) -> Result<OwnedFd, Error> {
    let mut copied = || {
        file.seek(SeekFrom::Start(range.start))?;
        let memory = MemoryFile::new(c"qemu state")?;
        memory.fill(file, range.end - range.start)?;
        File::from(memory.writer()?).rewind()?;
        memory.end_writing()
    };
    copied().map_err(Error::io("copy QEMU's state"))
}

/// Lets QEMU begin with this state, and wait then.
fn add_state(devices: &mut QemuDevices, state: OwnedFd) {
    // QEMU activates the drives when it goes on. QEMU 10 has two descriptors of each by then, and one's lock is in the way of the
    // other's. No other guest has the images: that was checked.
    for argument in devices.arguments.iter_mut().filter(|argument| argument.contains("file.filename=/dev/fdset/")) {
        *argument = argument.replacen("file.filename=", "file.locking=off,file.filename=", 1);
    }
    devices.arguments.extend(["-incoming".to_owned(), format!("fd:{}", state.as_raw_fd()), "-S".to_owned()]);
    devices.descriptors.push(state);
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
