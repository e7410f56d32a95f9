//! The modes of migration: `save`, `hvm_save`, `restore`, `hvm_restore` and `resume_slow`.
//!
//! Their caller suspends the guest and saves its QEMU: between the line `suspend:` and the caller's answer. The stream is
//! libxenguest's alone, and not a byte behind its end is read.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::guest::platform_of;
use super::options::Options;
use super::ports;
use super::reply::Control;
use crate::builder::numa_placement::NodePlan;
use crate::builder::platform::set_scheduling;
use crate::config::autoballoon::Dom0Share;
use crate::config::guest::{Claim, Guest};
use crate::config::placement::Placement;
use crate::config::platform::Platform;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::{AtStage, Error, Failure};
use crate::memory::{Gfn, Kib, Kind, Model, Pages, Plan, Request};
use crate::migration::checker::StateChecker;
use crate::migration::helper::{Answer, Event, Helper, Task};
use crate::migration::restore::{RestoringStream, bounds_of_domain};
use crate::migration::send::{AtLimit, LiveLimits};
use crate::migration::stream::LOW_FRAMES;
use crate::os::fd::take;
use crate::payload::boot_files::BootFiles;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, HvmParam, ImageLimits, Round};

/// How long a migration may take. Its caller has deadlines of its own, and kills the helper.
const TIMEOUT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest answer of the caller, as the original's.
const LONGEST_ANSWER: usize = 128;

/// The bounds of a live save: those of libxenguest.
const LIMITS: LiveLimits = LiveLimits { most_rounds: 5, downtime: None, at_limit: AtLimit::Suspend };

/// A mode of migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Save,
    Restore,
    ResumeSlow,
}

impl Mode {
    pub(super) fn of(word: &str) -> Option<Self> {
        match word {
            "save" | "hvm_save" => Some(Self::Save),
            "restore" | "hvm_restore" => Some(Self::Restore),
            "resume_slow" => Some(Self::ResumeSlow),
            _ => None,
        }
    }

    /// The word before the errno in an error, as the original has it.
    pub(super) const fn call(self) -> &'static str {
        match self {
            Self::Save => "xc_domain_save",
            Self::Restore => "xc_domain_restore",
            Self::ResumeSlow => "xc_domain_resume",
        }
    }
}

/// What the command line asks for.
pub(super) struct Job {
    mode: Mode,
    domid: DomId,
    /// The stream; `None` to resume.
    stream: Option<OwnedFd>,
    live: bool,
    force: bool,
    /// The event channels of the store ring and of the console ring, to restore.
    ports: (u32, u32),
    /// The node of the host that a restored guest's memory comes from.
    node: Option<u32>,
}

impl Job {
    /// Checks that everything is there that the mode needs, and takes the stream.
    ///
    /// # Errors
    /// What is missing, or what is no such number.
    pub(super) fn of(options: &Options, mode: Mode) -> Result<Self, String> {
        let domid = guest_number(options)?;
        let stream = match mode {
            Mode::ResumeSlow => None,
            Mode::Save | Mode::Restore => {
                let number = options.stream.ok_or_else(|| missing("fd"))?;
                Some(take(number).map_err(|error| format!("-fd: {error}"))?.fd)
            }
        };
        let ports = match mode {
            Mode::Restore => (number("store_port", options.store_port)?, number("console_port", options.console_port)?),
            _ => (0, 0),
        };
        let node = node_of(options)?;
        Ok(Self { mode, domid, stream, live: options.live, force: options.force, ports, node })
    }

    /// Carries it out, and returns the two numbers of the answer: the frames of the rings, or zeros.
    ///
    /// # Errors
    /// The step and the call that failed.
    pub(super) fn run(
        self,
        context: &Context<'_>,
        control: &mut Control,
        caller: Option<OwnedFd>,
    ) -> Result<(Gfn, Gfn), Failure> {
        let domid = self.domid;
        let domain = domain_of(context, domid)?;
        match self.mode {
            Mode::Save => self.save(context, &domain, control, caller).map(|()| (Gfn(0), Gfn(0))),
            Mode::Restore => self.restore(context, domain),
            Mode::ResumeSlow => {
                context.step(Stage::Resume, || context.xen.resume_anew(domid)).map(|()| (Gfn(0), Gfn(0)))
            }
        }
    }

