//! `attach`: a disk, a network card or a PCI device comes to a guest that exists.

use std::time::Instant;

use serde_json::json;

use crate::cli::args::devices::{AttachArgs, AttachClass};
use crate::cli::connection::{Connection, find_guest};
use crate::cli::device_flags::parse_one;
use crate::cli::device_table::DeviceRow;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::config::devices::pci::{self, PciDevice, PciWord};
use crate::config::error::ConfigError;
use crate::domain::paths::XenstorePaths;
use crate::error::{AtStage, Error};
use crate::lifecycle::attach_device::{NewDevice, Timeouts, attach_device};
use crate::lifecycle::pci_device::attach_pci;
use crate::observer;
use crate::os::Untrusted;
use crate::stage::Stage;

/// The PCI device of a text, as in `--pci`.
fn pci_device(spec: &str) -> Result<PciDevice, Error> {
    let wrong = |reason: String| Error::BadConfig(format!("pci {spec:?}: {reason}"));
    let words: Result<Vec<PciWord>, String> = spec.split(',').map(str::parse).collect();
    let devices = pci::devices(&words.map_err(wrong)?).map_err(ConfigError::from)?;
    match devices[..] {
        [device] => Ok(device),
        _ => Err(wrong("one device is attached at a time".to_owned())),
    }
}

fn attach_pci_device(reporter: &Reporter, arguments: &AttachArgs, json: bool) -> anyhow::Result<Done> {
    let device = observer::step(reporter, Stage::CheckInput, || pci_device(&arguments.spec))?;
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::CheckInput)?;
    let start = Instant::now();
    attach_pci(&connection.context(), &domain, device, (!arguments.no_wait).then_some(arguments.timeout))?;
    reporter.clear_line();
    let (domid, address) = (domain.domid, device.address.to_string());
    let object = json!({ "domid": domid, "kind": "pci", "address": address });
    let seconds = start.elapsed().as_secs_f64();
    print::finish(json, &object, &format!("domain {domid} has the PCI device {address} ({seconds:.1} s)"))
}

pub(crate) fn run(reporter: &Reporter, arguments: &AttachArgs, json: bool) -> anyhow::Result<Done> {
    let device = observer::step(reporter, Stage::CheckInput, || match arguments.class {
        AttachClass::Disk => parse_one("disk", &arguments.spec).map(|disk| Some(NewDevice::Disk(disk))),
        AttachClass::Vif => parse_one("vif", &arguments.spec).map(|nic| Some(NewDevice::Nic(nic))),
        AttachClass::Pci => Ok(None),
    })?;
    let Some(device) = device else { return attach_pci_device(reporter, arguments, json) };
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::CheckInput)?;
    let context = connection.context();
    let start = Instant::now();
    let guest = (!arguments.no_wait).then_some(arguments.timeout);
    let details = attach_device(&context, &domain, device, Timeouts { script: arguments.hotplug_timeout, guest })?;
    reporter.clear_line();

    let name = connection.store.plain().read(&XenstorePaths::new(domain.domid).of_domain("name")).unwrap_or_default();
    let row = DeviceRow::new(domain.domid, name.map(Untrusted::from), details);
    let connected = if arguments.no_wait { "attached" } else { "connected" };
    let seconds = start.elapsed().as_secs_f64();
    print::finish(json, &row, &format!("{row} of domain {} is {connected} ({seconds:.1} s)", domain.domid))
}
