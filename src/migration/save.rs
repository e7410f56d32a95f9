//! Saves a guest to a file.
//!
//! The guest runs until libxenguest is ready to read its memory. From then on it is suspended, and every failure lets it run
//! on. It is destroyed only once the file is complete and on the disk.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::helper::{Answer, Event, Helper, Task, let_long_writes_fail};
use super::outgoing::{configuration, destroy, look_for_obstacles, obstacle, save_devices, stays};
use super::partial_file::PartialFile;
use super::stream;
use crate::context::Context;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::{AtStage, Error, Failure};
use crate::lifecycle::departure::Departure;
use crate::lifecycle::suspend::{SuspendWay, has_device_model, resume, suspend};
use crate::memory::{Kib, Kind, Pages};
use crate::observer::{self, Progress, Unit};
use crate::runs::journal::{JournalEntry, RunVerb, is_worked_on};
use crate::stage::Stage;
use crate::xen::DomainInfo;

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
        let head = stream::head(&configuration, None)
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
            destroy(context, held, Departure::Saved, &mut run, || format!("{} has the guest", job.path.display()))?;
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

/// Lets the guest run on after a failure, and removes the file.
fn give_up(
    context: &Context<'_>,
    job: &SaveJob<'_>,
    file: PartialFile,
    run: JournalEntry,
    failure: Failure,
) -> Failure {
    let domid = job.domain.domid;
    drop(file);
    context.store.begin_rollback();
    let resumed = observer::step(context.observer, Stage::Resume, || {
        resume(context.xen, context.store, job.domain.held()).map_err(Error::Internal)
    });
    stays(domid, run, failure, resumed, "goes on as before, and no file is left")
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
        let frames = Pages(domain.max_pages.0.saturating_add(stream::LOW_FRAMES));
        let mut helper = Helper::start(Task::Save { live: false }, domain.domid, stream, frames, job.timeout)?;
        match helper.wait(context.cancel, || ())? {
            Event::Suspend => Ok(helper),
            other => Err(Error::Internal(format!("the child that saves the guest says {other:?} too early"))),
        }
    })?;
    let (since, emulator) = context.step::<_, Error>(Stage::Suspend, || {
        suspend(context, domain.held(), way, job.suspend_timeout)?;
        let since = Instant::now();
        let emulator = has_device_model(domain).then(|| save_devices(context, domain, false)).transpose()?;
        Ok((since, emulator))
    })?;
    context.step::<_, Error>(Stage::SaveMemory, || {
        helper.answer(Answer::GoOn)?;
        let total = domain.owned_pages.to_kib().0;
        let at = &file.file;
        let done = helper.wait(context.cancel, || tell(context, position(at), total))?;
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

/// About the bytes that the file takes: the pages, and a word for each frame.
fn room(domain: &DomainInfo) -> u64 {
    const REST: u64 = 1 << 20;
    let low = if domain.kind == Kind::Pv { 0 } else { stream::LOW_FRAMES };
    domain.owned_pages.0 * 4096 + (domain.max_pages.0 + low) * 8 + REST
}
