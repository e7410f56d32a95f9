//! Suspends a guest for the time in which its state is read, and lets it run on.
//!
//! A kernel with Xen's drivers is asked through `control/shutdown`, and suspends itself. Only that kernel can give up its
//! shared pages, grants and event channels. A guest without such drivers is stopped from outside
//! (`domain_suspend_callback_common`, tools/libs/light/libxl_dom_suspend.c, Xen 4.17).

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cancel::Cancel;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::{Error, Wait};
use crate::memory::Kind;
use crate::qemu::command_line::socket;
use crate::qemu::monitor::Monitor;
use crate::xen::{DomId, DomainInfo, DomainRef, HvmParam, Interface, ShutdownReason, Store, XenError};

/// The word in `control/shutdown` that asks a guest to suspend itself.
const SUSPEND: &str = "suspend";

/// How long a guest that has answered may take to suspend itself after a signal has ended the run.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// The intervals between two looks at a guest that suspends itself: Linux takes some 10 ms for it, in which its downtime has
/// begun already. One that takes longer than a second may take very long.
const POLL: Duration = Duration::from_millis(1);
const SLOW_POLL: Duration = Duration::from_millis(20);

/// How a guest can be suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuspendWay {
    /// Its kernel does it when it is asked.
    Asked,
    /// It has no drivers of Xen that would have to know: it is stopped from outside.
    Stopped,
}

/// Finds how a guest can be suspended.
///
/// # Errors
/// [`MigrationError::Obstacle`] if it cannot; an error of Xen.
pub fn suspend_way(xen: &Interface, domain: &DomainInfo) -> Result<SuspendWay, Error> {
    let domid = domain.domid;
    let refused = |obstacle| Err(MigrationError::Obstacle { domid, obstacle }.into());
    if domain.kind == Kind::Pv {
        if domain.cpu_time.is_zero() {
            return refused(Obstacle::NeverRan);
        }
    } else {
        let drivers = xen.hvm_param(domid, HvmParam::CallbackIrq)? != 0;
        match domain.kind {
            // A guest in a sleep state of ACPI runs no driver.
            Kind::Hvm if !drivers || xen.hvm_param(domid, HvmParam::AcpiState)? != 0 => return Ok(SuspendWay::Stopped),
            // It has set nothing up yet that could be lost.
            Kind::Pvh if domain.cpu_time.is_zero() => return Ok(SuspendWay::Stopped),
            // A guest that was restored does not write control/feature-suspend again.
            Kind::Pvh if !drivers => return refused(Obstacle::NoDrivers),
            _ => {}
        }
    }
    if domain.paused {
        return refused(Obstacle::Paused);
    }
    Ok(SuspendWay::Asked)
}

/// Suspends a guest. Its kernel may take `timeout` for its answer, and as long again until it has shut down.
///
/// If the guest does not answer, the request is taken back. A guest that has answered may suspend itself later.
///
/// # Errors
/// [`Error::TimedOut`]; [`MigrationError::ShutDown`]; [`Error::NoSuchDomain`] if it is gone; an error of Xen or xenstored;
/// [`Error::Interrupted`].
pub fn suspend(context: &Context<'_>, domain: DomainRef, way: SuspendWay, timeout: Duration) -> Result<(), Error> {
    if way == SuspendWay::Stopped {
        context.xen.shut_down_to_suspend(domain.domid)?;
    } else {
        let key = request_key(domain);
        context.store.plain().write(&key, SUSPEND)?;
        let answered = wait_for(context.cancel, timeout, || {
            // A guest that was quick has shut down by now.
            Ok(is_suspended(context.xen, domain)? || context.store.plain().read(&key)?.as_deref() != Some(SUSPEND))
        });
        let gave_up = match answered {
            Ok(true) => None,
            Ok(false) => Some(timed_out("has not answered the request to suspend itself", domain, timeout, false)),
            Err(error) => Some(error),
        };
        if let Some(error) = gave_up
            && take_back(context.store, domain)?
        {
            return Err(error);
        }
    }
    let suspended = || is_suspended(context.xen, domain);
    match wait_for(context.cancel, timeout, suspended) {
        Ok(true) => Ok(()),
        // It can be resumed only once it has done what it was asked for.
        Err(error @ Error::Interrupted { .. }) if wait_for(&Cancel::default(), LAST_WAIT, suspended)? => Err(error),
        Ok(false) | Err(Error::Interrupted { .. }) => {
            Err(timed_out("has not shut down to suspend itself", domain, timeout, true))
        }
        Err(error) => Err(error),
    }
}

fn request_key(domain: DomainRef) -> String {
    XenstorePaths::new(domain.domid).of_domain("control/shutdown")
}

fn timed_out(what: &str, domain: DomainRef, after: Duration, answered: bool) -> Error {
    Error::TimedOut { what: format!("domain {} {what}", domain.domid), after, wait: Wait::Suspend { answered } }
}

