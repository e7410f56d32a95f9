//! `list`: every domain, its memory against its plan, and who created it; or the devices of guests.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use uuid::Uuid;

use crate::cli::args::ListArgs;
use crate::cli::connection::{Connection, find_domain};
use crate::cli::device_table::{DeviceRow, DeviceTable};
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::devices::details::{details_of, pci_details_of};
use crate::domain::measure::measure;
use crate::domain::paths::XenstorePaths;
use crate::domain::saved_request::{find_request, request_of};
use crate::error::{AtStage, Error};
use crate::memory::{Kib, Kind, Model, Pages, Plan, Request};
use crate::observer::Running;
use crate::os::Untrusted;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo};

pub(crate) fn run(reporter: &Reporter, arguments: &ListArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, false, arguments.store.store_timeout)?;
    let running = Running::begin(reporter, Stage::Inspect);
    if arguments.devices {
        let table = devices(&connection, arguments.domain.as_deref()).at(Stage::Inspect)?;
        running.done();
        return print::finish(json, &table.0, &table.to_string());
    }
    let list = List::of(&connection).at(Stage::Inspect)?;
    running.done();
    print::finish(json, &list.domains, &list.to_string())
}

/// The devices of all guests, or of one.
fn devices(connection: &Connection<'_>, domain: Option<&str>) -> Result<DeviceTable, Error> {
    let domids = match domain {
        Some(domain) => vec![find_domain(connection, domain)?],
        None => connection.xen.domains()?.iter().map(|domain| domain.domid).collect(),
    };
    let store = connection.store.plain();
    let paths: Vec<_> = domids.iter().map(|domid| XenstorePaths::new(*domid).of_domain("name")).collect();
    let mut rows = Vec::new();
    for (domid, name) in domids.into_iter().zip(store.read_all(&paths)?) {
        let name = name.map(Untrusted::from);
        rows.extend(details_of(&store, domid)?.into_iter().map(|details| DeviceRow::new(domid, name.clone(), details)));
        let pci = pci_details_of(&store, domid)?.into_iter();
        rows.extend(pci.map(|details| DeviceRow::of_pci(domid, name.clone(), details)));
    }
    Ok(DeviceTable(rows))
}

/// The toolstack that created a domain, as far as xenstore shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Creator {
    /// Xen itself: dom0.
    Xen,
    /// dombuild, by its owner tag.
    Dombuild,
    /// libxl, by its nodes.
    Libxl,
    /// None that is known.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Row {
    domid: DomId,
    name: Option<Untrusted>,
    uuid: Uuid,
    kind: Kind,
    state: String,
    vcpus: u32,
    owned_kib: Kib,
    /// What the plan says of a running guest; nothing where no plan fits.
    planned_kib: Option<Kib>,
    model: Option<Model>,
    /// Since the domain was built, by the toolstack's note in xenstore.
    uptime_seconds: Option<u64>,
    /// Of all its vCPUs together.
    cpu_seconds: f64,
    created_by: Creator,
}

/// The domains, in Xen's order.
struct List {
    domains: Vec<Row>,
}

impl List {
    fn of(connection: &Connection<'_>) -> Result<Self, Error> {
        let domains = connection.xen.domains()?;
        // All names and notes in one go: xenstored's time counts by the request.
        let paths: Vec<String> = domains.iter().flat_map(paths_of).collect();
        let values = connection.store.plain().read_all(&paths)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rows = domains.iter().zip(values.chunks(PATHS)).map(|(domain, values)| {
            let saved = values.last().and_then(|text| request_of(text.as_deref()?, domain));
            let planned = planned(connection, domain, saved)?;
            Ok(Row {
                domid: domain.domid,
                name: values.first().cloned().flatten().map(Untrusted::from),
                uuid: domain.uuid,
                kind: domain.kind,
                state: state(domain),
                vcpus: domain.existing_vcpus,
                owned_kib: domain.owned_pages.to_kib(),
                planned_kib: planned.as_ref().map(|(_, pages)| pages.to_kib()),
                model: planned.map(|(model, _)| model),
                uptime_seconds: values.get(1).and_then(|text| uptime(text.as_deref()?, now)),
                cpu_seconds: (domain.cpu_time.as_secs_f64() * 10.0).round() / 10.0,
                created_by: creator(domain, values),
            })
        });
        Ok(Self { domains: rows.collect::<Result<_, Error>>()? })
    }
}

/// How many paths there are for each domain.
const PATHS: usize = 5;

