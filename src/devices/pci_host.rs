//! The PCI devices of this host: what sysfs, xenstore and dom0's pciback know of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::Error;
use crate::error::pci::PciError;
use crate::os::Untrusted;
use crate::xen::{DomId, DomainRef, Interface, PciAddress, Transaction, XenError};

/// The driver of dom0's kernel that holds devices for guests.
pub const PCIBACK: &str = "pciback";

/// libxl's notes on devices, one directory for each.
const NOTES: &str = "/libxl/pci";

/// A range of I/O ports or of memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciRange {
    /// Its first port or address.
    pub start: u64,
    /// Its length.
    pub length: u64,
    /// It has I/O ports.
    pub is_ports: bool,
}

/// A device in sysfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Its address.
    pub address: PciAddress,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Its class: base class, subclass and interface.
    pub class: u32,
    /// It is a bridge.
    pub is_bridge: bool,
    /// The ways in which dom0's kernel can reset it, in the kernel's words; empty: none.
    pub reset_methods: Vec<String>,
    /// Its ranges.
    pub ranges: Vec<PciRange>,
    /// Its interrupt; 0: none.
    pub irq: u32,
    directory: PathBuf,
}

/// The addresses of all devices.
///
/// # Errors
/// [`Error::Io`].
pub fn addresses(sysfs: &Path) -> Result<Vec<PciAddress>, Error> {
    let folder = sysfs.join("bus/pci/devices");
    let failed = || Error::io(format!("list {}", folder.display()));
    let mut found: Vec<PciAddress> = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<PciAddress>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

impl HostDevice {
    /// Reads a device. What sysfs does not say is empty.
    ///
    /// # Errors
    /// [`PciError::NoDevice`].
    pub fn read(sysfs: &Path, address: PciAddress) -> Result<Self, PciError> {
        let directory = sysfs.join("bus/pci/devices").join(address.to_string());
        if !directory.is_dir() {
            return Err(PciError::NoDevice { address, directory });
        }
        let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default().trim().to_owned();
        let number = |name: &str| u32::from_str_radix(text(name).trim_start_matches("0x"), 16).unwrap_or_default();
        let id = |name: &str| u16::try_from(number(name)).unwrap_or_default();
        /// The offset of the type of the header; bit 7 says that the device has more functions.
        const HEADER_TYPE: usize = 0xe;
        let config = read_start(&directory.join("config"), HEADER_TYPE + 1).unwrap_or_default();
        Ok(Self {
            address,
            driver: driver_of(&directory),
            id: (id("vendor"), id("device")),
            class: number("class"),
            is_bridge: config.get(HEADER_TYPE).is_some_and(|header| header & 0x7f != 0),
            reset_methods: text("reset_method").split_whitespace().map(str::to_owned).collect(),
            ranges: text("resource").lines().take(RANGES).filter_map(range).collect(),
            irq: text("irq").parse().unwrap_or_default(),
            directory,
        })
    }

    /// Whether dom0's pciback has it.
    #[must_use]
    pub fn is_assignable(&self) -> bool {
        self.driver.as_deref() == Some(PCIBACK)
    }

    /// The other functions of the same device, those that exist.
    ///
    /// # Errors
    /// As [`addresses`].
    pub fn siblings(&self, sysfs: &Path) -> Result<Vec<Self>, Error> {
        let slot = |address: PciAddress| (address.segment(), address.bus(), address.device());
        let others = addresses(sysfs)?.into_iter();
        let others = others.filter(|other| *other != self.address && slot(*other) == slot(self.address));
        others.map(|other| Ok(Self::read(sysfs, other)?)).collect()
    }

    /// What dom0 does with it: an interface that is up, or a file system that is mounted. `None`: neither.
    ///
    /// # Errors
    /// [`Error::Io`]: it cannot be known.
    pub fn use_in_dom0(&self) -> Result<Option<Untrusted>, Error> {
        let read = |path: &Path| fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())));
        const IFF_UP: u32 = 1;
        for interface in fs::read_dir(self.directory.join("net")).into_iter().flatten().flatten() {
            let flags = read(&interface.path().join("flags"))?;
            let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or_default();
            if flags & IFF_UP != 0 {
                let name = interface.file_name().to_string_lossy().into_owned();
                return Ok(Some(Untrusted::from(format!("its network interface {name} is up"))));
            }
        }
        let resolved = Error::io(format!("resolve {}", self.directory.display()));
        let own = fs::canonicalize(&self.directory).map_err(resolved)?;
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        Ok(mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let (number, place) = (words.get(2)?, words.get(4)?);
            let device = fs::canonicalize(Path::new("/sys/dev/block").join(number)).ok()?;
            device.starts_with(&own).then(|| Untrusted::from(format!("dom0 has mounted a disk of it at {place}")))
        }))
    }

    /// Takes it from its driver, if it has one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn unbind(&self) -> Result<(), Error> {
        if self.driver.is_none() {
            return Ok(());
        }
        write(&self.directory.join("driver/unbind"), &self.address.to_string())
    }

    /// Resets it, if dom0's kernel knows a way. `false`: it knows none.
    ///
    /// # Errors
    /// [`Error::Io`]: the reset failed.
    pub fn reset(&self) -> Result<bool, Error> {
        let file = self.directory.join("reset");
        if !file.exists() {
            return Ok(false);
        }
        write(&file, "1").map(|()| true)
    }
}

/// Base address registers and the expansion ROM (`PCI_ROM_RESOURCE`, include/linux/pci.h, Linux 6.1).
const RANGES: usize = 7;

/// A line of sysfs' `resource`: first, last, flags. A first of 0 means that there is no range.
fn range(line: &str) -> Option<PciRange> {
    /// `IORESOURCE_IO` (include/linux/ioport.h).
    const PORTS: u64 = 0x100;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
        .collect();
    let [start, end, flags] = numbers[..] else { return None };
    let length = end.checked_sub(start)?.checked_add(1)?;
    (start != 0).then_some(PciRange { start, length, is_ports: flags & PORTS != 0 })
}

fn read_start(path: &Path, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    io::Read::read_exact(&mut fs::File::open(path)?, &mut bytes).map(|()| bytes)
}

fn driver_of(directory: &Path) -> Option<String> {
    let target = fs::read_link(directory.join("driver")).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// Writes a word into a file of sysfs.
///
/// # Errors
/// [`Error::Io`] with the file and the word.
pub fn write(path: &Path, word: &str) -> Result<(), Error> {
    fs::write(path, word).map_err(Error::io(format!("write {word:?} to {}", path.display())))
}

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

    #[test]
    fn a_range_has_ports_or_memory() {
        let memory = PciRange { start: 0xfe00_0000, length: 0x2_0000, is_ports: false };
        assert_eq!(range("0x00000000fe000000 0x00000000fe01ffff 0x0000000000040200"), Some(memory));
        let ports = PciRange { start: 0xc000, length: 0x20, is_ports: true };
        assert_eq!(range("0x000000000000c000 0x000000000000c01f 0x0000000000040101"), Some(ports));
        for none in ["0x0 0x0 0x0", "0x2 0x1 0x200", "", "0x1 0x2"] {
            assert_eq!(range(none), None);
        }
    }
}
