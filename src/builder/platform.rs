//! Settings of a domain besides memory: clocks, timers, Hyper-V enlightenments, vCPU affinity and CPU share.

use super::numa_placement::{NodePlan, prefer_node};
use crate::config::error::ConfigError;
use crate::config::guest::Guest;
use crate::config::platform::{CpuMap, Platform};
use crate::context::Context;
use crate::error::{Error, Failure};
use crate::memory::Kind;
use crate::stage::Stage;
use crate::xen::{Affinity, DomId, HvmParam};

/// `SHUTDOWN_crash` (xen/include/public/sched.h).
const CRASH: u64 = 3;

/// `HVM_PARAM_MCA_CAP` and `XEN_HVM_MCA_CAP_LMCE` (xen/include/public/hvm/params.h).
const MCA_CAP: u32 = 38;
const LOCAL_MACHINE_CHECKS: u64 = 1;

/// Sets the timers, clocks and enlightenments that the kind of guest has. The vCPUs must exist.
///
/// # Errors
/// The call that Xen refused.
pub fn set_platform(context: &Context<'_>, domid: DomId, guest: &Guest) -> Result<(), Failure> {
    context.step(Stage::PlatformParams, || set_params(context, domid, guest))
}

fn set_params(context: &Context<'_>, domid: DomId, guest: &Guest) -> Result<(), Error> {
    let (kind, platform, xen) = (guest.plan.request.kind, &guest.platform, context.xen);
    let set = |param, value: u64| xen.set_hvm_param(domid, param, value);
    if kind == Kind::Hvm {
        set(HvmParam::HpetEnabled, platform.hpet.into())?;
        if let Some(align) = platform.vpt_align {
            set(HvmParam::VptAlign, align.into())?;
        }
        if platform.local_machine_checks {
            set(HvmParam::Number(MCA_CAP), LOCAL_MACHINE_CHECKS)?;
        }
    }
    if kind != Kind::Pv {
        if let Some(mode) = platform.timer_mode {
            set(HvmParam::TimerMode, mode.into())?;
        }
        if let Some(mode) = platform.altp2m {
            xen.set_altp2m(domid, mode)?;
        }
        if let Some(mask) = platform.viridian.mask(guest.plan.request.vgpu) {
            set(HvmParam::Viridian, mask.into())?;
        }
        if platform.crash_on_triple_fault {
            set(HvmParam::TripleFaultReason, CRASH)?;
        }
        // If the CPU saves it in one width only, Xen has set the parameter already.
        if let Some(width) = platform.x87_fip_width
            && xen.hvm_param(domid, HvmParam::X87FipWidth)? == 0
        {
            set(HvmParam::X87FipWidth, width.into())?;
        }
    }
    xen.set_tsc_mode(domid, platform.tsc_mode)?;
    if platform.time_offset != 0 {
        xen.set_time_offset(domid, platform.time_offset)?;
    }
    Ok(())
}

/// Finds the CPUs of affinities that are lists in xl's words: they depend on the host's CPUs and NUMA nodes.
///
/// # Errors
/// [`ConfigError::CpuList`] for a list that cannot be used on this host; an error of Xen.
pub fn resolve_cpu_lists(context: &Context<'_>, platform: &mut Platform) -> Result<(), Error> {
    let maps = || platform.affinity.values().chain(platform.soft_affinity.values());
    if !maps().any(CpuMap::is_list) {
        return Ok(());
    }
    let nodes = context.xen.cpu_nodes()?;
    for (vcpu, map) in platform.affinity.iter_mut().chain(&mut platform.soft_affinity) {
        map.resolve(&nodes).map_err(|reason| ConfigError::CpuList { vcpu: *vcpu, reason })?;
    }
    Ok(())
}

/// Sets the affinity of the vCPUs, and the domain's weight and cap. The vCPUs must exist.
///
/// # Errors
/// The call that Xen refused.
pub fn set_scheduling(context: &Context<'_>, domid: DomId, guest: &Guest, nodes: &NodePlan) -> Result<(), Failure> {
    context.step(Stage::Scheduling, || {
        schedule(context, domid, guest)?;
        Ok::<_, Error>(prefer_node(context, domid, guest, nodes)?)
    })
}

fn schedule(context: &Context<'_>, domid: DomId, guest: &Guest) -> Result<(), Error> {
    let (platform, xen) = (&guest.platform, context.xen);
    for (vcpu, cpus) in &platform.affinity {
        xen.set_vcpu_affinity(domid, *vcpu, cpus.bytes(), Affinity::Hard)?;
    }
    for (vcpu, cpus) in &platform.soft_affinity {
        xen.set_vcpu_affinity(domid, *vcpu, cpus.bytes(), Affinity::Soft)?;
    }
    if platform.weight.is_none() && platform.cap.is_none() {
        return Ok(());
    }
    match xen.cpu_share(domid)? {
        Some((scheduler, weight, cap)) => {
            let (weight, cap) = (platform.weight.unwrap_or(weight), platform.cap.unwrap_or(cap));
            xen.set_cpu_share(domid, scheduler, weight, cap)?;
        }
        None => log::warn!("domain {domid} runs under neither credit nor credit2: its weight and cap are not set"),
    }
    Ok(())
}
