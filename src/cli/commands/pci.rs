//! `pci`: the host's PCI devices are listed, made assignable and given back.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::cli::args::pci::{PciAction, PciArgs, PciAssignArgs, PciListArgs, PciReleaseArgs};
use crate::cli::connection::Connection;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::devices::pci::SYSFS;
use crate::devices::pci_assignable::{Take, assign, give_back};
use crate::devices::pci_group::{Neighbour, neighbours};
use crate::devices::pci_host::{HostDevice, addresses};
use crate::devices::pci_notes::{driver_node, owners};
use crate::error::{AtStage, Error};
use crate::os::Untrusted;
use crate::stage::Stage;
use crate::xen::DomId;

pub(crate) fn run(reporter: &Reporter, arguments: &PciArgs, json: bool) -> anyhow::Result<Done> {
    match &arguments.action {
        PciAction::List(arguments) => list(reporter, arguments, json),
        PciAction::Assign(arguments) => make_assignable(reporter, arguments, json),
        PciAction::Release(arguments) => release(reporter, arguments, json),
    }
}

/// A device as it is printed.
#[derive(Serialize)]
struct Row {
    address: String,
    /// Vendor and device, as `lspci -n` shows them.
    id: String,
    class: String,
    /// The driver in dom0 that has it.
    driver: Option<String>,
    /// A guest can get it.
    assignable: bool,
    /// The guest that has it.
    domid: Option<DomId>,
    reset_methods: Vec<String>,
    /// The driver that gets it back.
    former_driver: Option<Untrusted>,
    /// The other functions of the same device.
    functions: Vec<String>,
    /// Devices of dom0 and of guests that the IOMMU cannot tell from it.
    shares_dma_with: Vec<String>,
}

fn rows(connection: &Connection<'_>, arguments: &PciListArgs) -> Result<Vec<Row>, Error> {
    let plain = connection.store.plain();
    let owners = owners(&connection.xen, &plain)?;
    let mut rows = Vec::new();
    for address in addresses(&arguments.sysfs)? {
        // It can be unplugged meanwhile.
        let Some(device) = HostDevice::find(&arguments.sysfs, address)? else { continue };
        let domid = owners.get(&address).copied();
        if !(arguments.all || device.is_assignable() || domid.is_some()) {
            continue;
        }
        let neighbours = neighbours(&connection.xen, &arguments.sysfs, address, &owners)?;
        let those = |is_one: fn(&Neighbour) -> bool| {
            neighbours.iter().filter(|other| is_one(other)).map(|other| other.address.to_string()).collect()
        };
        let former = plain.read(&driver_node(address))?;
        let former = former.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
        rows.push(Row {
            address: address.to_string(),
            id: format!("{:04x}:{:04x}", device.id.0, device.id.1),
            class: format!("{:04x}", device.class >> 8),
            assignable: device.is_assignable() && domid.is_none(),
            driver: device.driver,
            domid,
            reset_methods: device.reset_methods,
            former_driver: former.map(Untrusted::from),
            functions: those(|other| other.is_function),
            shares_dma_with: those(|other| other.shares_dma),
        });
    }
    Ok(rows)
}

fn list(reporter: &Reporter, arguments: &PciListArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, false, arguments.store.store_timeout)?;
    let rows = rows(&connection, arguments).at(Stage::Inspect)?;
    let mut text = format!(
        "{:<12} {:<9} {:<5} {:<15} {:<10} {:<14} {:<13} {}\n",
        "address", "id", "class", "driver", "whose", "reset", "former driver", "goes with"
    );
    for row in &rows {
        let whose = match row.domid {
            Some(domid) => format!("domain {domid}"),
            None if row.assignable => "assignable".to_owned(),
            None => "dom0".to_owned(),
        };
        let reset = if row.reset_methods.is_empty() { "none".to_owned() } else { row.reset_methods.join(" ") };
        let former = row.former_driver.as_ref().map_or("-".to_owned(), Untrusted::to_string);
        let functions = row.functions.iter().filter(|other| !row.shares_dma_with.contains(other));
        let mut others: Vec<String> = row.shares_dma_with.iter().map(|other| format!("{other} (DMA)")).collect();
        others.extend(functions.map(|other| format!("{other} (function)")));
        let others = if others.is_empty() { "-".to_owned() } else { others.join(", ") };
        let driver = Untrusted::from(row.driver.as_deref().unwrap_or("-"));
        writeln!(
            text,
            "{:<12} {:<9} {:<5} {:<15} {whose:<10} {reset:<14} {former:<13} {others}",
            row.address,
            row.id,
            row.class,
            driver.to_string()
        )?;
    }
    if rows.is_empty() {
        text = "no guest has or can get a PCI device; `dombuild pci assign` makes one assignable".to_owned();
    }
    print::finish(json, &rows, text.trim_end())
}

fn make_assignable(reporter: &Reporter, arguments: &PciAssignArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let context = connection.context();
    let (address, take) = (arguments.address, if arguments.force { Take::Forced } else { Take::Unused });
    let changed = context.step(Stage::Devices, || assign(&context, Path::new(SYSFS), address, take))?;
    reporter.clear_line();
    let text = if changed { "is assignable" } else { "was assignable already" };
    let object = json!({ "address": address.to_string(), "assignable": true, "changed": changed });
    print::finish(json, &object, &format!("{address} {text}"))
}

fn release(reporter: &Reporter, arguments: &PciReleaseArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let context = connection.context();
    let address = arguments.address;
    let driver = context.step(Stage::RemoveDevice, || give_back(&context, Path::new(SYSFS), address))?;
    reporter.clear_line();
    let text = match &driver {
        Some(driver) => format!("{address} is dom0's again, and {driver} has it"),
        None => format!("{address} is dom0's again; no driver had it"),
    };
    let object = json!({ "address": address.to_string(), "assignable": false, "driver": driver });
    print::finish(json, &object, &text)
}
