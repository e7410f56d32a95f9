//! build_pre: what an empty domain is given before its memory is populated.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::Serialize;

use super::claim::claim;
use super::dom0_memory::ShrinkingDom0;
use super::host_memory::free_memory;
use super::platform::{set_platform, set_scheduling};
use super::shortage::shortage;
use crate::config::guest::Guest;
use crate::context::Context;
use crate::error::{Error, Failure};
use crate::memory::{Kib, Kind};
use crate::observer::{Progress, Unit};
use crate::runs::build_lock::{self, BuildLocks};
use crate::runs::journal::JournalEntry;
use crate::stage::Stage;
use crate::xen::{DomId, EventPort};

/// How often the host's free memory is looked at.
const POLL: Duration = Duration::from_millis(250);
/// Free memory that has not grown for so long will not grow any more.
const STANDSTILL: Duration = Duration::from_secs(2);
/// The same where it is dom0 that gives memory away: its programs may have to be swapped out first. libxl's figure (`freemem`,
/// tools/xl/xl_vmcontrol.c, Xen 4.17).
const DOM0_STANDSTILL: Duration = Duration::from_secs(10);

/// The event channels of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// xenstore's.
    #[serde(rename = "store_port")]
    pub store: EventPort,
    /// The console's.
    #[serde(rename = "console_port")]
    pub console: EventPort,
    /// Where xenstored runs: dom0, or a domain of its own.
    #[serde(skip)]
    pub store_domain: DomId,
    /// Where xenconsoled runs.
    #[serde(skip)]
    pub console_domain: DomId,
}

/// Waits for free memory, sets the domain's limits and allocates its event channels, in this order:
///
/// 1. wait until the host has the footprint free, and keep others off it until 6 is done;
/// 2. vCPUs;
/// 3. timers, clocks and enlightenments, and where the vCPUs run. Xen 4.17 itself would crash where a guest that sees
///    Hyper-V is unpaused before it has vCPUs, as setting its TSC mode does (`viridian_time_domain_thaw`);
/// 4. the memory limit: xen max; for PV the memory map, one range up to static max;
/// 5. the paging pool (HVM and PVH): the shadow size, read back;
/// 6. what the domain will own is claimed, and told to other runs;
/// 7. the store's event channel, then the console's (guests depend on this order), unless `given`.
///
/// # Errors
/// [`Error::NotEnoughMemory`], or the call that Xen refused.
pub fn build_pre(
    context: &Context<'_>,
    domid: DomId,
    guest: &Guest,
    given: Option<(EventPort, EventPort)>,
    run: &mut JournalEntry,
) -> Result<Ports, Failure> {
    let xen = context.xen;
    let plan = &guest.plan;
    let memory = &plan.memory;
    let kind = plan.request.kind;

    // 1.
    let locks = context.step(Stage::WaitFreeMemory, || wait_free_memory(context, memory.footprint, guest))?;
    // 2.
    context.step(Stage::MaxVcpus, || xen.max_vcpus(domid, plan.vcpus))?;
    // 3.
    set_platform(context, domid, guest)?;
    set_scheduling(context, domid, guest)?;
    // 4.
    context.step(Stage::SetMaxMemory, || xen.set_max_memory(domid, memory.xen_max))?;
    if kind == Kind::Pv {
        context.step(Stage::MemoryMap, || xen.set_memory_map_limit(domid, memory.static_max))?;
    }
    // 5.
    if kind != Kind::Pv {
        context.step(Stage::PagingPool, || set_paging_pool(context, domid, plan.paging_pool))?;
    }
    // 6.
    context.step(Stage::ClaimMemory, || {
        // Told first: a claim that no record tells of would stay where this run is killed.
        run.reserve(guest.final_pages(), guest.is_claimed())?;
        claim(context, domid, guest)
    })?;
    drop(locks);
    // 7.
    context.step(Stage::EventChannels, || {
        let [store_domain, console_domain] = daemon_domains(context)?;
        let (store, console) = match given {
            Some(ports) => ports,
            None => (xen.alloc_event_port(domid, store_domain)?, xen.alloc_event_port(domid, console_domain)?),
        };
        Ok::<_, Error>(Ports { store, console, store_domain, console_domain })
    })
}

