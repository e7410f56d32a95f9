//! `create`: a guest from nothing, and back to nothing where anything fails.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::dry_run;
use crate::builder::build::{BuildJob, build_guest};
use crate::builder::built::Built;
use crate::builder::claim::give_back_claim;
use crate::builder::host_access::give_access;
use crate::builder::image::check_paging_pool;
use crate::builder::numa_placement::{check_nodes, settle};
use crate::builder::platform::resolve_cpu_lists;
use crate::builder::post::{Identity, build_post, make_skeleton};
use crate::builder::pre::build_pre;
use crate::cli::args::CreateArgs;
use crate::cli::connection::Connection;
use crate::cli::create_request::create_request;
use crate::cli::from_flags::{self, Create};
use crate::cli::libxl_configuration;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::context::Context;
use crate::devices::attach::attach;
use crate::devices::pci::{SYSFS, plan_around_reserved};
use crate::devices::pci_give::{self, Recipient, give};
use crate::devices::plan::{PlannedDevices, plan};
use crate::domain::measure::measure;
use crate::domain::userdata;
use crate::error::{AtStage, Error, Failure};
use crate::lifecycle::guard::NewDomain;
use crate::memory::{Bytes, Pages};
use crate::observer;
use crate::qemu::device_model::DeviceModel;
use crate::qemu::devices::QemuDevices;
use crate::runs::build_lock;
use crate::runs::journal::{JournalEntry, RunVerb};
use crate::stage::Stage;
use crate::xen::{DomId, DomainRef};

pub(crate) fn run(reporter: &Reporter, arguments: &CreateArgs, json: bool) -> anyhow::Result<Done> {
    let mut config = observer::step(reporter, Stage::CheckInput, || from_flags::create(arguments, None))?;
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let context = connection.context();

    let devices = plan_devices(&context, &mut config)?;
    if arguments.libxl_json {
        let value = context.step(Stage::CheckInput, || libxl_configuration::of(&context, &config))?;
        return print::finish(true, &value, "");
    }
    if arguments.dry_run {
        return dry_run::run(reporter, &context, &config, &devices, arguments.domain.uuid, json);
    }
    let mut domain = create_domain(&context, &config)?;
    let end = match start_and_tell(reporter, &context, &config, devices, &mut domain, json) {
        Ok(end) => end,
        Err(failure) => return Err(domain.undo(reporter, failure).into()),
    };
    if config.foreground {
        // It has ended, and its record lasts until it is gone.
        let destroyed = connection.destroy(domain.held());
        if destroyed.is_err() {
            domain.run().leave();
        }
        domain.keep();
        destroyed?;
        return print::finish(json, &end.object, &end.summary);
    }
    let domid = domain.domid();
    domain.keep();
    match arguments.viewer() {
        Some(viewer) => Err(show(viewer, domid).into()),
        None => Ok(end),
    }
}

/// Leaves room for the host's devices, finds the CPUs that depend on the host, and plans the guest's devices.
fn plan_devices(context: &Context<'_>, config: &mut Create) -> Result<PlannedDevices, Failure> {
    plan_around_reserved(&mut config.guest, context.xen).at(Stage::CreateDomain)?;
    resolve_cpu_lists(context, &mut config.guest.platform).at(Stage::CreateDomain)?;
    check_nodes(context, &config.guest).at(Stage::CreateDomain)?;
    let (kind, qemu) = (config.guest.plan.request.kind, config.guest_qemu());
    let recipient = Recipient {
        kind,
        has_qemu: config.device_model.is_some(),
        memory: config.guest.plan.memory.static_max.to_bytes().unwrap_or(Bytes(u64::MAX)),
        domid: None,
    };
    let pci = pci_give::plan(context, Path::new(SYSFS), &config.devices.pci, recipient).at(Stage::CreateDomain)?;
    let planned = plan(context.xen, context.store, &config.devices, kind, qemu).at(Stage::CreateDomain)?;
    Ok(PlannedDevices { pci, ..planned })
}

