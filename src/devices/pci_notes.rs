//! Which guest has a PCI device of the host: libxl's notes in xenstore, which dombuild keeps as well, and the backends of
//! dom0's pciback.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::xen::{DomId, DomainRef, Interface, PciAddress, Transaction, XenError};

/// libxl's notes on devices, one directory for each.
const NOTES: &str = "/libxl/pci";

/// libxl's directory of a device in xenstore (`PCI_INFO_PATH`, tools/libs/light/libxl_pci.c, Xen 4.17).
#[must_use]
pub fn notes_of(address: PciAddress) -> String {
    format!("{NOTES}/{}", address.to_string().replace([':', '.'], "-"))
}

/// The node of the guest that has a device. libxl writes it, too.
#[must_use]
pub fn owner_node(address: PciAddress) -> String {
    format!("{}/domid", notes_of(address))
}

/// The node with the number and UUID of that guest, if dombuild gave it the device: a number alone may be another domain's
/// by now.
#[must_use]
pub fn guest_node(address: PciAddress) -> String {
    format!("{}/dombuild-guest", notes_of(address))
}

/// The value of [`guest_node`].
#[must_use]
pub fn guest_text(domain: DomainRef) -> String {
    format!("{} {}", domain.domid, domain.uuid)
}

/// The UUID in a [`guest_node`] that is about this domid. xl removes `domid` alone, and writes another later.
fn uuid_of(text: &str, domid: DomId) -> Option<Uuid> {
    let (number, uuid) = text.split_once(' ')?;
    uuid.parse().ok().filter(|_| number == domid.to_string())
}

/// The node of the run that gives the device to a guest which exists, while it does: the value is that of
/// [`JournalEntry::mark`](crate::runs::journal::JournalEntry::mark).
#[must_use]
pub fn run_node(address: PciAddress) -> String {
    format!("{}/dombuild-run", notes_of(address))
}

/// The node of the driver that a device had before pciback.
#[must_use]
pub fn driver_node(address: PciAddress) -> String {
    format!("{}/driver_path", notes_of(address))
}

/// Removes the directory of a device's notes, and that of all notes, if they are empty.
///
/// # Errors
/// An error of xenstored.
pub fn remove_empty_notes(transaction: &Transaction<'_>, address: PciAddress) -> Result<(), XenError> {
    for directory in [notes_of(address), NOTES.to_owned()] {
        if transaction.children(&directory)?.is_empty() {
            transaction.remove(&directory)?;
        }
    }
    Ok(())
}

/// A device that a guest has, by the notes in xenstore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedDevice {
    /// The device.
    pub address: PciAddress,
    /// The guest's number.
    pub domid: DomId,
    /// Its UUID, if dombuild noted it.
    pub uuid: Option<Uuid>,
    /// The run that is giving it to a guest which exists, or was killed while it did.
    pub run: Option<String>,
}

/// What is noted of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notes {
    address: PciAddress,
    domid: Option<String>,
    guest: Option<String>,
    run: Option<String>,
}

/// The notes of all devices, in two requests; on most hosts there are none.
///
/// # Errors
/// An error of xenstored.
pub fn notes(transaction: &Transaction<'_>) -> Result<Vec<Notes>, XenError> {
    let named = transaction.children(NOTES)?;
    let addresses: Vec<PciAddress> = named.iter().filter_map(|name| address_of_note(name)).collect();
    let paths: Vec<String> =
        addresses.iter().flat_map(|address| [owner_node(*address), guest_node(*address), run_node(*address)]).collect();
    let values = transaction.read_all(&paths)?;
    let all = addresses.iter().zip(values.chunks(3)).filter_map(|(address, values)| {
        let [domid, guest, run] = values else { return None };
        Some(Notes { address: *address, domid: domid.clone(), guest: guest.clone(), run: run.clone() })
    });
    Ok(all.collect())
}

/// The devices that guests have, by libxl's notes, which dombuild keeps as well.
///
/// # Errors
/// An error of xenstored.
pub fn owned(transaction: &Transaction<'_>) -> Result<Vec<OwnedDevice>, XenError> {
    Ok(owned_by(&notes(transaction)?))
}

