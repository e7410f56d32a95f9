//! What a device is and how it stands, for people and programs. The guest can write only the state of its own end.

use std::fmt;

use serde::{Serialize, Serializer};

use super::nic::interface_name;
use super::pci_nodes::frontend_of;
use super::pci_notes::{backend_of, in_backend};
use super::xenbus::state;
use crate::domain::devices::{ListedDevice, devices_of};
use crate::domain::paths::XenstorePaths;
use crate::os::Untrusted;
use crate::xen::{DomId, PciAddress, Transaction, XenError};

/// The state of one end of a device, as it stands in xenstore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndState(pub Option<String>);

impl EndState {
    /// Whether it is this state of [`state`].
    #[must_use]
    pub fn is(&self, state: &str) -> bool {
        self.0.as_deref() == Some(state)
    }
}

impl fmt::Display for EndState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => match state::name(text) {
                Some(name) => f.pad(name),
                None => f.pad(&Untrusted::from(text.as_str()).shortened(20).to_string()),
            },
            None => f.pad("gone"),
        }
    }
}

/// The name of the state, or the text that is none; null if the end is gone.
impl Serialize for EndState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_deref().map(|text| state::name(text).unwrap_or(text)).serialize(serializer)
    }
}

/// A device with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDetails {
    /// The device.
    pub device: ListedDevice,
    /// The place of a disk in the guest, as in `xvda`.
    pub vdev: Option<Untrusted>,
    /// The image of a disk, the directory of a share, the socket of a channel; `None`: there is none.
    pub target: Option<Untrusted>,
    /// Whether the guest may write to the disk.
    pub writable: Option<bool>,
    /// Whether the disk is a CD drive.
    pub cdrom: Option<bool>,
    /// The address of a network card.
    pub mac: Option<Untrusted>,
    /// The bridge of a network card.
    pub bridge: Option<Untrusted>,
    /// The interface of a network card in the backend's domain.
    pub interface: Option<Untrusted>,
    /// The state of the guest's end.
    pub frontend_state: EndState,
    /// The state of the backend.
    pub backend_state: EndState,
}

/// The devices of a domain as [`devices_of`] finds them, with what is known of them.
///
/// # Errors
/// An error of xenstored.
pub fn details_of(transaction: &Transaction<'_>, domid: DomId) -> Result<Vec<DeviceDetails>, XenError> {
    const NODES: [&str; 6] = ["dev", "params", "mode", "device-type", "mac", "bridge"];
    let keys = XenstorePaths::new(domid);
    let devices = devices_of(transaction, domid)?;
    let paths: Vec<String> = devices
        .iter()
        .flat_map(|device| {
            let libxl = format!("{}/device/{}/{}", keys.libxl, device.kind, device.devid);
            let states = [format!("{}/state", device.frontend), format!("{}/state", device.backend)];
            NODES.map(|node| format!("{libxl}/{node}")).into_iter().chain(states)
        })
        .collect();
    let values = transaction.read_all(&paths)?;
    let mut found = Vec::with_capacity(devices.len());
    for (device, values) in devices.into_iter().zip(values.chunks(NODES.len() + 2)) {
        let [vdev, params, mode, class, mac, bridge, frontend, backend] = values else { continue };
        let text = |value: &Option<String>| value.clone().map(Untrusted::from);
        let is_nic = device.kind == "vif";
        let interface = || device.vifname.clone().unwrap_or_else(|| interface_name(domid, device.devid));
        found.push(DeviceDetails {
            vdev: text(vdev),
            target: params
                .as_deref()
                .map(|params| target(&device.backend_kind, params))
                .or(device.path.as_deref())
                .filter(|text| !text.is_empty())
                .map(Untrusted::from),
            writable: mode.as_deref().map(|mode| mode.starts_with('w')),
            cdrom: class.as_deref().map(|class| class == "cdrom"),
            mac: text(mac),
            bridge: text(bridge),
            interface: is_nic.then(interface).map(Untrusted::from),
            frontend_state: EndState(frontend.clone()),
            backend_state: EndState(backend.clone()),
            device,
        });
    }
    Ok(found)
}

