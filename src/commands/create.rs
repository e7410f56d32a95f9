//! `create`: a guest from nothing, and back to nothing where anything fails.

use std::time::Duration;

use serde_json::json;

use super::{Built, Connection};
use crate::args::CreateArgs;
use crate::builder::{
    Context, HvmBuildArgs, Identity, NewDomain, Progress, build_post, build_pre, find_by_name, hvm_build,
    make_skeleton, measure, teardown,
};
use crate::config::Create;
use crate::device_model::DeviceModel;
use crate::error::{AtStage, Error, Failure, Stage};
use crate::report;
use crate::xen::{CreateDomain, DomId};

pub(super) fn run(arguments: &CreateArgs, json: bool) -> anyhow::Result<()> {
    let config = Create::from_args(arguments).at(Stage::CheckInput)?;
    let connection = Connection::open()?;
    let progress = Progress::new();
    let context =
        Context { xen: &connection.xen, store: &connection.store, progress: &progress, cancel: &connection.cancel };

    let domain = create_domain(&context, &config)?;
    let domid = domain.domid();
    let (built, mut model) = match start(&context, &config, domid) {
        Ok(started) => started,
        Err(failure) => return Err(domain.undo(failure).into()),
    };
    if config.foreground && !json {
        report::print_text(&describe(&config, &built))?;
    }
    let ended = if config.foreground {
        match wait_guest(&context, domid, model.as_mut()) {
            Ok(end) => Some(end),
            Err(failure) => return Err(domain.undo(failure).into()),
        }
    } else {
        None
    };
    domain.keep();
    drop(progress);

    if ended.is_some() {
        teardown(&connection.xen, &connection.store, domid)
            .map_err(|cleanup| Error::LeftBehind { domid, cleanup, cause: None })
            .at(Stage::Destroy)?;
    }
    if json {
        let mut value = serde_json::to_value(&built)?;
        value["name"] = json!(config.name.as_str());
        value["uuid"] = json!(config.uuid);
        value["device_model_pid"] = json!(model.as_ref().map(DeviceModel::pid));
        match ended {
            Some(reason) => value["ended"] = json!(reason),
            None => value["paused"] = json!(config.paused),
        }
        return report::print_json(&value);
    }
    match ended {
        Some(reason) => report::print_text(&format!("{} (domain {domid}) ended: {reason}", config.name)),
        None => report::print_text(&describe(&config, &built)),
    }
}

fn describe(config: &Create, built: &Built) -> String {
    let state = if config.paused { "paused" } else { "running" };
    format!("{} is domain {}, {state}\n{built}", config.name, built.domid)
}

fn create_domain<'a>(context: &Context<'a>, config: &Create) -> Result<NewDomain<'a>, Failure> {
    let domain = context.step(Stage::CreateDomain, || {
        if let Some(owner) = find_by_name(context.xen, &context.store.plain(), config.name.as_str())? {
            return Err(Error::NameTaken { name: config.name.to_string(), owner });
        }
        if let Some(other) = context.xen.domains()?.into_iter().find(|domain| domain.uuid == config.uuid) {
            return Err(Error::BadConfig(format!("the UUID {} belongs to domain {}", config.uuid, other.domid)));
        }
        let host = context.xen.physinfo()?;
        if !(host.hvm && host.hap) {
            return Err(Error::BadConfig(
                "this host cannot run HVM guests under hardware-assisted paging; `dombuild features` shows what it can"
                    .to_owned(),
            ));
        }
        let ssid = config.seclabel.as_deref().map(|label| context.xen.security_id(label)).transpose()?;
        let domid = context.xen.create_hvm(&CreateDomain {
            uuid: config.uuid,
            vcpus: config.guest.plan.vcpus,
            max_event_channel: config.event_channels,
            max_grant_frames: config.max_grant_frames,
            max_maptrack_frames: config.max_maptrack_frames,
            grant_version: if host.grant_v2 { 2 } else { 1 },
            cpupool: config.cpupool,
            ssid: ssid.unwrap_or(0),
        })?;
        Ok(NewDomain::new(context.xen, context.store, domid))
    })?;
    Ok(domain)
}

/// Everything from the empty domain to the running guest.
fn start(context: &Context<'_>, config: &Create, domid: DomId) -> Result<(Built, Option<DeviceModel>), Failure> {
    let identity = Identity { uuid: config.uuid, name: Some(config.name.clone()) };
    let guest = &config.guest;
    make_skeleton(context, domid, &identity)?;
    let ports = build_pre(context, domid, &guest.plan, None, guest.wait_memory)?;
    let rings = hvm_build(context, domid, &HvmBuildArgs::new(guest, ports))?;
    let measured_built = measure(context.xen, domid).at(Stage::CheckPagingPool)?;
    build_post(context, domid, guest, &identity, ports, rings)?;

    let mut model = None;
    if let Some(wanted) = &config.device_model {
        model = Some(DeviceModel::start(context, domid, config.name.as_str(), &guest.plan, wanted)?);
    }
    let measured_running = model.as_ref().map(|_| measure(context.xen, domid)).transpose().at(Stage::DeviceModel)?;
    if !config.paused {
        context.step(Stage::Unpause, || context.xen.unpause(domid))?;
    }
    let built = Built { domid, rings, ports, measured_built, measured_running, plan: guest.plan.clone() };
    Ok((built, model))
}

/// Waits until the guest has shut down and tells why, or somebody has destroyed it, QEMU has died or the user stops the run.
fn wait_guest(context: &Context<'_>, domid: DomId, mut model: Option<&mut DeviceModel>) -> Result<String, Failure> {
    /// xenstored fires this watch when a domain shuts down or goes.
    const RELEASED: &str = "@releaseDomain";
    context.step::<_, Error>(Stage::WaitGuest, || {
        context.store.watch(RELEASED)?;
        loop {
            match context.xen.domain(domid)? {
                None => return Ok("destroyed".to_owned()),
                Some(info) if info.dying => return Ok("destroyed".to_owned()),
                Some(info) => {
                    if let Some(reason) = info.shutdown {
                        return Ok(reason.to_string());
                    }
                }
            }
            context.cancel.check()?;
            if let Some(model) = model.as_deref_mut() {
                model.check()?;
            }
            context.store.wait(Duration::from_millis(250))?;
        }
    })
}