/// Takes the request back. Returns whether the guest had not answered it: it answers at any moment.
fn take_back(store: &Store, domain: DomainRef) -> Result<bool, XenError> {
    store.begin_rollback();
    let key = request_key(domain);
    store.transaction(|transaction| {
        let waits = transaction.read(&key)?.as_deref() == Some(SUSPEND);
        if waits {
            transaction.write(&key, "")?;
        }
        Ok(waits)
    })
}

/// Waits until `done`; false after `timeout`.
fn wait_for(cancel: &Cancel, timeout: Duration, mut done: impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
    let start = Instant::now();
    loop {
        if done()? {
            return Ok(true);
        }
        if start.elapsed() >= timeout {
            return Ok(false);
        }
        cancel.check()?;
        thread::sleep(if start.elapsed() < Duration::from_secs(1) { POLL } else { SLOW_POLL });
    }
}

/// Whether the domain has shut down to be suspended.
fn is_suspended(xen: &Interface, domain: DomainRef) -> Result<bool, Error> {
    let domid = domain.domid;
    let info = xen.find(domain)?.filter(|info| !info.dying);
    match info.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?.shutdown {
        None => Ok(false),
        Some(ShutdownReason::Suspend) => Ok(true),
        Some(reason) => Err(MigrationError::ShutDown { domid, reason }.into()),
    }
}

/// Lets a guest that was to be suspended, or is, run on: takes back a request that it has not answered, starts its QEMU again
/// and resumes it. Does nothing for a domain that is gone.
///
/// # Errors
/// What could not be done, as text.
pub fn resume(xen: &Interface, store: &Store, domain: DomainRef) -> Result<(), String> {
    let text = |error: XenError| error.to_string();
    let Some(info) = xen.find(domain).map_err(text)?.filter(|info| !info.dying) else { return Ok(()) };
    // Where xenstored does not answer, the guest runs on all the same.
    let mut problems: Vec<String> = take_back(store, domain).map_err(text).err().into_iter().collect();
    if has_device_model(&info) {
        problems.extend(run_qemu(domain).err());
    }
    // Asked again: the guest may have suspended itself until its request was taken back.
    if xen.find(domain).map_err(text)?.and_then(|info| info.shutdown) == Some(ShutdownReason::Suspend) {
        problems
            .extend(xen.resume_suspended(domain.domid).and_then(|()| store.resume(domain.domid)).map_err(text).err());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Ends the recording of changed pages that a live save has begun, in Xen and in QEMU. Nothing is done where none is on. A failure
/// costs the guest speed, and nothing else: it is a warning.
pub fn stop_recording(xen: &Interface, domain: &DomainInfo) {
    let of_qemu = if has_device_model(domain) { stop_qemu_recording(domain.domid) } else { Ok(()) };
    let of_xen = xen.stop_log_dirty(domain.domid).map_err(|error| error.to_string());
    for problem in [of_qemu, of_xen].into_iter().filter_map(Result::err) {
        log::warn!("domain {} still records which pages it changes: {problem}", domain.domid);
    }
}

fn stop_qemu_recording(domid: DomId) -> Result<(), String> {
    let no_signal = Cancel::default();
    let mut monitor = Monitor::open(&socket("libxl", domid), &no_signal).map_err(|error| error.to_string())?;
    // A QEMU that does not record ends by an assertion if it is to stop (`memory_global_dirty_log_do_stop`, softmmu/memory.c,
    // QEMU 7.2).
    for enable in [true, false] {
        let done = monitor.execute("xen-set-global-dirty-log", &json!({ "enable": enable }), None);
        done.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Whether a guest is suspended, or asked to suspend itself.
///
/// # Errors
/// An error of xenstored.
pub fn is_suspending(store: &Store, domain: &DomainInfo) -> Result<bool, XenError> {
    let asked = || store.plain().read(&request_key(domain.held()));
    Ok(domain.shutdown == Some(ShutdownReason::Suspend) || asked()?.as_deref() == Some(SUSPEND))
}

/// Whether a QEMU emulates devices for the guest: it has a monitor then. QEMU makes it before the guest runs.
#[must_use]
pub fn has_device_model(domain: &DomainInfo) -> bool {
    domain.kind == Kind::Hvm && socket("libxl", domain.domid).exists()
}

/// Starts the devices of a stopped QEMU. A signal does not end the wait for its answer: the guest needs them.
fn run_qemu(domain: DomainRef) -> Result<(), String> {
    let no_signal = Cancel::default();
    let mut monitor = Monitor::open(&socket("libxl", domain.domid), &no_signal).map_err(|error| error.to_string())?;
    let status = monitor.execute("query-status", &json!({}), None).map_err(|error| error.to_string())?;
    if status["running"] == true {
        return Ok(());
    }
    monitor.execute("cont", &json!({}), None).map(drop).map_err(|error| error.to_string())
}
