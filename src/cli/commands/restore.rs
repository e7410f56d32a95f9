//! `restore`: a guest comes back from a file of `save` or of xl.

use serde_json::{Value, json};

use super::create::create_domain;
use super::dry_run::{check_memory, check_tables_and_pool};
use crate::cancel::Cancel;
use crate::cli::args::migration::RestoreArgs;
use crate::cli::connection::Connection;
use crate::cli::create_request::create_request;
use crate::cli::from_flags::Create;
use crate::cli::from_saved;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::config::error::ConfigError;
use crate::context::Context;
use crate::devices::framebuffer::keyboard;
use crate::devices::hotplug::Hotplug;
use crate::devices::plan::{GuestQemu, PlannedDevice, PlannedDevices, plan};
use crate::error::{AtStage, Error, Failure};
use crate::migration::checker::StateChecker;
use crate::migration::restore::{RestoreJob, Restored, restore};
use crate::migration::saved::Saved;
use crate::migration::saved_file::CheckJob;
use crate::observer;
use crate::qemu::device_model::DeviceModel;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &RestoreArgs, json: bool) -> anyhow::Result<Done> {
    let (saved, mut config) = observer::step(reporter, Stage::CheckInput, || {
        let cancel = Cancel::install()?;
        let job = CheckJob {
            checker: &StateChecker::this_program(),
            timeout: arguments.guest.timeout,
            cancel: &cancel,
            observer: reporter,
        };
        let saved = Saved::open(&arguments.file, &job)?;
        let config = from_saved::create(&arguments.guest, &saved)?;
        config.devices.check(config.guest.plan.request.kind).map_err(ConfigError::from)?;
        Ok::<_, Error>((saved, config))
    })?;
    let connection = Connection::open(reporter, true, arguments.guest.store.store_timeout)?;
    let context = connection.context();
    config.paused = arguments.paused;
    let kind = config.guest.plan.request.kind;
    let devices = plan_devices(&context, &saved, &config)?;
    let mut object = describe(arguments, &saved);
    if arguments.dry_run {
        context.step(Stage::CreateDomain, || {
            let (wanted, host) = create_request(&context, &config)?;
            check_tables_and_pool(&context, &config, &wanted, &host)
        })?;
        let (free, _) = check_memory(&context, &config)?;
        reporter.clear_line();
        object["required_kib"] = json!(config.guest.plan.memory.footprint);
        object["free_kib"] = json!(free);
        object["devices"] = devices.summary().into();
        let summary = format!(
            "{} is a {kind} guest with {} MiB and {}: nothing is in the way of restoring it",
            config.name,
            config.guest.plan.owned_pages_built.to_kib().0 / 1024,
            devices.summary().unwrap_or_else(|| "no devices".to_owned())
        );
        return print::finish(json, &object, &summary);
    }
    let mut domain = create_domain(&context, &config)?;
    let job = RestoreJob {
        saved: &saved,
        guest: &config.guest,
        name: &config.name,
        devices,
        device_model: config.device_model.as_ref(),
        backend: config.backend.as_ref(),
        hotplug_timeout: config.hotplug_timeout,
        timeout: arguments.guest.timeout,
    };
    let done = restore(&context, &job, &mut domain).and_then(|mut restored| {
        restored.start(&context, config.paused)?;
        let Restored { built, mut model, .. } = restored;
        model.as_mut().map_or(Ok(()), DeviceModel::let_go).at(Stage::DeviceModel)?;
        domain.release().at(Stage::Unpause)?;
        Ok((built, model))
    });
    let (built, model) = match done {
        Ok(done) => done,
        Err(failure) => return Err(domain.undo(reporter, failure).into()),
    };
    reporter.clear_line();
    domain.keep();
    for (name, value) in serde_json::to_value(&built)?.as_object().into_iter().flatten() {
        object[name.as_str()] = value.clone();
    }
    object["device_model_pid"] = json!(model.as_ref().map(DeviceModel::pid));
    object["paused"] = json!(config.paused);
    let state = if config.paused { "paused" } else { "running" };
    print::finish(json, &object, &format!("{} is domain {}, {state}", config.name, built.domid))
}

/// Plans the devices, and the keyboard that libxl's QEMU serves with the display.
pub(super) fn plan_devices(context: &Context<'_>, saved: &Saved, config: &Create) -> Result<PlannedDevices, Failure> {
    let kind = config.guest.plan.request.kind;
    let planned = plan(context.xen, context.store, &config.devices, kind, config.guest_qemu());
    let mut devices = planned.at(Stage::CreateDomain)?;
    if saved.guest.qemu.keyboard && config.device_model.is_some() {
        if config.guest_qemu() == GuestQemu::Serves {
            devices.paravirtual.push(PlannedDevice { device: keyboard(), hotplug: Hotplug::None });
        } else {
            log::info!("a QEMU without rights serves no paravirtual keyboard: the guest has its emulated one");
        }
    }
    Ok(devices)
}

fn describe(arguments: &RestoreArgs, saved: &Saved) -> Value {
    json!({
        "name": saved.guest.name.as_str(),
        "uuid": saved.guest.uuid,
        "file": arguments.file,
        "kind": saved.guest.request.kind,
        "pages": saved.pages,
        "qemu_state": saved.has_qemu,
        "created_by_dombuild": saved.guest.ours,
    })
}