/// Creates the guest of these flags, prints it, and leaves it running, also when this process ends.
///
/// # Errors
/// As `create`; nothing of the guest is left then.
pub(crate) fn start_guest(
    reporter: &Reporter,
    connection: &Connection<'_>,
    arguments: &CreateArgs,
    json: bool,
) -> Result<DomainRef, Failure> {
    let mut config =
        observer::step(reporter, Stage::CheckInput, || from_flags::create(arguments, Some(&connection.cancel)))?;
    let context = connection.context();
    let devices = plan_devices(&context, &mut config)?;
    let mut domain = create_domain(&context, &config)?;
    match start_and_tell(reporter, &context, &config, devices, &mut domain, json) {
        Ok(_) => {
            let held = domain.held();
            domain.keep();
            Ok(held)
        }
        Err(failure) => Err(domain.undo(reporter, failure)),
    }
}

/// Becomes the program of xl's that shows the guest; returns if it cannot be started.
fn show(viewer: &str, domid: DomId) -> Error {
    let error = Command::new("xl").arg(viewer).arg(domid.to_string()).exec();
    Error::io(format!("run xl {viewer} {domid} (the guest runs)"))(error)
}

/// Starts the guest and prints the result. If the result cannot be printed, the run fails like any other. In the
/// foreground, waits for the guest's end, and the caller prints the final result. Otherwise the guest is detached
/// before the result is printed: a guest that has been reported stays, even if this run is killed then.
fn start_and_tell(
    reporter: &Reporter,
    context: &Context<'_>,
    config: &Create,
    devices: PlannedDevices,
    domain: &mut NewDomain<'_>,
    json: bool,
) -> Result<Done, Failure> {
    let domid = domain.domid();
    let (built, mut model) = start(context, config, &devices, domain)?;
    reporter.clear_line();
    let mut object = describe_json(config, &devices, &built, model.as_ref()).at(Stage::Unpause)?;
    // Backend and QEMU have opened the images: the guest's life must not depend on the descriptors of this run.
    drop(devices);
    let printed =
        |outcome: anyhow::Result<()>| outcome.map_err(|error| Error::Internal(format!("{error:#}"))).at(Stage::Unpause);
    if config.foreground {
        domain.run().reserve(Pages(0), false).at(Stage::Unpause)?;
    } else {
        model.as_mut().map_or(Ok(()), DeviceModel::let_go).at(Stage::DeviceModel)?;
        domain.release().at(Stage::Unpause)?;
    }
    let state = if config.paused { "paused" } else { "running" };
    let summary = format!("{} is domain {domid}, {state}", config.name);
    if !json && !config.quiet {
        printed(print::print_text(&format!("{summary}\n{built}")))?;
    }
    if config.foreground {
        let reason = wait_guest(context, domid, model.as_mut())?;
        reporter.clear_line();
        object["ended"] = json!(reason);
        return Ok(Done { summary: format!("{} (domain {domid}) ended: {reason}", config.name), object });
    }
    if json {
        printed(print::print_json(&object))?;
    }
    Ok(Done { object, summary })
}

fn describe_json(
    config: &Create,
    devices: &PlannedDevices,
    built: &Built,
    model: Option<&DeviceModel>,
) -> Result<Value, Error> {
    let mut object = serde_json::to_value(built)?;
    object["name"] = json!(config.name.as_str());
    object["uuid"] = json!(config.uuid);
    object["device_model_pid"] = json!(model.map(DeviceModel::pid));
    object["paused"] = json!(config.paused);
    object["pci"] = devices.pci.iter().map(|planned| json!(planned.device.address.to_string())).collect();
    object["devices"] = devices.paravirtual.iter().map(|planned| planned.device.json(built.domid)).collect();
    Ok(object)
}

pub(super) fn create_domain<'a>(context: &Context<'a>, config: &Create) -> Result<NewDomain<'a>, Failure> {
    context.step(Stage::CreateDomain, || {
        // Until the new domain has its name: one look at the names of all domains is enough.
        let names = build_lock::take_names(|| context.cancel.check())?;
        let (wanted, host) = create_request(context, config)?;
        let run = JournalEntry::begin(RunVerb::Create, config.uuid, None)?;
        let domid = context
            .xen
            .create(&wanted)
            .map_err(|error| wanted.explain(error, &host, &context.xen.grant_limits(&wanted)))?;
        NewDomain::new(context.xen, context.store, DomainRef { domid, uuid: config.uuid }, run, names)
    })
}