/// A PCI device of the host that a guest has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDetails {
    /// Its number in the backend.
    pub number: u32,
    /// Its address on the host.
    pub address: PciAddress,
    /// Its place in the guest: slot and function on the bus of an HVM guest, or the address that pciback has chosen for a PV
    /// guest, once it has.
    pub place: Option<Untrusted>,
    /// The directory of the backend, which all of the guest's PCI devices have in common.
    pub backend: String,
    /// The state of the guest's end.
    pub frontend_state: EndState,
    /// The state of the backend.
    pub backend_state: EndState,
}

/// The PCI devices of a domain, by their numbers.
///
/// # Errors
/// An error of xenstored.
pub fn pci_details_of(transaction: &Transaction<'_>, domid: DomId) -> Result<Vec<PciDetails>, XenError> {
    let mut devices = in_backend(transaction, domid)?;
    devices.sort_unstable();
    let (backend, frontend) = (backend_of(domid), frontend_of(domid));
    let mut paths = vec![format!("{frontend}/state"), format!("{backend}/state")];
    paths.extend(
        devices.iter().flat_map(|(number, _)| ["vdevfn", "vdev"].map(|node| format!("{backend}/{node}-{number}"))),
    );
    let values = transaction.read_all(&paths)?;
    let Some(([frontend_state, backend_state], places)) = values.split_first_chunk() else { return Ok(Vec::new()) };
    let state = |value: &Option<String>| EndState(value.clone());
    let found = devices.into_iter().zip(places.chunks(2)).map(|((number, address), values)| {
        let value = |index: usize| values.get(index).and_then(Option::as_deref);
        let place = value(0).and_then(slot_of).or_else(|| value(1).map(str::to_owned));
        PciDetails {
            number,
            address,
            place: place.map(Untrusted::from),
            backend: backend.clone(),
            frontend_state: state(frontend_state),
            backend_state: state(backend_state),
        }
    });
    Ok(found.collect())
}

/// Slot and function as `xl pci-list` prints them, of libxl's `vdevfn`, both in one hexadecimal number.
fn slot_of(vdevfn: &str) -> Option<String> {
    let number = u8::from_str_radix(vdevfn.trim_start_matches("0x"), 16).ok()?;
    Some(format!("{:02x}.{:x}", number >> 3, number & 7))
}

/// The image in `params`. In those of QEMU's backend the format is in front of it.
fn target<'a>(backend_kind: &str, params: &'a str) -> &'a str {
    match params.split_once(':') {
        Some((_, target)) if backend_kind == "qdisk" => target,
        _ => params,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_shown_without_its_format() {
        assert_eq!(target("vbd", "/srv/a:b.img"), "/srv/a:b.img");
        assert_eq!(target("qdisk", "qcow2:/srv/a:b.img"), "/srv/a:b.img");
        assert_eq!(target("qdisk", "aio:"), "");
        assert_eq!(target("qdisk", ""), "");
    }

    #[test]
    fn the_place_of_a_pci_device_is_slot_and_function() {
        assert_eq!(["28", "0xff", "2a"].map(|text| slot_of(text).expect(text)), ["05.0", "1f.7", "05.2"]);
        assert_eq!(["", "100", "x"].map(slot_of), [None, None, None]);
    }

    #[test]
    fn a_state_has_a_name_and_another_text_is_escaped() {
        let shown = |text: &str| EndState(Some(text.to_owned())).to_string();
        assert_eq!([shown("4"), shown("6")], ["connected", "closed"]);
        assert_eq!(shown("\x1b[31m"), "\\u{1b}[31m");
        assert_eq!(EndState(None).to_string(), "gone");
        let json = |state: &EndState| serde_json::to_value(state).expect("text");
        assert_eq!(json(&EndState(Some("1".to_owned()))), "initialising");
        assert_eq!(json(&EndState(Some("x".to_owned()))), "x");
        assert!(json(&EndState(None)).is_null());
    }
}