    fn save(
        self,
        context: &Context<'_>,
        domain: &DomainInfo,
        control: &mut Control,
        caller: Option<OwnedFd>,
    ) -> Result<(), Failure> {
        check_may_move(context, domain.domid, self.force)?;
        let failed = || Error::Internal("a save has no stream".to_owned());
        let stream = self.stream.ok_or_else(failed).at(Stage::CheckInput)?;
        let mut caller = caller.map(File::from);
        context.step::<_, Error>(Stage::SaveMemory, || {
            let mut helper = start_save(domain, stream, self.live)?;
            let start = Instant::now();
            loop {
                let answer = match helper.wait(context.cancel, || ())? {
                    Event::Done(_) => return Ok(()),
                    // Its caller has QEMU record what it changes.
                    Event::LogDirty(_) => Answer::GoOn,
                    Event::Round(round) => {
                        tell(round);
                        LIMITS.answer(round, domain.owned_pages, start.elapsed())
                    }
                    Event::Suspend => {
                        control.send("suspend:").map_err(Error::io("ask the caller to suspend the guest"))?;
                        hear(caller.as_mut()).map_err(Error::io("hear that the guest is suspended"))?;
                        Answer::GoOn
                    }
                };
                helper.answer(answer)?;
            }
        })
    }

    fn restore(self, context: &Context<'_>, domain: DomainInfo) -> Result<(Gfn, Gfn), Failure> {
        let failed = || Error::Internal("a restore has no stream".to_owned());
        let stream = self.stream.ok_or_else(failed).at(Stage::CheckInput)?;
        Restoring::start(context, domain, stream, self.ports, self.node)?.finish(context)
    }
}

fn missing(option: &str) -> String {
    format!("missing command line options: -{option}")
}

fn number(option: &str, value: Option<i32>) -> Result<u32, String> {
    let value = value.ok_or_else(|| missing(option))?;
    u32::try_from(value).map_err(|_| format!("'{value}' is not a valid integer (-{option})"))
}

/// The guest of the command line.
///
/// # Errors
/// If it names none.
pub(super) fn guest_number(options: &Options) -> Result<DomId, String> {
    let domid = DomId::new(number("domid", options.domid)?).filter(|domid| *domid != DomId::DOM0);
    domid.ok_or_else(|| "-domid is no guest".to_owned())
}

/// The node of the host for the guest's memory, if the command line names one.
///
/// # Errors
/// If it is no number.
pub(super) fn node_of(options: &Options) -> Result<Option<u32>, String> {
    options.mem_pnode.map(|node| number("mem_pnode", Some(node))).transpose()
}

/// Finds the domain of a guest.
///
/// # Errors
/// [`Error::NoSuchDomain`]; an error of Xen.
pub(super) fn domain_of(context: &Context<'_>, domid: DomId) -> Result<DomainInfo, Failure> {
    context.step::<_, Error>(Stage::CheckInput, || {
        context.xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))
    })
}

/// Checks that the guest's owner lets it move.
///
/// # Errors
/// [`Obstacle::NoMigrate`]; an error of xenstored.
pub(super) fn check_may_move(context: &Context<'_>, domid: DomId, force: bool) -> Result<(), Failure> {
    context.step::<_, Error>(Stage::CheckInput, || {
        if !force && platform_of(&context.store.plain(), &XenstorePaths::new(domid))?.nomigrate {
            return Err(MigrationError::Obstacle { domid, obstacle: Obstacle::NoMigrate }.into());
        }
        Ok(())
    })
}

/// Starts the child that saves a guest.
///
/// # Errors
/// If it cannot be started.
pub(super) fn start_save(domain: &DomainInfo, stream: OwnedFd, live: bool) -> Result<Helper, Error> {
    let frames = Pages(domain.max_pages.0.saturating_add(LOW_FRAMES));
    Helper::start(Task::Save { live }, domain.domid, stream, frames, TIMEOUT)
}

/// Writes a round into the log.
pub(super) fn tell(round: Round) {
    log::info!("round {}: {} frames written, {:?} changed", round.iteration, round.written.0, round.dirty);
}

/// A guest whose memory is being read.
pub(super) struct Restoring {
    domain: DomainInfo,
    guest: Guest,
    stream: RestoringStream,
}

