//! `migrate-receive`: takes a guest that another host sends, and starts it when that host gives the word.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::json;

use super::create::create_domain;
use super::restore::plan_devices;
use crate::cli::args::migration::ReceiveArgs;
use crate::cli::connection::Connection;
use crate::cli::from_saved;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::config::devices::set::MigratesFrom;
use crate::config::error::ConfigError;
use crate::config::name::DomainName;
use crate::context::Context;
use crate::domain::find::name_owner;
use crate::error::{AtStage, Error};
use crate::lifecycle::arrival::{Progress, arrival, record};
use crate::lifecycle::migrated::name_incoming;
use crate::lifecycle::supervise::rename;
use crate::migration::incoming::receive;
use crate::migration::restore::{RestoreJob, restore};
use crate::migration::saved::{Saved, Source};
use crate::migration::wire::Wire;
use crate::os::fd::take;
use crate::qemu::device_model::DeviceModel;
use crate::stage::Stage;
use crate::xen::{DomId, DomainRef};

/// How long a guest that stands is looked at: it is about to run, or to be removed.
const STANDS: Duration = Duration::from_secs(30);

pub(crate) fn run(reporter: &Reporter, arguments: &ReceiveArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, arguments.guest.store.store_timeout)?;
    let context = connection.context();
    if let Some(uuid) = arguments.has {
        let found = arrival(&context, uuid, STANDS)?;
        let object = serde_json::to_value(found)?;
        // One line for a program, with --json and without.
        print::print_text(&object.to_string())?;
        return Ok(Done { summary: format!("guest {uuid}: {object}"), object });
    }
    let saved = context.step::<_, Error>(Stage::HandOver, || receive(wire(arguments, &connection)?))?;
    let name = saved.guest.name.clone();
    let mut config = context.step::<_, Error>(Stage::CheckInput, || {
        let mut config = from_saved::create(&arguments.guest, &saved)?;
        config.name = name_incoming(&name).map_err(Error::BadConfig)?;
        config.devices.check(config.guest.plan.request.kind).map_err(ConfigError::from)?;
        Ok(config)
    })?;
    config.devices.migrates_from = context.step(Stage::CreateDomain, || where_from(&context, &saved, &name))?;
    let devices = plan_devices(&context, &saved, &config)?;
    let mut domain = create_domain(&context, &config)?;
    let held = domain.held();
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
    let Source::Wire { wire, .. } = &saved.source else {
        return Err(Error::Internal("a guest that arrives is in a file".to_owned())).at(Stage::HandOver)?;
    };
    let arrived = restore(&context, &job, &mut domain).and_then(|restored| {
        record(held.uuid, Progress::Incoming).at(Stage::HandOver)?;
        context.step(Stage::HandOver, || wire.wait_for_word())?;
        Ok(restored)
    });
    let mut restored = match arrived {
        Ok(restored) => restored,
        Err(failure) => return Err(domain.undo(reporter, failure).into()),
    };
    // The guest is this side's from here on, also if this run is killed.
    let started = restored.model.as_mut().map_or(Ok(()), DeviceModel::let_go).at(Stage::DeviceModel).and_then(|()| {
        domain.release().at(Stage::HandOver)?;
        record(held.uuid, Progress::Arrived).at(Stage::HandOver)?;
        context.step(Stage::HandOver, || rename(&context, held, &name))?;
        restored.start(&context, arguments.paused)
    });
    if let Err(failure) = started {
        let failure = domain.undo(reporter, failure);
        // Where a part of it is left, the other side must not go on: it stays undecided there.
        let reported = match failure.error {
            Error::LeftBehind { .. } => Ok(()),
            _ => record(held.uuid, Progress::Removed).and_then(|()| wire.report_failure()),
        };
        if let Err(error) = reported {
            log::error!("the other side does not know that the guest does not run here: {error}");
        }
        return Err(failure.into());
    }
    domain.keep();
    // The guest runs, whether the other side hears of it or not.
    if let Err(error) = wire.report_success() {
        log::error!("{name} runs here as domain {}, and the other side may not know it: {error}", held.domid);
    }
    reporter.clear_line();
    let object = json!({ "domid": held.domid, "uuid": held.uuid, "name": name.as_str(), "paused": arguments.paused });
    let summary = format!("{name} is domain {}, {}", held.domid, if arguments.paused { "paused" } else { "running" });
    match arguments.fd {
        Some(_) => print::finish(json, &object, &summary),
        // Standard output is the connection.
        None => Ok(Done { object, summary }),
    }
}

fn wire(arguments: &ReceiveArgs, connection: &Connection<'_>) -> Result<Wire, Error> {
    let copied = || Error::io("copy the connection");
    let (input, output) = if let Some(number) = arguments.fd {
        let socket = take(number).map_err(|error| Error::BadConfig(error.to_string()))?.fd;
        let copy = socket.try_clone().map_err(copied())?;
        (socket, copy)
    } else {
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(copied())?;
        (input, io::stdout().as_fd().try_clone_to_owned().map_err(copied())?)
    };
    Ok(Wire::new(input, output, &connection.cancel, arguments.guest.timeout))
}

/// Where the guest runs until it starts here: on this host, if a domain has its UUID and its name.
fn where_from(context: &Context<'_>, saved: &Saved, name: &DomainName) -> Result<MigratesFrom, Error> {
    let owner = name_owner(context.xen, &context.store.plain(), name.as_str())?;
    let domains = context.xen.domains()?;
    let same = |domid: &DomId| {
        let twin = DomainRef { domid: *domid, uuid: saved.guest.uuid };
        domains.iter().any(|domain| domain.held() == twin)
    };
    match owner {
        None => Ok(MigratesFrom::AnotherHost),
        Some(domid) if same(&domid) => Ok(MigratesFrom::Domain(domid.get())),
        Some(owner) => Err(Error::NameTaken { name: name.to_string(), owner }),
    }
}