/// Everything from the empty domain to the running guest.
fn start(
    context: &Context<'_>,
    config: &Create,
    devices: &PlannedDevices,
    domain: &mut NewDomain<'_>,
) -> Result<(Built, Option<DeviceModel>), Failure> {
    let (domid, held) = (domain.domid(), domain.held());
    let identity = Identity { uuid: config.uuid, name: Some(config.name.clone()), driver_domain: config.driver_domain };
    let guest = &config.guest;
    make_skeleton(context, domid, &identity, guest.plan.request.kind)?;
    domain.has_its_name(&config.name);
    let prepared = build_pre(context, domid, guest, None, domain.run())?;
    // It gets ready while memory is populated: all that it needs of the domain until then are vCPUs, limits and its keys.
    let mut model = None;
    let start_device_model = config.device_model.as_ref().map(|wanted| {
        let model = &mut model;
        Box::new(move || {
            let qemu = QemuDevices::of(domid, &devices.qemu).at(Stage::StartDeviceModel)?;
            *model = Some(DeviceModel::start(context, held, &config.name, &guest.plan, wanted, qemu)?);
            Ok(())
        }) as Box<dyn FnOnce() -> Result<(), Failure>>
    });
    let rings = build_guest(context, BuildJob { domid, guest, prepared: &prepared, start_device_model })?;
    check_paging_pool(context, domid, &guest.plan)?;
    let measured = || measure(context.xen, domid);
    let measured_built = if model.is_none() { Some(measured().at(Stage::CheckPagingPool)?) } else { None };
    build_post(context, domid, guest, &identity, &prepared, rings)?;
    give_access(context, domid, guest.plan.request.kind, &config.devices.host_access)?;
    give(context, Path::new(SYSFS), held, &devices.pci, None)?;
    attach(context, domid, &devices.paravirtual, None, config.hotplug_timeout).map_err(|failure| {
        // Without its QEMU, a guest has no tap devices.
        let ended = model.as_mut().and_then(|model| model.check().err());
        ended.map_or(failure, |error| Failure { stage: Stage::DeviceModel, error, aftermath: None })
    })?;
    if let Some(wanted) = &config.backend {
        // It finds its devices in xenstore when it starts.
        let qemu = QemuDevices::of(domid, &devices.qemu).at(Stage::StartDeviceModel)?;
        model = Some(DeviceModel::start(context, held, &config.name, &guest.plan, wanted, qemu)?);
    }

    model.as_mut().map_or(Ok(()), |model| model.get_ready(context, domid, &guest.plan))?;
    settle(context, domid, guest, &prepared.nodes)?;
    pci_give::show(context, domid, config.name.as_str(), guest.plan.request.kind, &devices.pci, false)?;
    give_back_claim(context, domid, domain.run()).at(Stage::ClaimMemory)?;
    let measured_running = config.device_model.as_ref().map(|_| measured()).transpose().at(Stage::DeviceModel)?;
    context.step::<_, Error>(Stage::Userdata, || {
        if !devices.emulated_only.is_empty() {
            context.store.batch(|transaction| {
                devices.emulated_only.iter().try_for_each(|device| device.write_for_libxl(transaction, domid))
            })?;
        }
        userdata::write(context, held, &libxl_configuration::of(context, config)?)
    })?;
    if !config.paused {
        context.step(Stage::Unpause, || context.xen.unpause(domid))?;
    }
    let (ports, nodes) = (prepared.ports, prepared.nodes.node_pages());
    let built = Built { domid, rings, ports, measured_built, measured_running, plan: guest.plan.clone(), nodes };
    Ok((built, model))
}

/// Waits until the guest has shut down and returns the reason; also ends if the domain is destroyed, QEMU dies or the
/// user stops the run.
fn wait_guest(context: &Context<'_>, domid: DomId, mut model: Option<&mut DeviceModel>) -> Result<String, Failure> {
    /// xenstored fires this watch when a domain shuts down or goes.
    const RELEASED: &str = "@releaseDomain";
    /// A toolstack that destroys a guest ends QEMU first: the domain may follow within this time.
    const DESTROY_GRACE: Duration = Duration::from_secs(5);
    let mut model_ended = None;
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
            if let Some(Err(error)) = model.as_deref_mut().map(DeviceModel::check)
                && model_ended.get_or_insert_with(Instant::now).elapsed() > DESTROY_GRACE
            {
                return Err(error);
            }
            context.store.wait(Duration::from_millis(250))?;
        }
    })
}
