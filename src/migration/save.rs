//! Saves a guest to a file.
//!
//! The guest runs until libxenguest is ready to read its memory. From then on it is suspended, and every failure lets it run
//! on. It is destroyed only once the file is complete and on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::helper::{Event, Helper, Task, let_long_writes_fail};
use super::partial_file::PartialFile;
use super::stream;
use crate::context::Context;
use crate::domain::devices::devices_of;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::monitor::MonitorError;
use crate::error::{AtStage, Error, Failure, Wait};
use crate::lifecycle::balloon::set_target;
use crate::lifecycle::suspend::{SuspendWay, has_device_model, resume, suspend, suspend_way};
use crate::lifecycle::teardown::teardown;
use crate::memory::{Kib, Kind, Pages};
use crate::observer::{self, Progress, Unit};
use crate::os::sealed::MemoryFile;
use crate::qemu::command_line::socket;
use crate::qemu::helpers::Ending;
use crate::qemu::monitor::Monitor;
use crate::runs::journal::{JournalEntry, RunVerb, is_worked_on};
use crate::stage::Stage;
use crate::xen::{DomainInfo, XenError};

/// The frames of an HVM or PVH guest below 4 GiB, each of which takes a word in the file, even if it is a hole.
const LOW_FRAMES: u64 = 1 << 20;

/// What happens to the guest once it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is destroyed.
    Destroy,
    /// It runs on.
    Resume,
    /// It stays paused.
    Pause,
}

/// What is to be saved, where to, and in what time.
#[derive(Debug)]
pub struct SaveJob<'a> {
    /// The guest.
    pub domain: &'a DomainInfo,
    /// The file, which must not exist.
    pub path: &'a Path,
    /// What happens to the guest then.
    pub after: After,
    /// How long its kernel may take for each of the two steps of a suspension.
    pub suspend_timeout: Duration,
    /// How long the state may take to be written.
    pub timeout: Duration,
}

/// A saved guest.
#[derive(Debug, Serialize)]
pub struct Saved {
    /// The length of the file, in bytes.
    pub bytes: u64,
    /// How long the guest was suspended, in milliseconds. `None` if it is destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_ms: Option<u128>,
}

/// Saves a guest.
///
/// # Errors
/// [`MigrationError`]; [`Error::TimedOut`]; [`Error::Interrupted`]; an error of Xen, xenstored or the file system. The guest
/// then runs on, and there is no file, except behind [`MigrationError::StillSuspended`] and [`Error::LeftBehind`].
pub fn save(context: &Context<'_>, job: &SaveJob<'_>) -> Result<Saved, Failure> {
    let held = job.domain.held();
    let (way, configuration, mut file, mut run) = context.step::<_, Error>(Stage::CheckInput, || {
        let_long_writes_fail().map_err(Error::io("handle SIGXFSZ"))?;
        let way = look_for_obstacles(context, job.domain)?;
        let configuration = configuration(context, job.domain)?;
        let head = stream::head(&configuration)
            .map_err(|problem| MigrationError::BadFile { path: job.path.to_owned(), problem })?;
        let mut run = JournalEntry::begin(RunVerb::Save, held.uuid, Some(held.domid))?;
        // Behind this run's own entry: of two runs, at least one sees the other.
        if is_worked_on(held)? {
            return Err(obstacle(job.domain, Obstacle::Busy));
        }
        let file = PartialFile::create(job.path, &mut run, room(job.domain))?;
        Ok((way, head, file, run))
    })?;
    let written = write(context, job, way, &configuration, &mut file).and_then(|since| {
        if job.after == After::Destroy {
            // From here on, the file is the guest.
            run.set_saved().at(Stage::SaveMemory)?;
        }
        Ok(since)
    });
    let since = match written {
        Ok(since) => since,
        Err(failure) => return Err(give_up(context, job, file, run, failure)),
    };
    let bytes = file.length;
    match job.after {
        After::Destroy => {
            file.keep();
            let destroyed = observer::step(context.observer, Stage::Destroy, || {
                teardown(context.xen, context.store, held, Ending::InOrder).map_err(|cleanup| Error::LeftBehind {
                    domid: held.domid,
                    cleanup,
                    cause: None,
                })
            });
            if let Err(failure) = destroyed {
                run.leave();
                let aftermath = format!("{} has the guest", job.path.display());
                return Err(Failure { aftermath: Some(aftermath), ..failure });
            }
            Ok(Saved { bytes, suspended_ms: None })
        }
        After::Resume | After::Pause => {
            file.keep();
            let resumed = observer::step(context.observer, Stage::Resume, || {
                if job.after == After::Pause {
                    context.xen.pause(held.domid).map_err(|error| error.to_string()).map_err(still_suspended(job))?;
                }
                resume(context.xen, context.store, held).map_err(still_suspended(job))
            });
            if resumed.is_err() {
                run.leave();
            }
            resumed?;
            Ok(Saved { bytes, suspended_ms: Some(since.elapsed().as_millis()) })
        }
    }
}

