//! `create --dry-run`: everything that can be checked without changing the host.

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use serde_json::json;
use uuid::Uuid;

use crate::builder::dom0_memory::{dom0_memory, may_shrink_dom0};
use crate::builder::host_memory::free_memory;
use crate::builder::numa_placement::plan_nodes;
use crate::builder::populate::populates_before;
use crate::builder::shortage::shortage;
use crate::cli::create_request::create_request;
use crate::cli::from_flags::Create;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::context::Context;
use crate::devices::plan::PlannedDevices;
use crate::domain::libxl_cpuid;
use crate::error::{Error, Failure};
use crate::memory::{Kib, Kind};
use crate::picture::text::render;
use crate::qemu::confinement::RunAs;
use crate::qemu::log::{LOG_DIRECTORY, XEN_RUN_DIR};
use crate::stage::Stage;
use crate::xen::{CreateDomain, PhysInfo, XenError};

/// Makes the checks of `create` in its order, and reports what `create` would do. The flags and the files have been
/// checked, and Xen and xenstored answer.
///
/// # Errors
/// The error that `create` would fail with, at the same step.
pub(crate) fn run(
    reporter: &Reporter,
    context: &Context<'_>,
    config: &Create,
    devices: &PlannedDevices,
    uuid: Option<Uuid>,
    json: bool,
) -> anyhow::Result<Done> {
    let mut checks = vec!["flags, files and plan".to_owned()];
    let (version, pool) = context.step(Stage::CreateDomain, || {
        let version = context.xen.version()?;
        // It answers, and not only its socket.
        context.store.plain().read("/local/domain/0/name")?;
        let (wanted, host) = create_request(context, config)?;
        check_tables_and_pool(context, config, &wanted, &host)?;
        Ok::<_, Error>((version.version, wanted.cpupool))
    })?;
    checks.push(format!("Xen {version} and xenstored answer"));
    checks.push(format!("the host runs {} guests", config.guest.plan.request.kind));
    checks.push(format!("the name {} and the UUID are free", config.name));
    checks.push(format!("CPU pool {}, vCPU affinity and label", config.cpupool));
    let cpuid = &config.guest.platform.cpuid;
    if !cpuid.is_empty() {
        let (leaves, msrs) = (cpuid.leaves.len(), cpuid.msrs.len());
        checks.push(format!("CPUID: changes in {leaves} leaves, which Xen has, and in {msrs} MSRs"));
    }
    if let Some(found) = devices.summary() {
        checks.push(format!("devices: {found}"));
    }
    let memory = &config.guest.plan.memory;
    let (free, of_dom0) = check_memory(context, config)?;
    checks.push(format!("{} KiB are free and unclaimed, {} are needed{of_dom0}", free.0, memory.footprint.0));
    let nodes = context.step(Stage::WaitFreeMemory, || plan_nodes(context, &config.guest, || Ok(pool)))?.node_pages();
    if !nodes.is_empty() {
        let each: Vec<String> = nodes.iter().map(|on| format!("{} pages on node {}", on.pages.0, on.node)).collect();
        checks.push(format!("NUMA: {}", each.join(", ")));
    }
    if let Some(model) = &config.device_model {
        context.step(Stage::DeviceModel, check_directories)?;
        let filter = if model.filter { "under a filter of system calls" } else { "without a filter of system calls" };
        let whom = match &model.run_as {
            RunAs::Root => "root".to_owned(),
            RunAs::RestrictedRoot => format!("root, {}, {filter}", model.needs),
            RunAs::User(user) => format!("{user}, {}, {filter}", model.needs),
        };
        checks.push(format!("QEMU is {}, as {whom}; its log and its sockets can be written", model.path.display()));
    }
    reporter.clear_line();

    let steps: Vec<&str> = steps(config, devices).into_iter().map(Stage::name).collect();
    let name = config.name.as_str();
    let summary = format!("{name} can be created now; nothing was changed");
    let object = json!({
        "dry_run": true,
        "name": name,
        "uuid": uuid,
        "checks": checks,
        "steps": steps,
        "required_kib": memory.footprint,
        "free_kib": free,
        "plan": config.guest.plan,
        "nodes": nodes,
        "cpuid": libxl_cpuid::policy(cpuid),
    });
    let picture = render(&config.guest.plan);
    let text = format!("{summary}\nchecked: {}\nsteps:   {}\n\n{picture}", checks.join("\n         "), steps.join(" "));
    print::finish(json, &object, &text)
}