impl Restoring {
    /// Sets what the keys in xenstore say, and begins to read.
    ///
    /// # Errors
    /// The step and the call that failed.
    pub(super) fn start(
        context: &Context<'_>,
        domain: DomainInfo,
        stream: OwnedFd,
        ports_of_rings: (u32, u32),
        node: Option<u32>,
    ) -> Result<Self, Failure> {
        let domid = domain.domid;
        let guest = context.step(Stage::CheckInput, || guest_of(context, &domain))?;
        if domain.kind == Kind::Hvm {
            context.step(Stage::PlatformParams, || {
                context.xen.set_hvm_param(domid, HvmParam::HpetEnabled, guest.platform.hpet.into())
            })?;
        }
        if guest.platform.time_offset != 0 {
            context.step(Stage::PlatformParams, || context.xen.set_time_offset(domid, guest.platform.time_offset))?;
        }
        set_scheduling(context, domid, &guest, &NodePlan::default())?;
        if let Some(node) = node {
            context.step(Stage::Scheduling, || context.xen.set_node_affinity(domid, node))?;
        }
        let ports = ports((ports_of_rings.0, DomId::DOM0), (ports_of_rings.1, DomId::DOM0));
        let (checker, bounds) = (StateChecker::this_program(), bounds_of_domain(&domain));
        let stream = context.step(Stage::RestoreMemory, || {
            RestoringStream::start(domid, &checker, (stream, 0), bounds, ports.into(), TIMEOUT)
        })?;
        Ok(Self { domain, guest, stream })
    }

    /// What becomes readable when libxenguest has ended.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.stream.end()
    }

    /// Waits for the end, and returns the frames of the store ring and of the console ring.
    ///
    /// # Errors
    /// The step and the call that failed.
    pub(super) fn finish(self, context: &Context<'_>) -> Result<(Gfn, Gfn), Failure> {
        let Self { domain, guest, stream } = self;
        let (checked, rings) = context.step(Stage::RestoreMemory, || stream.finish(context.cancel))?;
        log::info!("{} pages were restored", checked.pages.0);
        if let Some(id) = guest.platform.generation_id.as_deref().filter(|_| domain.kind == Kind::Hvm) {
            context.step(Stage::HvmParams, || write_generation_id(context, domain.domid, id))?;
        }
        Ok(rings)
    }
}

/// The guest as far as its keys tell of it.
fn guest_of(context: &Context<'_>, domain: &DomainInfo) -> Result<Guest, Error> {
    let platform: Platform = platform_of(&context.store.plain(), &XenstorePaths::new(domain.domid))?;
    let plan = Plan::new(&Request {
        kind: domain.kind,
        model: Model::Xapi,
        video: Some(Kib::ZERO),
        vcpus: domain.existing_vcpus,
        ..Request::new(domain.max_pages.to_kib())
    })?;
    Ok(Guest {
        plan,
        boot_files: BootFiles::Saved { firmware: None, image: Vec::new() },
        platform,
        placement: Placement::NONE,
        limits: ImageLimits::default(),
        devices: Vec::new(),
        wait_memory: Duration::ZERO,
        claim: Claim::Nothing { device_model: false },
        build_locks: false,
        dom0_share: Dom0Share::NOTHING,
    })
}

/// Writes the generation ID where the guest finds it: two numbers of 64 bits (`HVM_PARAM_VM_GENERATION_ID_ADDR`).
fn write_generation_id(context: &Context<'_>, domid: DomId, id: &str) -> Result<(), Error> {
    const PAGE: u64 = 4096;
    let address = context.xen.hvm_param(domid, HvmParam::GenerationId)?;
    let numbers =
        id.split_once(':').and_then(|(first, second)| Some([first.parse::<u64>().ok()?, second.parse().ok()?]));
    let (Some(numbers), true) = (numbers, address % PAGE <= PAGE - 16 && address != 0) else { return Ok(()) };
    let mut page = context.xen.map(domid, Gfn(address / PAGE), Pages(1))?;
    let offset = usize::try_from(address % PAGE).unwrap_or(0);
    page.write(offset, &numbers.map(u64::to_le_bytes).concat());
    Ok(())
}

/// Waits for a line of the caller's, whatever is in it.
fn hear(caller: Option<&mut File>) -> io::Result<()> {
    let Some(caller) = caller else { return Err(io::Error::other("there is no -controlinfd")) };
    let mut byte = [0];
    for _ in 0..LONGEST_ANSWER {
        match caller.read(&mut byte) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte == *b"\n" => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("no line of at most {LONGEST_ANSWER} bytes")))
}
