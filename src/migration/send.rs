//! The source of a migration: sends a guest to another host, and destroys it once it runs there.
//!
//! Until the word `GO` is sent, every failure lets the guest run on here. From then on it belongs to the other side: it stays
//! suspended here until the other side says that it runs there, or that it does not.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::Serialize;
use serde_json::json;

use super::helper::{Answer, Event, Helper, Task, let_long_writes_fail};
use super::outgoing::{configuration, destroy, look_for_obstacles, obstacle, save_devices, stays};
use super::stream;
use super::wire::{GO, READY, RECEIVED, REPORT, Wire};
use crate::config::name::DomainName;
use crate::context::Context;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::{Error, Failure};
use crate::lifecycle::arrival::{Arrival, forget};
use crate::lifecycle::departure::Departure;
use crate::lifecycle::migrated::{name_away, rename_back};
use crate::lifecycle::supervise::rename;
use crate::lifecycle::suspend::{SuspendWay, has_device_model, resume, stop_recording, suspend};
use crate::memory::{Kind, Pages};
use crate::observer::{self, Progress, Unit};
use crate::qemu::command_line::socket;
use crate::qemu::monitor::Monitor;
use crate::runs::journal::{JournalEntry, RunVerb, is_worked_on};
use crate::stage::Stage;
use crate::xen::{DomainInfo, Round, XenError};

/// With fewer changed pages than this, another round is not worth it (libxenguest's own rule, `simple_precopy_policy`,
/// tools/libs/guest/xg_sr_save.c, Xen 4.17).
const FEW_PAGES: Pages = Pages(50);

/// What a live migration does when the guest changes its memory too fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtLimit {
    /// It suspends the guest for as long as the rest takes.
    Suspend,
    /// It gives up: the guest stays where it is.
    GiveUp,
}

/// How long a guest runs while its memory is sent.
#[derive(Debug, Clone, Copy)]
pub struct LiveLimits {
    /// The most rounds.
    pub most_rounds: u32,
    /// The time for which the guest may be suspended, as far as it can be foreseen: the changed pages at the rate of the pages
    /// sent so far. `None`: a round with few changed pages is the last.
    pub downtime: Option<Duration>,
    /// What happens after the most rounds.
    pub at_limit: AtLimit,
}

impl LiveLimits {
    /// The answer to libxenguest after a round, where nothing is given up.
    pub fn answer(&self, round: Round, sent: Pages, elapsed: Duration) -> Answer {
        match self.after(round, sent, elapsed) {
            Next::Round => Answer::GoOn,
            Next::Suspend => Answer::Stop,
            Next::GiveUp { .. } => Answer::Refuse,
        }
    }