/// That the host has the memory, or that dom0 would give it: the free memory, and what dom0 would give, as text.
///
/// # Errors
/// [`Error::NotEnoughMemory`]; an error of Xen.
pub(super) fn check_memory(context: &Context<'_>, config: &Create) -> Result<(Kib, String), Failure> {
    let required = config.guest.plan.memory.footprint;
    context.step(Stage::WaitFreeMemory, || {
        let free = free_memory(context)?;
        let missing = Kib(required.0.saturating_sub(free.0));
        if missing.0 == 0 {
            return Ok((free, String::new()));
        }
        let share = config.guest.dom0_share;
        let dom0 = dom0_memory(context, share.least).filter(|dom0| missing <= dom0.spare);
        if dom0.is_some() && !config.guest.wait_memory.is_zero() && may_shrink_dom0(context, &config.guest)? {
            return Ok((free, format!(", of which dom0 would give {}", missing.0)));
        }
        Err::<_, Error>(shortage(context, None, required, free))
    })
}

/// That Xen gives so large grant and maptrack tables, that the CPU pool is there and has CPUs, and that every vCPU may run on
/// one of them.
pub(super) fn check_tables_and_pool(
    context: &Context<'_>,
    config: &Create,
    wanted: &CreateDomain,
    host: &PhysInfo,
) -> Result<(), Error> {
    let limits = context.xen.grant_limits(wanted);
    let refused = |errno| {
        let error = XenError {
            call: "xc_domain_create",
            arguments: format!("{wanted:?}"),
            errno: Some(errno),
            detail: Some("would fail".to_owned()),
        };
        Err(wanted.explain(error, host, &limits).into())
    };
    if wanted.above(&limits).is_some() {
        return refused(Errno::EINVAL);
    }
    let Some(cpus) = context.xen.pool_cpus(wanted.cpupool)? else { return refused(Errno::ESRCH) };
    if cpus.iter().all(|byte| *byte == 0) {
        return refused(Errno::ENODEV);
    }
    for (vcpu, map) in &config.guest.platform.affinity {
        if map.bytes().iter().zip(&cpus).all(|(asked, there)| asked & there == 0) {
            return Err(Error::Xen(XenError {
                call: "xc_vcpu_setaffinity",
                arguments: format!("vCPU {vcpu}, CPUs {:02x?}", map.bytes()),
                errno: Some(Errno::EINVAL),
                detail: Some(format!("would fail: CPU pool {} has the CPUs {cpus:02x?}", config.cpupool)),
            }));
        }
    }
    Ok(())
}

/// That QEMU's log and its sockets can be made.
fn check_directories() -> Result<(), Error> {
    for directory in [LOG_DIRECTORY, XEN_RUN_DIR] {
        match access(Path::new(directory), AccessFlags::W_OK | AccessFlags::X_OK) {
            // It would be made.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                let reason =
                    format!("the directory {directory} cannot be written: {errno}; QEMU's log and sockets go there");
                return Err(Error::Internal(reason));
            }
        }
    }
    Ok(())
}

/// What `create` would do, step by step.
fn steps(config: &Create, devices: &PlannedDevices) -> Vec<Stage> {
    use Stage::{
        BootImage, CheckPagingPool, ClaimMemory, CpuidPolicy, CreateDomain, DeviceModel, Devices, EventChannels,
        GrantTable, HostAccess, HvmInfo, HvmParams, Introduce, LoadImage, MaxVcpus, MemoryMap, PagingPool, ParseImage,
        PlatformParams, Populate, Scheduling, SetMaxMemory, StartDeviceModel, Unpause, Userdata, WaitFreeMemory,
        Xenstore,
    };
    let kind = config.guest.plan.request.kind;
    let pv = kind == Kind::Pv;
    let all = [
        (CreateDomain, true),
        (Xenstore, true),
        (WaitFreeMemory, true),
        (MaxVcpus, true),
        (PlatformParams, true),
        (Scheduling, true),
        (SetMaxMemory, true),
        (MemoryMap, pv),
        (PagingPool, !pv),
        (ClaimMemory, true),
        (EventChannels, true),
        (ParseImage, true),
        (Populate, config.device_model.is_some() && populates_before(&config.guest.plan)),
        (StartDeviceModel, config.device_model.is_some()),
        (Populate, true),
        (MemoryMap, !pv),
        (LoadImage, true),
        (BootImage, true),
        (GrantTable, true),
        (HvmInfo, kind == Kind::Hvm),
        (HvmParams, !pv),
        (CpuidPolicy, true),
        (CheckPagingPool, !pv),
        (Xenstore, true),
        (Introduce, true),
        (HostAccess, !config.devices.host_access.is_empty() || !devices.pci.is_empty()),
        (Devices, !devices.paravirtual.is_empty() || !devices.pci.is_empty()),
        (StartDeviceModel, config.backend.is_some()),
        (DeviceModel, config.device_model.is_some() || config.backend.is_some()),
        (Userdata, true),
        (Unpause, !config.paused),
    ];
    all.into_iter().filter(|(_, done)| *done).map(|(stage, _)| stage).collect()
}
