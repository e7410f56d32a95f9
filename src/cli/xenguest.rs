//! The interface for toolstacks of the xenopsd family: the command line and the answers of XenServer's `xenguest`.
//!
//! It does what that helper does and no more. The domain, its vCPUs, its memory limit, its paging pool and its event
//! channels are its caller's, who also introduces it to xenstored; the helper populates it, loads it, and sets what the
//! keys in xenstore say. Its caller ends it by SIGKILL: there is nothing that only this process could clean up.

mod clients;
mod emp;
mod fallback;
mod guest;
mod listen;
mod migrate;
mod options;
mod reply;

use std::ffi::OsString;

use options::Options;
use reply::Control;

use crate::builder::build::{BuildJob, build_guest};
use crate::builder::image::BuildResult;
use crate::builder::numa_placement::NodePlan;
use crate::builder::platform::{set_platform, set_scheduling};
use crate::builder::pre::{Ports, Prepared};
use crate::cancel::Cancel;
use crate::cli::print;
use crate::cli::reporter::Reporter;
use crate::context::Context;
use crate::error::{AtStage, Failure};
use crate::logging::destination::Destination;
use crate::logging::record::Format;
use crate::logging::{self, LogConfig};
use crate::memory::Kind;
use crate::os::entry::{FAILURE, SUCCESS};
use crate::stage::Stage;
use crate::xen::{DomId, EventPort, Interface, Store};

/// The mode in which emu-manager gives orders on a socket.
const LISTEN: &str = "listen";

/// Runs the helper with the arguments after its name, and answers with one line, then exit status 0 or 1.
#[must_use]
pub fn main(words: &[OsString]) -> u8 {
    let (control, line, succeeded) = match Options::parse(words) {
        Err(message) => (Control::of_words(words), reply::usage_line(&message), false),
        Ok(options) => {
            if options.supports.is_some() {
                return supports(&options, words);
            }
            let mode = options.mode.as_deref().unwrap_or_default();
            let migration = migrate::Mode::of(mode);
            // Before the descriptors are taken: the original shall have them.
            let original = options.fallback.as_deref().filter(|_| mode == LISTEN || migration.is_some());
            let refused = original.map(|original| reply::usage_line(&fallback::become_original(original, words)));
            match Control::take(options.control_out) {
                // There is nowhere else to say so.
                Err(message) => (Control::Stdout, reply::usage_line(&message), false),
                Ok(mut control) => {
                    let answered = match (refused, migration) {
                        (Some(line), _) => Err(line),
                        (None, Some(mode)) => migrated(&options, mode, words, &mut control),
                        (None, None) if mode == LISTEN => match listened(&options, words) {
                            // The client has heard of the end.
                            Ok(()) => return SUCCESS,
                            Err(line) => Err(line),
                        },
                        (None, None) => answer(&options, words),
                    };
                    match answered {
                        Ok(line) => (control, line, true),
                        Err(line) => (control, line, false),
                    }
                }
            }
        }
    };
    tell(control, &line, succeeded)
}

fn tell(mut control: Control, line: &str, succeeded: bool) -> u8 {
    let level = if succeeded { log::Level::Info } else { log::Level::Error };
    logging::conclude(level, line.trim_end());
    if !succeeded && !matches!(control, Control::Stderr) {
        // A reader of the terminal sees it there.
        print::print_stderr(line);
    }
    match control.send(line) {
        Ok(()) if succeeded => SUCCESS,
        Ok(()) => FAILURE,
        Err(error) => {
            print::print_stderr(&format!("the answer cannot be written: {error}"));
            FAILURE
        }
    }
}

/// `-supports FEATURE`. An original that the caller names answers for itself.
fn supports(options: &Options, words: &[OsString]) -> u8 {
    if let Some(original) = options.fallback.as_deref() {
        print::print_stderr(&fallback::become_original(original, words));
        return FAILURE;
    }
    match print::print_text(if options.supports.as_deref() == Some("migration-v2") { "true" } else { "false" }) {
        Ok(()) => SUCCESS,
        Err(_) => FAILURE,
    }
}

/// The line to answer, good or bad.
fn answer(options: &Options, words: &[OsString]) -> Result<String, String> {
    let usage = |message: &str| reply::usage_line(message);
    let mode = options.mode.as_deref().ok_or_else(|| usage("no `-mode' option specified"))?;
    let kind = match mode {
        "hvm_build" => Kind::Hvm,
        "pvh_build" => Kind::Pvh,
        "linux_build" => Kind::Pv,
        "test" => return Err(usage("test mode not supported")),
        _ => return Err(usage(&format!("unrecognized mode '{mode}'"))),
    };
    let _control_in = reply::take_control_in(options.control_in).map_err(|message| usage(&message))?;
    open_log(options, words).map_err(|message| usage(&message))?;
    let job = guest::Job::of(options, kind).map_err(|message| usage(&message))?;

    // Whatever happens, there is one line.
    match logging::catch(print::print_stderr, || Ok(run(&job)?)) {
        Ok((rings, protocol)) => Ok(reply::result_line(rings, protocol.as_deref())),
        Err(error) => Err(match error.downcast_ref::<Failure>() {
            Some(failure) => reply::failure_line(kind, failure),
            None => reply::usage_line(&format!("{error:#}")),
        }),
    }
}

