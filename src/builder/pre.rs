//! build_pre: sets up an empty domain before its memory is populated.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::Serialize;

use super::claim::claim;
use super::dom0_memory::ShrinkingDom0;
use super::host_memory::free_memory;
use super::numa_placement::{NodePlan, plan_nodes};
use super::platform::{set_platform, set_scheduling};
use super::shortage::shortage;
use crate::config::guest::Guest;
use crate::context::Context;
use crate::error::host::HostError;
use crate::error::{Error, Failure};
use crate::memory::{Kib, Kind};
use crate::observer::{Progress, Unit};
use crate::runs::build_lock::{self, BuildLocks};
use crate::runs::journal::JournalEntry;
use crate::stage::Stage;
use crate::xen::{DomId, EventPort};

/// Interval between two checks of the host's free memory.
const POLL: Duration = Duration::from_millis(250);
/// Free memory that has not grown for this long is not expected to grow.
const STANDSTILL: Duration = Duration::from_secs(2);
/// The same while dom0 releases memory, because dom0 may have to swap programs out first. libxl uses the same time
/// (`freemem`, tools/xl/xl_vmcontrol.c, Xen 4.17).
const DOM0_STANDSTILL: Duration = Duration::from_secs(10);

/// The event channels of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// The event channel of the xenstore ring.
    #[serde(rename = "store_port")]
    pub store: EventPort,
    /// The event channel of the console ring.
    #[serde(rename = "console_port")]
    pub console: EventPort,
    /// The domain in which xenstored runs: dom0 or a stub domain.
    #[serde(skip)]
    pub store_domain: DomId,
    /// The domain in which xenconsoled runs.
    #[serde(skip)]
    pub console_domain: DomId,
}

/// An empty domain that is ready to be populated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The event channels of its rings.
    pub ports: Ports,
    /// The NUMA nodes of its memory.
    pub nodes: NodePlan,
}

/// Waits for free memory, sets the domain's limits and allocates its event channels, in this order:
///
/// 1. wait until the host has the footprint free, choose its NUMA nodes, and hold the build locks until step 6 is done;
/// 2. vCPUs;
/// 3. timers, clocks and enlightenments, and vCPU affinity. The vCPUs must exist: Xen 4.17 itself crashes if a guest with
///    Hyper-V enlightenments is unpaused, or its TSC mode set, before it has vCPUs (`viridian_time_domain_thaw`);
/// 4. the memory limit: xen max; for PV the memory map: one range up to static max, or, for PCI devices, the host's around it;
/// 5. the paging pool (HVM and PVH): the shadow size, read back;
/// 6. the claim on the pages that the domain will own, and the reserve that other runs read in the journal;
/// 7. the store's event channel, then the console's (guests rely on this order), unless `given` has both.
///
/// # Errors
/// [`Error::NotEnoughMemory`]; [`HostError::NodesFull`] and [`HostError::NoNode`]; [`Error::TimedOut`] for a build lock; or the call that Xen refused.
pub fn build_pre(
    context: &Context<'_>,
    domid: DomId,
    guest: &Guest,
    given: Option<(EventPort, EventPort)>,
    run: &mut JournalEntry,
) -> Result<Prepared, Failure> {
    let xen = context.xen;
    let plan = &guest.plan;
    let memory = &plan.memory;
    let kind = plan.request.kind;

    // 1.
    let (locks, nodes) = context.step(Stage::WaitFreeMemory, || {
        let locks = wait_free_memory(context, memory.footprint, guest)?;
        let pool = || {
            let domain = xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
            Ok(domain.cpupool)
        };
        Ok::<_, Error>((locks, plan_nodes(context, guest, pool)?))
    })?;
    // 2.
    context.step(Stage::MaxVcpus, || xen.max_vcpus(domid, plan.vcpus))?;
    // 3.
    set_platform(context, domid, guest)?;
    set_scheduling(context, domid, guest, &nodes)?;
    // 4.
    context.step(Stage::SetMaxMemory, || xen.set_max_memory(domid, memory.xen_max))?;
    if kind == Kind::Pv {
        context.step(Stage::MemoryMap, || {
            if plan.request.passthrough {
                xen.set_host_memory_map(domid, memory.static_max.to_bytes_saturating())
            } else {
                xen.set_memory_map_limit(domid, memory.static_max)
            }
        })?;
    }
    // 5.
    if kind != Kind::Pv {
        context.step(Stage::PagingPool, || set_paging_pool(context, domid, plan.paging_pool))?;
    }
    // 6.
    context.step(Stage::ClaimMemory, || {
        // The journal comes first: if this run were killed between the two, no record would show the claim.
        run.reserve_by_node(guest.final_pages(), guest.is_claimed(), &nodes.taken)?;
        claim(context, domid, guest)
    })?;
    drop(locks);
    // 7.
    let ports = context.step(Stage::EventChannels, || {
        let [store_domain, console_domain] = daemon_domains(context)?;
        let (store, console) = match given {
            Some(ports) => ports,
            None => (xen.alloc_event_port(domid, store_domain)?, xen.alloc_event_port(domid, console_domain)?),
        };
        Ok::<_, Error>(Ports { store, console, store_domain, console_domain })
    })?;
    Ok(Prepared { ports, nodes })
}

/// The domains in which xenstored and xenconsoled run. A daemon that publishes no domid runs in dom0.
fn daemon_domains(context: &Context<'_>) -> Result<[DomId; 2], Error> {
    let paths = ["/tool/xenstored/domid", "/tool/xenconsoled/domid"];
    let mut domains = [DomId::DOM0; 2];
    for ((domain, path), text) in domains.iter_mut().zip(paths).zip(context.store.plain().read_all(&paths)?) {
        if let Some(text) = text {
            *domain = text.parse().ok().and_then(DomId::new).ok_or(HostError::NotADomid { path, text })?;
        }
    }
    Ok(domains)
}

/// Waits until `required` is free, outside all claims and reserves. Waits at most `guest.wait_memory`, and only while free
/// memory grows, as it does while Xen frees a destroyed domain. If memory is then still missing, dom0 releases it where the
/// guest allows that. Programs that honour the build locks take none of this memory until the locks are dropped.
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

/// Does the waiting. `dom0` receives what this run has changed in dom0, also if it fails.
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
        // While this run waits, a smaller guest may still fit.
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

/// Sets the paging pool and reads it back: with too small a pool, populating fails half way.
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
        return Err(HostError::PagingPool { domid, got, set: size }.into());
    }
    Ok(())
}