fn paths_of(domain: &DomainInfo) -> [String; PATHS] {
    let paths = XenstorePaths::new(domain.domid);
    [
        paths.of_domain("name"),
        format!("/vm/{}/start_time", domain.uuid),
        paths.owner_tag(),
        format!("{}/type", paths.libxl),
        paths.saved_request(),
    ]
}

fn state(domain: &DomainInfo) -> String {
    match domain.shutdown {
        _ if domain.dying => "dying".to_owned(),
        Some(reason) => reason.to_string(),
        None if domain.paused => "paused".to_owned(),
        None => "running".to_owned(),
    }
}

fn creator(domain: &DomainInfo, values: &[Option<String>]) -> Creator {
    let tag = values.get(2).cloned().flatten().and_then(|tag| tag.parse::<Uuid>().ok());
    match (tag, values.get(3)) {
        _ if domain.domid == DomId::DOM0 => Creator::Xen,
        (Some(tag), _) if tag == domain.uuid => Creator::Dombuild,
        (_, Some(Some(_))) => Creator::Libxl,
        _ => Creator::Unknown,
    }
}

/// Seconds since a time that toolstacks write as seconds of the epoch, with or without a fraction. A clock that was set back
/// tells nothing.
fn uptime(start: &str, now: Duration) -> Option<u64> {
    let start: u64 = start.split('.').next()?.parse().ok()?;
    now.as_secs().checked_sub(start)
}

/// The pages that a running guest owns by its plan, and the plan's model. Xen and the guest's keys are asked where dombuild has
/// saved no request. dom0, domains that end meanwhile and guests that no
/// toolstack's keys describe have none.
fn planned(
    connection: &Connection<'_>,
    domain: &DomainInfo,
    saved: Option<Request>,
) -> Result<Option<(Model, Pages)>, Error> {
    if domain.domid == DomId::DOM0 || domain.dying {
        return Ok(None);
    }
    let of = |request: &Request| Plan::new(request).ok().map(|plan| (request.model, plan.owned_pages_running));
    if let Some(request) = saved {
        return Ok(of(&request));
    }
    let Ok(measured) = measure(&connection.xen, domain.domid) else { return Ok(None) };
    let request = match find_request(&connection.store, domain, &measured, None) {
        Ok(origin) => origin.request,
        Err(error @ Error::Xen(_)) => return Err(error),
        Err(_) => return Ok(None),
    };
    Ok(of(&request))
}

impl fmt::Display for List {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self
            .domains
            .iter()
            .map(|row| row.name.as_ref().map_or_else(|| "(no name)".to_owned(), Untrusted::to_string))
            .collect();
        let width = names.iter().map(|name| name.chars().count()).chain([4]).max().unwrap_or(0).min(32);
        write!(formatter, "domid {:<width$} kind state    vcpus owned MiB plan MiB    uptime  CPU s made by", "name")?;
        for (row, name) in self.domains.iter().zip(&names) {
            let kind = row.kind.name().to_uppercase();
            let planned = row.planned_kib.map_or_else(|| "-".to_owned(), mib);
            let uptime = row.uptime_seconds.map_or_else(|| "-".to_owned(), time);
            write!(
                formatter,
                "\n{:>5} {name:<width$} {kind:<4} {:<8} {:>5} {:>9} {planned:>8} {uptime:>9} {:>6.0} {}",
                row.domid,
                row.state,
                row.vcpus,
                mib(row.owned_kib),
                row.cpu_seconds,
                match row.created_by {
                    Creator::Xen => "Xen",
                    Creator::Dombuild => "dombuild",
                    Creator::Libxl => "libxl",
                    Creator::Unknown => "unknown",
                }
            )?;
        }
        Ok(())
    }
}

/// Whole MiB, rounded to the nearest.
fn mib(size: Kib) -> String {
    (size.get().saturating_add(512) / 1024).to_string()
}

/// Days and hours, or hours, minutes and seconds.
fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match days {
        0 => format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        let now = Duration::from_secs(100_000);
        assert_eq!(uptime("99990.25", now), Some(10));
        assert_eq!(uptime("100001", now), None, "the clock was set back");
        assert_eq!(uptime("x", now), None);
        assert_eq!([time(59), time(3_661), time(90_000)], ["0:00:59", "1:01:01", "1d 01h"]);
        assert_eq!(mib(Kib(1535)), "1");
        assert_eq!(mib(Kib(1536)), "2");
    }
}
