//! The PCI devices of this host in sysfs.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::error::pci::PciError;
use crate::os::Untrusted;
use crate::xen::PciAddress;

/// The driver of dom0's kernel that holds devices for guests.
pub const PCIBACK: &str = "pciback";

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
    /// Reads a device.
    ///
    /// # Errors
    /// [`PciError::NoDevice`]; as [`Self::find`].
    pub fn read(sysfs: &Path, address: PciAddress) -> Result<Self, Error> {
        let directory = directory_of(sysfs, address);
        Ok(Self::find(sysfs, address)?.ok_or(PciError::NoDevice { address, directory })?)
    }

    /// Reads a device, if the host has it. What it has no file of is empty.
    ///
    /// # Errors
    /// [`Error::Io`]: a file is there and cannot be read; [`Error::BadFile`]: a file is not in Linux's format.
    pub fn find(sysfs: &Path, address: PciAddress) -> Result<Option<Self>, Error> {
        let directory = directory_of(sysfs, address);
        if !directory.try_exists().map_err(Error::io(format!("look for {}", directory.display())))? {
            return Ok(None);
        }
        let text = |name: &str| text_of(&directory.join(name));
        let bad = |name: &str, found: &str, expected: &str| Error::BadFile {
            what: "PCI device",
            path: directory.join(name),
            reason: format!("is {found:?}; {expected} was expected"),
        };
        let number = |name: &str, radix: u32| match text(name)?.as_str() {
            "" => Ok(0),
            word => u32::from_str_radix(word.trim_start_matches("0x"), radix).map_err(|_| bad(name, word, "a number")),
        };
        let id = |name: &str| {
            let found = number(name, 16)?;
            u16::try_from(found).map_err(|_| bad(name, &format!("{found:#x}"), "a number of 16 bits"))
        };
        /// The offset of the type of the header; bit 7 says that the device has more functions.
        const HEADER_TYPE: usize = 0xe;
        let resource = text("resource")?;
        let line = |line| range(line).ok_or_else(|| bad("resource", line, "first, last and flags"));
        let ranges: Vec<_> = resource.lines().take(RANGES).map(line).collect::<Result<_, _>>()?;
        Ok(Some(Self {
            address,
            driver: driver_of(&directory)?,
            id: (id("vendor")?, id("device")?),
            class: number("class", 16)?,
            is_bridge: start_of(&directory.join("config"), HEADER_TYPE + 1)?
                .is_some_and(|config| config.last().is_some_and(|header| header & 0x7f != 0)),
            reset_methods: text("reset_method")?.split_whitespace().map(str::to_owned).collect(),
            ranges: ranges.into_iter().flatten().collect(),
            irq: number("irq", 10)?,
            directory,
        }))
    }

    /// Whether dom0's pciback has it.
    #[must_use]
    pub fn is_assignable(&self) -> bool {
        self.driver.as_deref() == Some(PCIBACK)
    }

    /// What dom0 does with it: an interface that is up, or a file system that is mounted. `None`: neither.
    ///
    /// # Errors
    /// [`Error::Io`]: it cannot be known.
    pub fn use_in_dom0(&self) -> Result<Option<Untrusted>, Error> {
        const IFF_UP: u32 = 1;
        for name in names_in(&self.directory.join("net"))? {
            let flags = text_of(&self.directory.join("net").join(&name).join("flags"))?;
            // An interface without flags has gone meanwhile.
            if u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & IFF_UP != 0) {
                return Ok(Some(Untrusted::from(format!("its network interface {name} is up"))));
            }
        }
        let resolved = Error::io(format!("resolve {}", self.directory.display()));
        let own = fs::canonicalize(&self.directory).map_err(resolved)?;
        let mounts = text_of(Path::new("/proc/self/mountinfo"))?;
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (Some(number), Some(place)) = (words.get(2), words.get(4)) else { continue };
            let node = Path::new("/sys/dev/block").join(number);
            let device = there(fs::canonicalize(&node)).map_err(Error::io(format!("resolve {}", node.display())))?;
            if device.is_some_and(|device| device.starts_with(&own)) {
                return Ok(Some(Untrusted::from(format!("dom0 has mounted a disk of it at {place}"))));
            }
        }
        Ok(None)
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

    /// Ends what a guest has begun with it: it may no longer read or write memory by itself (bus mastering), and is reset if
    /// dom0's kernel knows a way. In this order: a reset by the kernel restores the registers as they were before.
    ///
    /// # Errors
    /// [`Error::Io`]: it may still use memory. A reset that fails is logged.
    pub fn silence(&self) -> Result<(), Error> {
        self.stop_bus_mastering()?;
        if !self.reset_methods.is_empty()
            && let Err(error) = write(&self.directory.join("reset"), "1")
        {
            log::warn!("the reset of {} failed: {error}", self.address);
        }
        Ok(())
    }

    fn stop_bus_mastering(&self) -> Result<(), Error> {
        /// The command register, and its bits for bus mastering (`PCI_COMMAND_MASTER`) and for a device that does not answer.
        const COMMAND: u64 = 4;
        const MASTER: u16 = 4;
        const ABSENT: u16 = 0xffff;
        let path = self.directory.join("config");
        let change = || {
            let mut file = fs::File::options().read(true).write(true).open(&path)?;
            let mut bytes = [0; 2];
            file.seek(SeekFrom::Start(COMMAND))?;
            file.read_exact(&mut bytes)?;
            let command = u16::from_le_bytes(bytes);
            if command == ABSENT || command & MASTER == 0 {
                return Ok(());
            }
            file.seek(SeekFrom::Start(COMMAND))?;
            file.write_all(&(command & !MASTER).to_le_bytes())
        };
        change().map_err(Error::io(format!("end the DMA of {} by {}", self.address, path.display())))
    }
}