/// The domains in which xenstored and xenconsoled run; one that has not said so runs in dom0.
fn daemon_domains(context: &Context<'_>) -> Result<[DomId; 2], Error> {
    let paths = ["/tool/xenstored/domid", "/tool/xenconsoled/domid"];
    let mut domains = [DomId::DOM0; 2];
    for ((domain, path), text) in domains.iter_mut().zip(paths).zip(context.store.plain().read_all(&paths)?) {
        if let Some(text) = text {
            *domain = text
                .parse()
                .ok()
                .and_then(DomId::new)
                .ok_or_else(|| Error::Internal(format!("{path} in xenstore is {text:?}, which is no domid")))?;
        }
    }
    Ok(domains)
}

/// Waits until `required` is free, claimed by nobody and promised to nobody: at most as long as the guest may, and only
/// while free memory still grows, as it does while a destroyed domain's pages are being given back. What is missing then dom0
/// gives, where it may. Nobody who honours the locks takes of it until they are dropped.
fn wait_free_memory(context: &Context<'_>, required: Kib, guest: &Guest) -> Result<BuildLocks, Error> {
    let mut dom0 = None;
    let outcome = wait_with_dom0(context, required, guest, &mut dom0);
    match (&outcome, &dom0) {
        (Ok(_), Some(dom0)) => dom0.tell(),
        (Err(_), Some(dom0)) => dom0.restore(context),
        (_, None) => {}
    }
    outcome
}

/// `dom0` becomes what this run has done to dom0.
fn wait_with_dom0(
    context: &Context<'_>,
    required: Kib,
    guest: &Guest,
    dom0: &mut Option<ShrinkingDom0>,
) -> Result<BuildLocks, Error> {
    let wait = guest.wait_memory;
    let start = Instant::now();
    let mut most = Kib(0);
    let mut grown = start;
    loop {
        let locks = build_lock::take(context, guest.build_locks, wait)?;
        let free = free_memory(context)?;
        if free >= required {
            return Ok(locks);
        }
        // A smaller guest may still fit.
        drop(locks);
        let now = Instant::now();
        if free > most {
            most = free;
            grown = now;
        }
        let is_over = now.duration_since(start) >= wait;
        let shrinking = dom0.as_ref().is_some_and(ShrinkingDom0::is_shrinking);
        let standstill = if shrinking { DOM0_STANDSTILL } else { STANDSTILL };
        if is_over || now.duration_since(grown) >= standstill {
            if dom0.is_none() && !is_over {
                *dom0 = ShrinkingDom0::new(context, guest)?;
            }
            let missing = Kib(required.0.saturating_sub(free.0));
            let gives = match dom0 {
                Some(dom0) if !is_over => dom0.shrink(context, missing)?,
                _ => false,
            };
            if !gives {
                return Err(shortage(context, None, required, free));
            }
            grown = now;
        }
        let text = format!("waiting for memory: {} of {} KiB free", free.0, required.0);
        context.observer.progress(&Progress {
            what: "waiting for memory",
            done: free.0,
            total: required.0,
            unit: Unit::Kib,
            text: &text,
        });
        thread::sleep(POLL);
        context.cancel.check()?;
    }
}

/// Sets the paging pool and makes sure that Xen has it: a pool that is too small lets populating fail half way.
pub(crate) fn set_paging_pool(context: &Context<'_>, domid: DomId, size: Kib) -> Result<(), Error> {
    if let Err(error) = context.xen.set_paging_pool(domid, size) {
        let free = context.xen.physinfo().map(|host| host.available()).ok();
        return Err(match (error.errno, free) {
            (Some(Errno::ENOMEM), Some(free)) if free < size => {
                log::info!("{error}");
                shortage(context, Some(domid), size, free)
            }
            _ => error.into(),
        });
    }
    let got = context.xen.paging_pool(domid)?;
    if got < size {
        return Err(Error::Internal(format!(
            "the paging pool of domain {domid} has {} KiB after {} were set",
            got.0, size.0
        )));
    }
    Ok(())
}