fn still_suspended(job: &SaveJob<'_>) -> impl Fn(String) -> Error {
    let domid = job.domain.domid;
    move |problem| MigrationError::StillSuspended { domid, problem, cause: None }.into()
}

fn obstacle(domain: &DomainInfo, obstacle: Obstacle) -> Error {
    MigrationError::Obstacle { domid: domain.domid, obstacle }.into()
}

/// Lets the guest run on after a failure, and removes the file.
fn give_up(
    context: &Context<'_>,
    job: &SaveJob<'_>,
    file: PartialFile,
    mut run: JournalEntry,
    failure: Failure,
) -> Failure {
    let domid = job.domain.domid;
    drop(file);
    context.store.begin_rollback();
    let resumed = observer::step(context.observer, Stage::Resume, || {
        resume(context.xen, context.store, job.domain.held()).map_err(Error::Internal)
    });
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
        format!("domain {domid} goes on as before, and no file is left")
    };
    Failure { aftermath: Some(aftermath), ..failure }
}

/// Writes the whole file, and returns since when the guest is suspended.
fn write(
    context: &Context<'_>,
    job: &SaveJob<'_>,
    way: SuspendWay,
    head: &[u8],
    file: &mut PartialFile,
) -> Result<Instant, Failure> {
    let domain = job.domain;
    let mut helper = context.step::<_, Error>(Stage::SaveMemory, || {
        file.file.write_all(head).map_err(file.failed("write"))?;
        let stream = file.file.try_clone().map_err(file.failed("write"))?.into();
        let frames = Pages(domain.max_pages.0.saturating_add(LOW_FRAMES));
        let mut helper = Helper::start(Task::Save, domain.domid, stream, frames, job.timeout)?;
        match helper.wait(context, || ())? {
            Event::Suspend => Ok(helper),
            Event::Done(_) => Err(Error::Internal("a running guest was saved".to_owned())),
        }
    })?;
    let (since, emulator) = context.step::<_, Error>(Stage::Suspend, || {
        suspend(context, domain.held(), way, job.suspend_timeout)?;
        let since = Instant::now();
        let emulator = has_device_model(domain).then(|| save_devices(context, domain)).transpose()?;
        Ok((since, emulator))
    })?;
    context.step::<_, Error>(Stage::SaveMemory, || {
        helper.go_on()?;
        let total = domain.owned_pages.to_kib().0;
        let at = &file.file;
        let done = helper.wait(context, || tell(context, position(at), total))?;
        if done != Event::Done(None) {
            return Err(Error::Internal("the child that saves the guest answers wrongly".to_owned()));
        }
        drop(helper);
        file.finish(&stream::tail_of(emulator.as_deref()))
    })?;
    Ok(since)
}

fn position(mut file: &File) -> Kib {
    Kib(file.stream_position().unwrap_or(0) / 1024)
}

fn tell(context: &Context<'_>, done: Kib, total: u64) {
    let text = format!("{} of {} MiB are saved", done.0 / 1024, total / 1024);
    context.observer.progress(&Progress {
        what: "saving",
        done: done.0.min(total),
        total,
        unit: Unit::Kib,
        text: &text,
    });
}

/// Stops QEMU's devices, and returns their state. QEMU gets a descriptor: a confined one can open no file.
fn save_devices(context: &Context<'_>, domain: &DomainInfo) -> Result<Vec<u8>, Error> {
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
        let arguments = json!({ "filename": format!("/dev/fdset/{set}"), "live": false });
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
fn look_for_obstacles(context: &Context<'_>, domain: &DomainInfo) -> Result<SuspendWay, Error> {
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
fn configuration(context: &Context<'_>, domain: &DomainInfo) -> Result<Value, Error> {
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

/// About the bytes that the file takes: the pages, and a word for each frame.
fn room(domain: &DomainInfo) -> u64 {
    const REST: u64 = 1 << 20;
    let low = if domain.kind == Kind::Pv { 0 } else { LOW_FRAMES };
    domain.owned_pages.0 * 4096 + (domain.max_pages.0 + low) * 8 + REST
}