/// The line to answer in a mode of migration.
fn migrated(
    options: &Options,
    mode: migrate::Mode,
    words: &[OsString],
    control: &mut Control,
) -> Result<String, String> {
    let usage = |message: &str| reply::usage_line(message);
    let caller = reply::take_control_in(options.control_in).map_err(|message| usage(&message))?;
    open_log(options, words).map_err(|message| usage(&message))?;
    let job = migrate::Job::of(options, mode).map_err(|message| usage(&message))?;
    let run = || with_host(|context| job.run(context, control, caller));
    match logging::catch(print::print_stderr, run) {
        Ok((store, console)) => Ok(format!("result:{} {}\n", store.0, console.0)),
        Err(error) => Err(migration_error_line(mode.call(), &error)),
    }
}

/// Serves emu-manager; else the line to answer.
fn listened(options: &Options, words: &[OsString]) -> Result<(), String> {
    let usage = |message: &str| reply::usage_line(message);
    let _control_in = reply::take_control_in(options.control_in).map_err(|message| usage(&message))?;
    open_log(options, words).map_err(|message| usage(&message))?;
    let job = listen::Job::of(options).map_err(|message| usage(&message))?;
    let run = || with_host(|context| job.serve(context));
    logging::catch(print::print_stderr, run).map_err(|error| {
        let restores = error.downcast_ref::<Failure>().is_some_and(|failure| failure.stage == Stage::RestoreMemory);
        let mode = if restores { migrate::Mode::Restore } else { migrate::Mode::Save };
        migration_error_line(mode.call(), &error)
    })
}

/// Does something with Xen and xenstored. SIGTERM ends it at once, as SIGKILL does.
fn with_host<T>(work: impl FnOnce(&Context<'_>) -> Result<T, Failure>) -> anyhow::Result<T> {
    let xen = Interface::open().at(Stage::Connect)?;
    let store = Store::open().at(Stage::Connect)?;
    let (reporter, cancel) = (Reporter::default(), Cancel::default());
    Ok(work(&Context { xen: &xen, store: &store, observer: &reporter, cancel: &cancel })?)
}

fn migration_error_line(call: &str, error: &anyhow::Error) -> String {
    match error.downcast_ref::<Failure>() {
        Some(failure) => reply::migration_failure_line(call, failure),
        None => reply::usage_line(&format!("{error:#}")),
    }
}

/// Sends the log where the original's goes: to syslog, where there is one, and to the file that the caller names.
///
/// # Errors
/// Where that file cannot be written.
fn open_log(options: &Options, words: &[OsString]) -> Result<(), String> {
    let domid = options.domid.map(|domid| format!("-{domid}")).unwrap_or_default();
    let mut destinations = vec![Destination::Syslog { ident: format!("xenguest{domid}-build") }];
    destinations.extend(options.debug_log.clone().map(Destination::File));
    let level = if options.debug { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    let stderr = Some(log::LevelFilter::Warn);
    logging::init(&LogConfig { destinations, format: Format::Text, level, stderr, best_effort: true })
        .map_err(|error| format!("-debuglog: {error}"))?;
    let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    log::info!("Command line: {}", shown.join(" "));
    Ok(())
}

/// Builds the guest; the frames of its rings, and for PV the name of its ABI.
fn run(job: &guest::Job) -> Result<(BuildResult, Option<String>), Failure> {
    let xen = Interface::open().at(Stage::Connect)?;
    let store = Store::open().at(Stage::Connect)?;
    // SIGTERM ends it at once, as SIGKILL does.
    let (reporter, cancel) = (Reporter::default(), Cancel::default());
    reporter.show_line();
    let context = Context { xen: &xen, store: &store, observer: &reporter, cancel: &cancel };

    let domain = context.step(Stage::CreateDomain, || job.check_domain(&context))?;
    let guest = context.step(Stage::CheckInput, || job.guest(&context, &domain))?;
    set_platform(&context, domain.domid, &guest)?;
    let prepared = Prepared { ports: job.ports, nodes: NodePlan::default() };
    set_scheduling(&context, domain.domid, &guest, &prepared.nodes)?;
    if let Some(node) = job.memory_node {
        context.step(Stage::Scheduling, || xen.set_node_affinity(domain.domid, node))?;
    }
    if job.kind == Kind::Hvm {
        context.step(Stage::Xenstore, || job.write_keys(&context, &guest))?;
    }
    let rings = build_guest(
        &context,
        BuildJob { domid: domain.domid, guest: &guest, prepared: &prepared, start_device_model: None },
    )?;
    if job.kind == Kind::Hvm {
        context.step(Stage::Xenstore, || job.write_modules(&context, rings))?;
    }
    let protocol =
        (job.kind == Kind::Pv).then(|| xen.native_protocol(domain.domid)).transpose().at(Stage::BootImage)?;
    Ok((rings, protocol))
}

/// The event channels that the caller allocated, and for whom.
fn ports(store: (u32, DomId), console: (u32, DomId)) -> Ports {
    Ports { store: EventPort(store.0), console: EventPort(console.0), store_domain: store.1, console_domain: console.1 }
}