/// The devices that guests have, by these notes.
#[must_use]
pub fn owned_by(notes: &[Notes]) -> Vec<OwnedDevice> {
    let owned = notes.iter().filter_map(|noted| {
        let domid = DomId::new(noted.domid.as_deref()?.parse().ok()?)?;
        let uuid = noted.guest.as_deref().and_then(|text| uuid_of(text, domid));
        Some(OwnedDevice { address: noted.address, domid, uuid, run: noted.run.clone() })
    });
    owned.collect()
}

/// The devices that dombuild noted for this domain, and that another toolstack has taken from it: `domid` is gone.
#[must_use]
pub fn taken_by_others(notes: &[Notes], domain: DomainRef) -> Vec<PciAddress> {
    let guest = guest_text(domain);
    let taken = notes.iter().filter(|noted| noted.domid.is_none() && noted.guest.as_ref() == Some(&guest));
    taken.map(|noted| noted.address).collect()
}

/// `SSSS-BB-DD-F`.
fn address_of_note(name: &str) -> Option<PciAddress> {
    let parts: Vec<&str> = name.split('-').collect();
    let [segment, bus, device, function] = parts[..] else { return None };
    format!("{segment}:{bus}:{device}.{function}").parse().ok()
}

const BACKENDS: &str = "/local/domain/0/backend/pci";

/// The guest that has each device: by the notes, and by the backends of pciback, which other toolstacks write without
/// notes. What is left of domains that are gone does not count.
///
/// # Errors
/// An error of Xen or xenstored.
pub fn owners(xen: &Interface, transaction: &Transaction<'_>) -> Result<BTreeMap<PciAddress, DomId>, XenError> {
    let mut all: BTreeMap<PciAddress, DomId> = BTreeMap::new();
    for domid in backends(transaction)? {
        all.extend(in_backend(transaction, domid)?.into_iter().map(|(_, address)| (address, domid)));
    }
    all.extend(owned(transaction)?.into_iter().map(|device| (device.address, device.domid)));
    if !all.is_empty() {
        let living: Vec<DomId> = xen.domains()?.iter().map(|info| info.domid).collect();
        all.retain(|_, domid| living.contains(domid));
    }
    Ok(all)
}

/// The domains with a backend of PCI devices, whether they exist or not.
///
/// # Errors
/// An error of xenstored.
pub fn backends(transaction: &Transaction<'_>) -> Result<Vec<DomId>, XenError> {
    let names = transaction.children(BACKENDS)?;
    Ok(names.iter().filter_map(|name| DomId::new(name.parse().ok()?)).collect())
}

/// The backend of a guest's PCI devices: one for all.
#[must_use]
pub fn backend_of(domid: DomId) -> String {
    format!("/local/domain/0/backend/pci/{domid}/0")
}

/// The devices in the backend of a guest, each with its number there.
///
/// # Errors
/// An error of xenstored.
pub fn in_backend(transaction: &Transaction<'_>, domid: DomId) -> Result<Vec<(u32, PciAddress)>, XenError> {
    let backend = backend_of(domid);
    let numbers: Vec<u32> =
        transaction.children(&backend)?.iter().filter_map(|name| name.strip_prefix("dev-")?.parse().ok()).collect();
    let paths: Vec<String> = numbers.iter().map(|number| format!("{backend}/dev-{number}")).collect();
    let values = transaction.read_all(&paths)?;
    let found = numbers.into_iter().zip(values);
    Ok(found.filter_map(|(number, value)| Some((number, value?.parse().ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_the_names_of_libxl() {
        let address: PciAddress = "0001:af:1d.7".parse().expect("an address");
        assert_eq!(owner_node(address), "/libxl/pci/0001-af-1d-7/domid");
        assert_eq!(address_of_note("0001-af-1d-7"), Some(address));
        for other in ["0001-af-1d", "x", "0001-af-1d-7-0", "0001-af-1d-9"] {
            assert_eq!(address_of_note(other), None);
        }
    }

    #[test]
    fn a_guest_is_noted_with_its_number() {
        let uuid = Uuid::from_u128(7);
        let [three, four] = [3, 4].map(|number| DomId::new(number).expect("a domid"));
        let text = guest_text(DomainRef { domid: three, uuid });
        assert_eq!([uuid_of(&text, three), uuid_of(&text, four), uuid_of("3", three)], [Some(uuid), None, None]);
    }
}
