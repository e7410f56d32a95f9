//! The domain that `create` asks Xen for.

use super::from_flags::Create;
use crate::builder::cpuid::check_cpuid_rules;
use crate::builder::image::check_width;
use crate::config::cpu_pool::CpuPool;
use crate::context::Context;
use crate::domain::find::name_owner;
use crate::domain::identity::check_uuid_free;
use crate::error::Error;
use crate::memory::Kind;
use crate::xen::{CreateDomain, DomId, PhysInfo};

/// Checks the configuration against this host, and returns what Xen creates the domain with.
///
/// # Errors
/// A name or UUID that is taken, and what this host cannot run.
pub(crate) fn create_request(context: &Context<'_>, config: &Create) -> Result<(CreateDomain, PhysInfo), Error> {
    if let Some(owner) = name_owner(context.xen, &context.store.plain(), config.name.as_str())? {
        return Err(Error::NameTaken { name: config.name.to_string(), owner });
    }
    check_uuid_free(context.xen, config.uuid, config.devices.migrates_from.domain().and_then(DomId::new).as_slice())?;
    let host = context.xen.physinfo()?;
    let plan = &config.guest.plan;
    let kind = plan.request.kind;
    let lacks = match kind {
        Kind::Hvm | Kind::Pvh => !(host.hvm && host.hap),
        Kind::Pv => !host.pv,
    };
    if lacks {
        return Err(Error::BadConfig(format!(
            "this host cannot run {kind} guests (HVM and PVH need hardware-assisted paging); `dombuild features` shows what it can"
        )));
    }
    if plan.request.passthrough && !host.directio {
        return Err(Error::BadConfig(
            "this host cannot give PCI devices to guests (no IOMMU, or it is off): leave out --passthrough and --pci"
                .to_owned(),
        ));
    }
    if !config.vmtrace.is_zero() && !host.vmtrace {
        return Err(Error::BadConfig(
            "this host has no processor trace for guests (Xen offers Intel PT in HVM guests): leave out --vmtrace"
                .to_owned(),
        ));
    }
    if config.guest.platform.altp2m.is_some() && !has_altp2m(&context.xen.version()?.command_line) {
        log::warn!(
            "Xen's command line has no altp2m: it gives no guest alternate memory maps, and --altp2m has no effect"
        );
    }
    check_width(context, &config.guest)?;
    check_cpuid_rules(context, kind, &config.guest.platform.cpuid)?;
    let ssid = config.seclabel.as_deref().map(|label| context.xen.security_id(label)).transpose()?;
    let wanted = CreateDomain {
        kind,
        passthrough: plan.request.passthrough,
        nested: config.guest.platform.nested,
        uuid: config.uuid,
        vcpus: plan.vcpus,
        max_event_channel: config.event_channels,
        max_grant_frames: config.max_grant_frames,
        max_maptrack_frames: config.max_maptrack_frames,
        grant_version: config.max_grant_version.unwrap_or(2).min(if host.grant_v2 { 2 } else { 1 }),
        vpmu: config.vpmu,
        msr_relaxed: config.msr_relaxed,
        cpupool: pool_number(context, &config.cpupool)?,
        ssid: ssid.unwrap_or(0),
        pirqs: config.pirqs,
        altp2m: config.guest.platform.altp2m,
        vmtrace: config.vmtrace,
    };
    Ok((wanted, host))
}

/// Whether the hypervisor's command line turns alternate memory maps on (`opt_altp2m_enabled`, xen/arch/x86/hvm/hvm.c).
fn has_altp2m(command_line: &str) -> bool {
    command_line.split_whitespace().any(|word| {
        let value = word.strip_prefix("altp2m").map(|rest| rest.strip_prefix('=').unwrap_or(rest));
        value.is_some_and(|value| matches!(value, "" | "1" | "on" | "yes" | "true" | "enable"))
    })
}

/// The number of a CPU pool (`libxl__cpupoolid_to_name`, Xen 4.17: xl writes the names to xenstore).
///
/// # Errors
/// [`Error::BadConfig`] if no pool has the name; an error of xenstored.
pub(crate) fn pool_number(context: &Context<'_>, pool: &CpuPool) -> Result<u32, Error> {
    const POOLS: &str = "/local/pool";
    let name = match pool {
        CpuPool::Number(number) => return Ok(*number),
        CpuPool::Name(name) => name,
    };
    let store = context.store.plain();
    for number in store.children(POOLS)? {
        if store.read(&format!("{POOLS}/{number}/name"))?.as_deref() == Some(name)
            && let Ok(number) = number.parse()
        {
            return Ok(number);
        }
    }
    Err(Error::BadConfig(format!(
        "--cpupool {name:?}: there is no CPU pool of this name; `xl cpupool-list` shows which there are"
    )))
}
