//! The domain that `create` asks Xen for.

use super::from_flags::Create;
use crate::builder::image::check_width;
use crate::context::Context;
use crate::domain::find::name_owner;
use crate::domain::identity::check_uuid_free;
use crate::error::Error;
use crate::memory::Kind;
use crate::xen::{CreateDomain, PhysInfo};

/// Checks the configuration against this host, and returns what Xen creates the domain with.
///
/// # Errors
/// A name or UUID that is taken, and what this host cannot run.
pub(crate) fn create_request(context: &Context<'_>, config: &Create) -> Result<(CreateDomain, PhysInfo), Error> {
    if let Some(owner) = name_owner(context.xen, &context.store.plain(), config.name.as_str())? {
        return Err(Error::NameTaken { name: config.name.to_string(), owner });
    }
    check_uuid_free(context.xen, config.uuid, None)?;
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
    check_width(context, &config.guest)?;
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
        grant_version: if host.grant_v2 { 2 } else { 1 },
        cpupool: config.cpupool,
        ssid: ssid.unwrap_or(0),
        relaxed_msrs: config.relaxed_msrs,
        pirqs: config.pirqs,
    };
    Ok((wanted, host))
}
