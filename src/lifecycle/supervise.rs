//! Looks after a guest: waits for its end, shuts it down, renames it, and counts its restarts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::name::DomainName;
use crate::context::Context;
use crate::domain::name_index;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::error::Error;
use crate::memory::Kind;
use crate::runs::build_lock;
use crate::xen::{DomainRef, HvmParam, ShutdownReason};

/// xenstored fires this watch when a domain shuts down or goes.
const RELEASED: &str = "@releaseDomain";

/// A wait without a deadline: the watch or a signal ends it. A guest that lives longer is looked at once a day.
const UNTIL_THE_WATCH: Duration = Duration::from_secs(24 * 60 * 60);

/// How a guest has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEnd {
    /// It has shut down, and still exists.
    Shutdown(ShutdownReason),
    /// It no longer exists: another program has destroyed it.
    Gone,
}

/// How a guest has ended, if it has. A suspended one has not: whoever saves it resumes or destroys it.
///
/// # Errors
/// If Xen does not answer.
pub fn end_of(context: &Context<'_>, domain: DomainRef) -> Result<Option<GuestEnd>, Error> {
    Ok(match context.xen.find(domain)? {
        None => Some(GuestEnd::Gone),
        Some(info) if info.dying => Some(GuestEnd::Gone),
        Some(info) => info.shutdown.filter(|reason| *reason != ShutdownReason::Suspend).map(GuestEnd::Shutdown),
    })
}

/// Lets the waits of this connection end when a guest ends. Once for each connection.
///
/// # Errors
/// An error of xenstored.
pub fn watch_ends(context: &Context<'_>) -> Result<(), Error> {
    Ok(context.store.watch(RELEASED)?)
}

/// Waits until the guest has ended, after [`watch_ends`].
///
/// # Errors
/// [`Error::Interrupted`] after a signal; an error of Xen or xenstored.
pub fn wait_end(context: &Context<'_>, domain: DomainRef) -> Result<GuestEnd, Error> {
    wait_end_within(context, domain, None).map(|end| end.unwrap_or(GuestEnd::Gone))
}

/// The same within a time; `None` if that has passed.
fn wait_end_within(
    context: &Context<'_>,
    domain: DomainRef,
    deadline: Option<Instant>,
) -> Result<Option<GuestEnd>, Error> {
    loop {
        if let Some(end) = end_of(context, domain)? {
            return Ok(Some(end));
        }
        context.cancel.check()?;
        let left = deadline.map_or(UNTIL_THE_WATCH, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(None);
        }
        context.store.wait(left)?;
    }
}

/// Asks a guest to power off, and waits until it has ended, after [`watch_ends`]. A guest without PV drivers gets ACPI's power button. `None` if it
/// has not ended by itself in time.
///
/// # Errors
/// [`Error::Interrupted`] after a signal; an error of Xen or xenstored.
pub fn shut_down(context: &Context<'_>, domain: DomainRef, timeout: Duration) -> Result<Option<GuestEnd>, Error> {
    let Some(info) = context.xen.find(domain)? else { return Ok(Some(GuestEnd::Gone)) };
    // Zero: no driver of the guest has asked Xen for events (xl_vmcontrol.c, `shutdown_domain`, Xen 4.17).
    let has_drivers = info.kind != Kind::Hvm || context.xen.hvm_param(domain.domid, HvmParam::Number(0))? != 0;
    if has_drivers {
        let node = XenstorePaths::new(domain.domid).of_domain("control/shutdown");
        context.store.plain().write(&node, "poweroff")?;
    } else {
        context.xen.press_power_button(domain.domid)?;
    }
    wait_end_within(context, domain, Some(Instant::now() + timeout))
}

/// Gives a domain another name, for every program: its nodes and libxl's configuration of it.
///
/// # Errors
/// The lock of names is not given up; an error of xenstored, or of the file.
pub fn rename(context: &Context<'_>, domain: DomainRef, name: &DomainName) -> Result<(), Error> {
    let paths = XenstorePaths::new(domain.domid);
    let _names = build_lock::take_names(|| context.cancel.check())?;
    // Each by itself: a transaction costs xenstored more, and a guest that migrates stands still meanwhile.
    context.store.batch(|transaction| {
        transaction.write(&paths.of_domain("name"), name.as_str())?;
        let of_vm = format!("/vm/{}/name", domain.uuid);
        if transaction.read(&of_vm)?.is_some() { transaction.write(&of_vm, name.as_str()) } else { Ok(()) }
    })?;
    name_index::note(domain, name.as_str());
    userdata::update(context, domain, |configuration| configuration["c_info"]["name"] = name.as_str().into())
}

/// How often a guest may start within a time.
#[derive(Debug, Clone)]
pub struct RestartLimit {
    most: usize,
    within: Duration,
    starts: VecDeque<Instant>,
}

impl RestartLimit {
    /// At most `most` restarts `within` a time.
    #[must_use]
    pub const fn new(most: usize, within: Duration) -> Self {
        Self { most, within, starts: VecDeque::new() }
    }

    /// Counts a restart at this time. `false`: it is one too many.
    pub fn allows(&mut self, now: Instant) -> bool {
        while self.starts.front().is_some_and(|start| now.saturating_duration_since(*start) > self.within) {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
        self.starts.len() <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_counted_within_a_time() {
        let (mut limit, start) = (RestartLimit::new(2, Duration::from_secs(10)), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(limit.allows(at(0)) && limit.allows(at(1)));
        assert!(!limit.allows(at(10)), "the third within 10 seconds");
        assert!(!limit.allows(at(11)), "it counts as well");
        assert!(limit.allows(at(30)));
        assert!(!RestartLimit::new(0, Duration::from_secs(1)).allows(start));
    }
}