fn directory_of(sysfs: &Path, address: PciAddress) -> PathBuf {
    sysfs.join("bus/pci/devices").join(address.to_string())
}

/// What is not there is `None`, and no error.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file's text without the spaces around it; empty if there is no such file.
fn text_of(path: &Path) -> Result<String, Error> {
    let text = there(fs::read_to_string(path)).map_err(Error::io(format!("read {}", path.display())))?;
    Ok(text.unwrap_or_default().trim().to_owned())
}

/// The names in a folder; none if there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let names = || there(fs::read_dir(folder))?.into_iter().flatten().map(|entry| Ok(entry?.file_name())).collect();
    let names: io::Result<Vec<_>> = names();
    let names = names.map_err(Error::io(format!("list {}", folder.display())))?;
    Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

/// The first bytes of a file; `None` if there is no such file.
fn start_of(path: &Path, length: usize) -> Result<Option<Vec<u8>>, Error> {
    let read = || {
        let Some(mut file) = there(fs::File::open(path))? else { return Ok(None) };
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).map(|()| Some(bytes))
    };
    read().map_err(Error::io(format!("read {length} bytes of {}", path.display())))
}

/// Base address registers and the expansion ROM (`PCI_ROM_RESOURCE`, include/linux/pci.h, Linux 6.1).
const RANGES: usize = 7;

/// A line of sysfs' `resource`: first, last, flags. `Some(None)`: a first of 0 means that there is no range. `None`: it is no
/// such line.
fn range(line: &str) -> Option<Option<PciRange>> {
    /// `IORESOURCE_IO` (include/linux/ioport.h).
    const PORTS: u64 = 0x100;
    let words = line.split_whitespace().map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let numbers: Vec<u64> = words.collect::<Option<_>>()?;
    let [start, end, flags] = numbers[..] else { return None };
    if start == 0 {
        return Some(None);
    }
    let length = end.checked_sub(start)?.checked_add(1)?;
    Some(Some(PciRange { start, length, is_ports: flags & PORTS != 0 }))
}

fn driver_of(directory: &Path) -> Result<Option<String>, Error> {
    let link = directory.join("driver");
    let target = there(fs::read_link(&link)).map_err(Error::io(format!("read {}", link.display())))?;
    Ok(target.and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned())))
}

/// Writes a word into a file of sysfs.
///
/// # Errors
/// [`Error::Io`] with the file and the word.
pub fn write(path: &Path, word: &str) -> Result<(), Error> {
    fs::write(path, word).map_err(Error::io(format!("write {word:?} to {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_ports_or_memory() {
        let memory = PciRange { start: 0xfe00_0000, length: 0x2_0000, is_ports: false };
        assert_eq!(range("0x00000000fe000000 0x00000000fe01ffff 0x0000000000040200"), Some(Some(memory)));
        let ports = PciRange { start: 0xc000, length: 0x20, is_ports: true };
        assert_eq!(range("0x000000000000c000 0x000000000000c01f 0x0000000000040101"), Some(Some(ports)));
        assert_eq!(range("0x0 0x0 0x0"), Some(None));
        for wrong in ["0x2 0x1 0x200", "", "0x1 0x2", "0x1 0x2 x", "1 2 3"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    /// A sysfs with one device, whose `config` begins with these bytes.
    fn sysfs(config: &[u8]) -> (tempfile::TempDir, PciAddress, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let address: PciAddress = "0000:03:00.0".parse().expect("an address");
        let directory = directory_of(folder.path(), address);
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join("config"), config).expect("written");
        (folder, address, directory)
    }

    #[test]
    fn a_file_that_is_not_there_is_empty_and_one_that_cannot_be_read_is_an_error() {
        let (folder, address, directory) = sysfs(&[0; 64]);
        let read = || HostDevice::read(folder.path(), address);
        let found = read().expect("no more than a config");
        assert_eq!((found.driver.as_deref(), found.id, found.irq, found.ranges.len()), (None, (0, 0), 0, 0));
        assert!(!found.is_bridge && found.reset_methods.is_empty());
        // A folder cannot be read as a file, not even by root.
        for name in ["vendor", "class", "reset_method", "resource", "irq", "driver"] {
            fs::create_dir(directory.join(name)).expect("made");
            let error = read().expect_err(name);
            assert!(matches!(&error, Error::Io { action, .. } if action.ends_with(name)), "{name}: {error}");
            fs::remove_dir(directory.join(name)).expect("removed");
        }
        for (name, content) in [("vendor", "0x12345"), ("irq", "ten"), ("resource", "0x1 0x2\n")] {
            fs::write(directory.join(name), content).expect("written");
            let error = read().expect_err(name);
            assert!(matches!(&error, Error::BadFile { path, .. } if path.ends_with(name)), "{name}: {error}");
            fs::remove_file(directory.join(name)).expect("removed");
        }
        fs::write(directory.join("config"), [0; 3]).expect("written");
        assert!(matches!(read(), Err(Error::Io { .. })));
        let other: PciAddress = "0000:04:00.0".parse().expect("an address");
        assert!(HostDevice::find(folder.path(), other).expect("asked").is_none());
        assert!(HostDevice::read(folder.path(), other).is_err());
    }

    #[test]
    fn bus_mastering_ends_and_nothing_else_changes() {
        let mut config = [0; 64];
        config[4..6].copy_from_slice(&[0x07, 0x04]);
        let (folder, address, directory) = sysfs(&config);
        HostDevice::read(folder.path(), address).expect("read").silence().expect("silent");
        config[4] = 0x03;
        assert_eq!(fs::read(directory.join("config")).expect("read"), config);
    }
}
