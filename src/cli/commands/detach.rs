//! `detach`: a device goes from a guest that runs.

use serde_json::json;

use crate::cli::args::devices::{DetachArgs, DetachClass};
use crate::cli::connection::{Connection, find_guest};
use crate::cli::device_flags::parse_one;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::config::devices::nic::MacAddress;
use crate::config::devices::virtual_device::VirtualDevice;
use crate::devices::details::{DeviceDetails, details_of};
use crate::error::device::DeviceError;
use crate::error::{AtStage, Error};
use crate::lifecycle::detach_device::{Consent, detach_device};
use crate::lifecycle::pci_device::detach_pci;
use crate::memory::Kind;
use crate::observer;
use crate::stage::Stage;
use crate::xen::DomainInfo;

pub(crate) fn run(reporter: &Reporter, arguments: &DetachArgs, json: bool) -> anyhow::Result<Done> {
    if arguments.class == DetachClass::Pci {
        return detach_pci_device(reporter, arguments, json);
    }
    let wanted = observer::step(reporter, Stage::CheckInput, || Wanted::parse(arguments.class, &arguments.device))?;
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::CheckInput)?;
    let details = find(&connection, &domain, &wanted, arguments.force).at(Stage::CheckInput)?;
    let context = connection.context();
    let consent = if arguments.force { Consent::Forced } else { Consent::Asked(arguments.timeout) };
    detach_device(&context, &domain, &details.device, consent)?;
    reporter.clear_line();

    let (domid, device) = (domain.domid, &details.device);
    let object = json!({ "domid": domid, "kind": device.kind, "devid": device.devid, "forced": arguments.force });
    print::finish(json, &object, &format!("{} of domain {domid} is detached", device.label()))
}

fn detach_pci_device(reporter: &Reporter, arguments: &DetachArgs, json: bool) -> anyhow::Result<Done> {
    let address = observer::step(reporter, Stage::CheckInput, || {
        if arguments.force {
            let reason = "--force is not for a PCI device: the guest could still reach it while another one has it";
            return Err(Error::BadConfig(reason.to_owned()));
        }
        arguments.device.parse().map_err(Error::BadConfig)
    })?;
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::CheckInput)?;
    detach_pci(&connection.context(), &domain, address, arguments.timeout)?;
    reporter.clear_line();
    let (domid, address) = (domain.domid, address.to_string());
    let object = json!({ "domid": domid, "kind": "pci", "address": address, "forced": false });
    print::finish(json, &object, &format!("PCI device {address} of domain {domid} is detached"))
}

/// The device that a user means.
enum Wanted {
    Disk(VirtualDevice),
    Address(MacAddress),
    /// Another device, by its class and number in xenstore.
    Numbered(&'static str, u32),
}

impl Wanted {
    fn parse(class: DetachClass, text: &str) -> Result<Self, Error> {
        let (kind, name) = match class {
            DetachClass::Disk => return parse_one("disk", text).map(Self::Disk),
            DetachClass::Vif if !text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return parse_one("vif", text).map(Self::Address);
            }
            DetachClass::Vif => ("vif", "a network card"),
            DetachClass::Vtpm => ("vtpm", "a virtual TPM"),
            DetachClass::Vdispl => ("vdispl", "a display"),
            DetachClass::Vsnd => ("vsnd", "a sound card"),
            DetachClass::Pvcalls => ("pvcalls", "PV calls"),
            DetachClass::Pci => ("pci", "a PCI device"),
        };
        let number = text.parse().map_err(|_| Error::BadConfig(format!("{text:?} is no number of {name}")))?;
        Ok(Self::Numbered(kind, number))
    }

    fn is(&self, details: &DeviceDetails) -> bool {
        let device = &details.device;
        match self {
            Self::Disk(vdev) => device.kind == "vbd" && device.devid == vdev.number,
            Self::Address(mac) => {
                let address = details.mac.as_ref().and_then(|mac| mac.raw_for_comparison().parse().ok());
                device.kind == "vif" && address == Some(*mac)
            }
            Self::Numbered(kind, devid) => device.kind == *kind && device.devid == *devid,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Disk(vdev) => format!("disk {vdev}"),
            Self::Address(mac) => format!("vif with the address {mac}"),
            Self::Numbered(kind, devid) => format!("{kind} {devid}"),
        }
    }
}

fn find(
    connection: &Connection<'_>,
    domain: &DomainInfo,
    wanted: &Wanted,
    force: bool,
) -> Result<DeviceDetails, Error> {
    let domid = domain.domid;
    let found = details_of(&connection.store.plain(), domid)?.into_iter().find(|details| wanted.is(details));
    let found = found.ok_or_else(|| DeviceError::NoSuchDevice { domid, device: wanted.name() })?;
    // No end of a drive that is emulated only is in xenstore.
    let emulated_only = found.frontend_state.0.is_none() && found.backend_state.0.is_none();
    if domain.kind == Kind::Hvm && (found.cdrom == Some(true) || emulated_only && !force) {
        return Err(Error::BadConfig(format!("{} is an emulated drive, which stays in its guest", wanted.name())));
    }
    Ok(found)
}