    /// What follows a round, `elapsed` after the first began, if so many pages are `sent`.
    fn after(&self, round: Round, sent: Pages, elapsed: Duration) -> Next {
        // Before the first round, every page counts as changed.
        let Some(dirty) = round.dirty.filter(|_| round.iteration > 0) else { return Next::Round };
        let foreseen = elapsed.as_secs_f64() * as_f64(dirty) / as_f64(Pages(sent.0.max(1)));
        if dirty < FEW_PAGES || self.downtime.is_some_and(|downtime| foreseen <= downtime.as_secs_f64()) {
            return Next::Suspend;
        }
        match self.at_limit {
            _ if round.iteration < self.most_rounds => Next::Round,
            AtLimit::Suspend => Next::Suspend,
            AtLimit::GiveUp => Next::GiveUp { dirty, foreseen: Duration::from_secs_f64(foreseen) },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_f64(pages: Pages) -> f64 {
    pages.0 as f64
}

#[derive(Debug, PartialEq)]
enum Next {
    Round,
    Suspend,
    GiveUp { dirty: Pages, foreseen: Duration },
}

/// A guest to migrate, and the time that it may take.
#[derive(Debug)]
pub struct MigrateJob<'a> {
    /// The guest.
    pub domain: &'a DomainInfo,
    /// Its limits while it runs meanwhile; `None` suspends it before its memory is sent.
    pub live: Option<LiveLimits>,
    /// How long its kernel may take for each of the two steps of a suspension.
    pub suspend_timeout: Duration,
    /// How long its state may take to be sent.
    pub timeout: Duration,
    /// How long the other side may take, once it has the state, until the guest runs there.
    pub answer_timeout: Duration,
}

/// A guest that runs on the other side.
#[derive(Debug, Serialize)]
pub struct Migrated {
    /// How long the guest was suspended until the other side said that it runs, in milliseconds.
    pub downtime_ms: u128,
    /// The rounds in which memory was sent, the last included.
    pub rounds: u32,
    /// The pages that were sent before the guest was suspended, counted each time.
    pub pages_sent_live: Pages,
}

/// Migrates a guest over a connection. If the last answer is lost, `ask` asks the other side where the guest is.
///
/// # Errors
/// [`MigrationError`]; [`Error::TimedOut`]; [`Error::Interrupted`]; an error of Xen or xenstored. The guest then runs on here,
/// except after [`MigrationError::Undecided`], [`MigrationError::StillSuspended`] and [`Error::LeftBehind`].
pub fn migrate(
    context: &Context<'_>,
    job: &MigrateJob<'_>,
    wire: &mut Wire,
    ask: &dyn Fn() -> Result<Arrival, String>,
) -> Result<Migrated, Failure> {
    let held = job.domain.held();
    let (way, head, name, mut run) = context.step::<_, Error>(Stage::CheckInput, || {
        let_long_writes_fail().map_err(Error::io("handle SIGXFSZ"))?;
        let way = look_for_obstacles(context, job.domain)?;
        if job.live.is_some() && job.domain.kind == Kind::Pv && !context.xen.physinfo()?.shadow {
            return Err(obstacle(job.domain, Obstacle::NoShadow));
        }
        let configuration = configuration(context, job.domain)?;
        let name = configuration["c_info"]["name"].as_str().unwrap_or_default().to_owned();
        let name: DomainName = name.parse().map_err(|reason| obstacle(job.domain, Obstacle::Name { reason }))?;
        name_away(&name).map_err(|reason| obstacle(job.domain, Obstacle::Name { reason }))?;
        let version = context.xen.version()?;
        let more = json!({
            "pages": job.domain.owned_pages,
            "qemu": has_device_model(job.domain),
            "xen": release(&version.version),
        });
        let head = stream::head(&configuration, Some(&more)).map_err(MigrationError::BadConfiguration)?;
        let run = JournalEntry::begin(RunVerb::Migrate, held.uuid, Some(held.domid))?;
        // Behind this run's own entry: of two runs, at least one sees the other.
        if is_worked_on(held)? {
            return Err(obstacle(job.domain, Obstacle::Busy));
        }
        Ok((way, head, name, run))
    })?;
    let mut progress = Sending { since: None, rounds: 1, first: None, sent: Pages(0) };
    let sent = send(context, job, wire, way, &head, &mut progress).and_then(|()| {
        context.step::<_, Error>(Stage::HandOver, || {
            rename(context, held, &name_away(&name).map_err(Error::Internal)?)?;
            // From here on, the guest is the other side's.
            run.set_saved()
        })
    });
    if let Err(failure) = sent {
        return Err(give_up(context, job, &name, run, failure));
    }
    let status = observer::step(context.observer, Stage::HandOver, || hand_over(wire));
    match status {
        Ok(0) => {}
        Ok(status) => {
            let failure = Failure {
                stage: Stage::HandOver,
                error: MigrationError::NotStarted { status }.into(),
                aftermath: None,
            };
            return Err(give_up(context, job, &name, run, failure));
        }
        Err(Failure { error, .. }) => {
            let lost = error.to_string();
            // A receiver that still waits for the word removes its copy now.
            wire.cut();
            log::warn!("{lost}: the other side is asked where the guest is");
            match ask() {
                Ok(Arrival::Runs { .. }) => {
                    log::warn!("the other side says that the guest runs there")
                }
                Ok(Arrival::Never) => {
                    let error = MigrationError::AnswerLost { problem: lost }.into();
                    let failure = Failure { stage: Stage::HandOver, error, aftermath: None };
                    return Err(give_up(context, job, &name, run, failure));
                }
                other => {
                    run.leave();
                    let problem = format!("{lost}; {}", open_answer(other));
                    let away = name_away(&name).map_or_else(|_| name.to_string(), |away| away.to_string());
                    let error = MigrationError::Undecided { domid: held.domid, name: away, problem };
                    return Err(Failure { stage: Stage::HandOver, error: error.into(), aftermath: None });
                }
            }
        }
    }
    let downtime_ms = progress.since.map_or(0, |since| since.elapsed().as_millis());
    destroy(context, held, Departure::Migrated, &mut run, || format!("{name} runs on the other side"))?;
    forget(held.uuid);
    Ok(Migrated { downtime_ms, rounds: progress.rounds, pages_sent_live: progress.sent })
}

/// An answer that does not decide.
fn open_answer(answer: Result<Arrival, String>) -> String {
    match answer {
        Ok(Arrival::Stands { domid } | Arrival::Runs { domid }) => {
            format!("asked again, the other side says that the guest is there, as domain {domid}, and does not run")
        }
        Ok(Arrival::Gone) => "asked again, the other side says that the guest was there, and is gone".to_owned(),
        Ok(Arrival::Unknown | Arrival::Never) => "asked again, the other side does not know this guest".to_owned(),
        Err(problem) => format!("it cannot be asked again: {problem}"),
    }
}

/// The major and the minor number of a version such as 4.17.7.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// How far the sending is.
#[derive(Debug)]
struct Sending {
    /// Since when the guest is suspended.
    since: Option<Instant>,
    rounds: u32,
    /// The frames of the first round, holes too.
    first: Option<Pages>,
    sent: Pages,
}

impl Sending {
    /// Counts the pages: libxenguest counts the frames, of which the first round has every hole as well.
    fn count(&mut self, round: Round, owned: Pages) {
        self.rounds = round.iteration + 1;
        if round.iteration > 0 {
            let first = *self.first.get_or_insert(round.written);
            self.sent = Pages(owned.0 + round.written.0.saturating_sub(first.0));
        }
    }
}

/// Sends the guest, and waits until the other side has it.
fn send(
    context: &Context<'_>,
    job: &MigrateJob<'_>,
    wire: &mut Wire,
    way: SuspendWay,
    head: &[u8],
    progress: &mut Sending,
) -> Result<(), Failure> {
    let domain = job.domain;
    let mut helper = context.step::<_, Error>(Stage::HandOver, || {
        wire.expect(READY, "its readiness")?;
        wire.write(head, "the configuration")?;
        let frames = Pages(domain.max_pages.0.saturating_add(stream::LOW_FRAMES));
        Helper::start(Task::Save { live: job.live.is_some() }, domain.domid, wire.output()?, frames, job.timeout)
    })?;
    let emulator = context.step::<_, Error>(Stage::SaveMemory, || {
        let start = Instant::now();
        let mut emulator = None;
        loop {
            let event = helper.wait(context.cancel, || ()).map_err(of_connection)?;
            let answer = match event {
                Event::Done(_) => break Ok(emulator),
                Event::LogDirty(on) => {
                    if has_device_model(domain) {
                        record(context, domain, on)?;
                    }
                    Answer::GoOn
                }
                Event::Round(round) => {
                    progress.count(round, domain.owned_pages);
                    tell(context, domain, round, progress.sent);
                    match job.live.map(|limits| limits.after(round, progress.sent, start.elapsed())) {
                        None | Some(Next::Round) => Answer::GoOn,
                        Some(Next::Suspend) => Answer::Stop,
                        Some(Next::GiveUp { dirty, foreseen }) => {
                            // libxenguest ends the recording of changes.
                            helper.answer(Answer::Refuse)?;
                            drop(helper.wait(context.cancel, || ()));
                            let rounds = round.iteration;
                            return Err(MigrationError::TooManyChanges { rounds, dirty, foreseen }.into());
                        }
                    }
                }
                Event::Suspend => {
                    suspend(context, domain.held(), way, job.suspend_timeout)?;
                    progress.since = Some(Instant::now());
                    emulator = has_device_model(domain).then(|| save_devices(context, domain, true)).transpose()?;
                    Answer::GoOn
                }
            };
            helper.answer(answer)?;
        }
    })?;
    context.step(Stage::HandOver, || {
        // The guest stands still.
        wire.hurry(job.answer_timeout);
        wire.write(&stream::tail_of(emulator.as_deref()), "the state of QEMU")?;
        // While the other side is at work.
        drop(helper);
        wire.expect(RECEIVED, "that it has the guest")
    })
}

/// libxenguest's error where the other side is gone, as what it means.
fn of_connection(error: Error) -> Error {
    match &error {
        Error::Xen(XenError { errno: Some(errno @ (Errno::EPIPE | Errno::ECONNRESET)), .. }) => {
            MigrationError::ConnectionLost { what: "its memory", source: (*errno).into() }.into()
        }
        _ => error,
    }
}

/// Lets QEMU record which pages it changes.
fn record(context: &Context<'_>, domain: &DomainInfo, on: bool) -> Result<(), Error> {
    let arguments = json!({ "enable": on });
    Monitor::open(&socket("libxl", domain.domid), context.cancel)
        .and_then(|mut monitor| monitor.execute("xen-set-global-dirty-log", &arguments, None))
        .map_err(|error| MigrationError::Monitor(error).into())
        .map(drop)
}

fn tell(context: &Context<'_>, domain: &DomainInfo, round: Round, sent: Pages) {
    let (mib, total) = (sent.to_kib().0 / 1024, domain.owned_pages.to_kib());
    let text = match round.dirty.filter(|_| round.iteration > 0) {
        Some(dirty) => format!("round {}: {mib} MiB are sent, {} pages have changed since", round.iteration, dirty.0),
        None => format!("round {}: {mib} MiB are sent", round.iteration + 1),
    };
    context.observer.progress(&Progress {
        what: "migrating",
        done: sent.to_kib().0.min(total.0),
        total: total.0,
        unit: Unit::Kib,
        text: &text,
    });
}

/// Tells the other side to start the guest, and returns what came of it: 0 if it runs.
fn hand_over(wire: &Wire) -> Result<u8, Error> {
    wire.write(GO, "the word to start")?;
    wire.expect(REPORT, "whether the guest runs")?;
    let [status] = wire.array("whether the guest runs")?;
    if status != 0 {
        wire.expect(GO, "that its copy is gone")?;
    }
    Ok(status)
}

/// Lets the guest run on here after a failure.
fn give_up(
    context: &Context<'_>,
    job: &MigrateJob<'_>,
    name: &DomainName,
    run: JournalEntry,
    failure: Failure,
) -> Failure {
    let held = job.domain.held();
    let domid = held.domid;
    context.store.begin_rollback();
    let resumed = observer::step(context.observer, Stage::Resume, || {
        stop_recording(context.xen, job.domain);
        resume(context.xen, context.store, held).map_err(Error::Internal)
    });
    if let Err(problem) = rename_back(context, held, name) {
        log::error!("domain {domid} has not got its name {name} again: {problem}");
    }
    stays(domid, run, failure, resumed, "goes on here as before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_the_last_when_the_rest_is_short_or_there_were_too_many() {
        let limits = LiveLimits { most_rounds: 3, downtime: None, at_limit: AtLimit::Suspend };
        let round = |iteration, dirty| Round { iteration, written: Pages(1_050_000), dirty };
        let after = |limits: &LiveLimits, iteration, dirty: u64| {
            limits.after(round(iteration, Some(Pages(dirty))), Pages(10_000), Duration::from_secs(10))
        };
        assert_eq!(limits.after(round(2, None), Pages(10_000), Duration::ZERO), Next::Round, "a round begins");
        assert_eq!(after(&limits, 0, 0), Next::Round, "nothing is sent yet");
        assert_eq!(after(&limits, 1, 50), Next::Round);
        assert_eq!(after(&limits, 1, 49), Next::Suspend);
        assert_eq!(after(&limits, 3, 5000), Next::Suspend);
        // 1000 pages a second: 300 of them take 300 ms.
        let short = LiveLimits { downtime: Some(Duration::from_millis(300)), at_limit: AtLimit::GiveUp, ..limits };
        assert_eq!(after(&short, 1, 300), Next::Suspend);
        assert_eq!(after(&short, 1, 301), Next::Round);
        let given_up = Next::GiveUp { dirty: Pages(5000), foreseen: Duration::from_secs(5) };
        assert_eq!(after(&short, 3, 5000), given_up);
    }

    #[test]
    fn holes_are_no_pages() {
        let mut sending = Sending { since: None, rounds: 1, first: None, sent: Pages(0) };
        let mut count = |iteration, written, dirty: Option<u64>| {
            let round = Round { iteration, written: Pages(written), dirty: dirty.map(Pages) };
            sending.count(round, Pages(30_000));
            (sending.rounds, sending.sent)
        };
        assert_eq!(count(0, 0, Some(1 << 20)), (1, Pages(0)));
        assert_eq!(count(1, 1 << 20, None), (2, Pages(30_000)));
        assert_eq!(count(1, 1 << 20, Some(500)), (2, Pages(30_000)));
        assert_eq!(count(2, (1 << 20) + 500, None), (3, Pages(30_500)));
    }
}
