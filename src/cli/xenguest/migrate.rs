//! The modes of migration: `save`, `hvm_save`, `restore`, `hvm_restore` and `resume_slow`.
//!
//! Their caller suspends the guest and saves its QEMU: between the line `suspend:` and the caller's answer. The stream is
//! libxenguest's alone, and not a byte behind its end is read.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::guest::platform_of;
use super::options::Options;
use super::ports;
use super::reply::Control;
use crate::builder::platform::set_scheduling;
use crate::config::autoballoon::Dom0Share;
use crate::config::guest::{Claim, Guest};
use crate::config::platform::Platform;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::{AtStage, Error, Failure};
use crate::memory::{Gfn, Kib, Kind, Model, Pages, Plan, Request};
use crate::migration::checker::StateChecker;
use crate::migration::helper::{Answer, Event, Helper, Task};
use crate::migration::libxc_records::Bounds;
use crate::migration::restore::{bounds_of_domain, restore_stream};
use crate::migration::send::{AtLimit, LiveLimits};
use crate::migration::stream::LOW_FRAMES;
use crate::os::fd::take;
use crate::payload::boot_files::BootFiles;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, HvmParam, ImageLimits};

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
}

impl Job {
    /// Checks that everything is there that the mode needs, and takes the stream.
    ///
    /// # Errors
    /// What is missing, or what is no such number.
    pub(super) fn of(options: &Options, mode: Mode) -> Result<Self, String> {
        let missing = |option: &str| format!("missing command line options: -{option}");
        let number = |option: &str, value: Option<i32>| {
            let value = value.ok_or_else(|| missing(option))?;
            u32::try_from(value).map_err(|_| format!("'{value}' is not a valid integer (-{option})"))
        };
        let domid = number("domid", options.domid)?;
        let domid = DomId::new(domid).filter(|domid| *domid != DomId::DOM0);
        let domid = domid.ok_or_else(|| "-domid is no guest".to_owned())?;
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
        Ok(Self { mode, domid, stream, live: options.live, force: options.force, ports })
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
        let domain = context.step::<_, Error>(Stage::CheckInput, || {
            context.xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))
        })?;
        match self.mode {
            Mode::Save => self.save(context, &domain, control, caller).map(|()| (Gfn(0), Gfn(0))),
            Mode::Restore => self.restore(context, &domain),
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
        let domid = self.domid;
        context.step::<_, Error>(Stage::CheckInput, || {
            let flag = XenstorePaths::new(domid).of_domain("platform/nomigrate");
            if !self.force && context.store.plain().read(&flag)?.is_some() {
                return Err(MigrationError::Obstacle { domid, obstacle: Obstacle::NoMigrate }.into());
            }
            Ok(())
        })?;
        let failed = || Error::Internal("a save has no stream".to_owned());
        let stream = self.stream.ok_or_else(failed).at(Stage::CheckInput)?;
        let mut caller = caller.map(File::from);
        context.step::<_, Error>(Stage::SaveMemory, || {
            let frames = Pages(domain.max_pages.0.saturating_add(LOW_FRAMES));
            let mut helper = Helper::start(Task::Save { live: self.live }, domid, stream, frames, TIMEOUT)?;
            let start = Instant::now();
            loop {
                let answer = match helper.wait(context, || ())? {
                    Event::Done(_) => return Ok(()),
                    // Its caller has QEMU record what it changes.
                    Event::LogDirty(_) => Answer::GoOn,
                    Event::Round(round) => {
                        log::info!(
                            "round {}: {} frames written, {:?} changed",
                            round.iteration,
                            round.written.0,
                            round.dirty
                        );
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

    fn restore(self, context: &Context<'_>, domain: &DomainInfo) -> Result<(Gfn, Gfn), Failure> {
        let domid = self.domid;
        let failed = || Error::Internal("a restore has no stream".to_owned());
        let stream = self.stream.ok_or_else(failed).at(Stage::CheckInput)?;
        let guest = context.step(Stage::CheckInput, || guest_of(context, domain))?;
        if domain.kind == Kind::Hvm {
            context.step(Stage::PlatformParams, || {
                context.xen.set_hvm_param(domid, HvmParam::HpetEnabled, guest.platform.hpet.into())
            })?;
        }
        if guest.platform.time_offset != 0 {
            context.step(Stage::PlatformParams, || context.xen.set_time_offset(domid, guest.platform.time_offset))?;
        }
        set_scheduling(context, domid, &guest)?;
        let ports = ports((self.ports.0, DomId::DOM0), (self.ports.1, DomId::DOM0));
        let bounds: Bounds = bounds_of_domain(domain);
        let (checked, rings) = context.step(Stage::RestoreMemory, || {
            restore_stream(context, domid, &StateChecker::this_program(), (stream, 0), bounds, ports.into(), TIMEOUT)
        })?;
        log::info!("{} pages were restored", checked.pages.0);
        if let Some(id) = guest.platform.generation_id.as_deref().filter(|_| domain.kind == Kind::Hvm) {
            context.step(Stage::HvmParams, || write_generation_id(context, domid, id))?;
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
