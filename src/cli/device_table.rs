//! The devices of guests, as `list --devices` and `attach` print them.

use std::fmt;

use serde::Serialize;

use crate::devices::details::{DeviceDetails, EndState, PciDetails};
use crate::os::Untrusted;
use crate::xen::DomId;

/// A device. What it does not have is null.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceRow {
    domid: DomId,
    name: Option<Untrusted>,
    kind: Untrusted,
    devid: u32,
    backend_kind: Untrusted,
    backend_domid: DomId,
    backend_path: Untrusted,
    frontend_state: EndState,
    backend_state: EndState,
    vdev: Option<Untrusted>,
    target: Option<Untrusted>,
    writable: Option<bool>,
    cdrom: Option<bool>,
    mac: Option<Untrusted>,
    bridge: Option<Untrusted>,
    interface: Option<Untrusted>,
    script: Option<Untrusted>,
    address: Option<String>,
    place: Option<Untrusted>,
}

impl DeviceRow {
    pub(crate) fn new(domid: DomId, name: Option<Untrusted>, details: DeviceDetails) -> Self {
        let device = details.device;
        Self {
            domid,
            name,
            kind: device.kind.into(),
            devid: device.devid,
            backend_kind: device.backend_kind.into(),
            backend_domid: device.backend_domid,
            backend_path: device.backend.into(),
            frontend_state: details.frontend_state,
            backend_state: details.backend_state,
            vdev: details.vdev,
            target: details.target,
            writable: details.writable,
            cdrom: details.cdrom,
            mac: details.mac,
            bridge: details.bridge,
            interface: details.interface,
            script: device.script.map(Untrusted::from),
            address: None,
            place: None,
        }
    }

    pub(crate) fn of_pci(domid: DomId, name: Option<Untrusted>, details: PciDetails) -> Self {
        Self {
            domid,
            name,
            kind: "pci".into(),
            devid: details.number,
            backend_kind: "pci".into(),
            backend_domid: DomId::DOM0,
            backend_path: details.backend.into(),
            frontend_state: details.frontend_state,
            backend_state: details.backend_state,
            vdev: None,
            target: None,
            writable: None,
            cdrom: None,
            mac: None,
            bridge: None,
            interface: None,
            script: None,
            address: Some(details.address.to_string()),
            place: details.place,
        }
    }

    /// What the device is: the image of a disk, the address and the bridge of a network card, the places of a PCI device.
    fn what(&self) -> String {
        let mut words: Vec<String> =
            [&self.target, &self.mac].into_iter().flatten().map(Untrusted::to_string).collect();
        words.extend(self.address.clone());
        words.extend(self.place.as_ref().map(|place| format!("at {place}")));
        words.extend(self.bridge.as_ref().map(|bridge| format!("on {bridge}")));
        words.extend(self.writable.map(|writable| if writable { "(rw)" } else { "(ro)" }.to_owned()));
        words.extend(self.cdrom.filter(|cdrom| *cdrom).map(|_| "(CD)".to_owned()));
        words.join(" ")
    }
}

impl fmt::Display for DeviceRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.vdev.as_ref().or(self.interface.as_ref());
        write!(f, "{} {}", self.kind, self.devid)?;
        named.map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

/// Devices, by domain, class and number.
#[derive(Debug)]
pub(crate) struct DeviceTable(pub(crate) Vec<DeviceRow>);

impl fmt::Display for DeviceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 6]> = self
            .0
            .iter()
            .map(|row| {
                let guest = row.name.as_ref().map_or_else(|| "(no name)".to_owned(), Untrusted::to_string);
                let backend = match row.backend_domid {
                    DomId::DOM0 => row.backend_kind.to_string(),
                    other => format!("{} of {other}", row.backend_kind),
                };
                [
                    guest,
                    row.to_string(),
                    backend,
                    row.frontend_state.to_string(),
                    row.backend_state.to_string(),
                    row.what(),
                ]
            })
            .collect();
        let titles = ["name", "device", "backend", "guest's end", "backend's end", "what"];
        let width = |column: usize| {
            let cells =
                rows.iter().filter_map(|row| row.get(column)).map(String::as_str).chain(titles.get(column).copied());
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).min(32)
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        let mut line = |domid: &str, cells: &[&str]| {
            write!(f, "{domid:>5}")?;
            for (cell, width) in cells.iter().zip(widths) {
                write!(f, " {cell:<width$}")?;
            }
            writeln!(f)
        };
        line("domid", &titles)?;
        for (row, cells) in self.0.iter().zip(&rows) {
            line(&row.domid.to_string(), &cells.each_ref().map(String::as_str))?;
        }
        Ok(())
    }
}
