//! PCI devices for a guest: what sysfs reports about them, and the size of the hole below 4 GiB that they need.
//!
//! This module assigns no device. It lays out the guest's memory so that another tool can assign the devices.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::guest::Guest;
use crate::error::Error;
use crate::error::host::HostError;
use crate::memory::limits::{DEFAULT_MMIO_HOLE, MAX_MMIO_HOLE};
use crate::memory::{Bytes, Plan, Request, Reserved};
use crate::payload::boot_files::BootFiles;
use crate::payload::search::firmware_needs;
use crate::xen::Interface;
pub use crate::xen::PciAddress;

/// The mount point of sysfs.
pub const SYSFS: &str = "/sys";
/// Base address registers and the expansion ROM: the first lines of a device's `resource`
/// (`PCI_ROM_RESOURCE`, include/linux/pci.h, Linux 6.1); bridge windows and SR-IOV registers follow.
const RESOURCES: usize = 7;
/// AMD's MxGPU S7150x2. Its bridges respond to addresses outside their windows, so the upper half of the space below 4 GiB must
/// hold no RAM (XenServer has the same rule).
const MXGPU: (u16, u16) = (0x1002, 0x692f);

/// A PCI device, as sysfs reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciDevice {
    /// The address of the device.
    pub address: PciAddress,
    /// The PCI vendor id.
    pub vendor: u16,
    /// The PCI device id.
    pub device: u16,
    /// The sum of its memory and I/O port ranges and its ROM.
    pub resources: Bytes,
}

/// The requirements of devices on a guest's layout, for [`Request`](crate::memory::Request).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sizing {
    /// The MMIO hole that they need. `None` without a device or a vGPU.
    pub mmio_hole: Option<Bytes>,
    /// The regions that the host reserves for them.
    pub reserved: Vec<Reserved>,
}

/// Reads a device from the sysfs at `sysfs`.
///
/// # Errors
/// [`Error::BadConfig`] if there is no such device; [`Error::BadFile`] if a file of it is not in Linux's format.
pub fn read_device(sysfs: &Path, address: PciAddress) -> Result<PciDevice, Error> {
    let directory = sysfs.join("bus/pci/devices").join(address.to_string());
    if !directory.is_dir() {
        return Err(HostError::NoPciDevice { address, directory }.into());
    }
    let id = |name: &str| {
        let path = directory.join(name);
        let text = read(&path)?;
        let number = hexadecimal(text.trim()).and_then(|number| u16::try_from(number).ok());
        number.ok_or_else(|| bad(path, format!("is {:?}; a number like 0x8086 was expected", text.trim())))
    };
    let path = directory.join("resource");
    let resources = sum_of_resources(&read(&path)?).map_err(|reason| bad(path, reason))?;
    Ok(PciDevice { address, vendor: id("vendor")?, device: id("device")?, resources })
}

fn bad(path: PathBuf, reason: String) -> Error {
    Error::BadFile { what: "PCI device", path, reason }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| bad(path.to_owned(), error.to_string()))
}

/// Parses a number in the format of sysfs: hexadecimal with 0x.
fn hexadecimal(word: &str) -> Option<u64> {
    let digits = word.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok()
}

/// The sum of a device's ranges. Each line has the first address, the last address and flags. A first address of 0 means no
/// range.
fn sum_of_resources(text: &str) -> Result<Bytes, String> {
    let lines = text.lines().count();
    if lines < RESOURCES {
        return Err(format!("has {lines} lines; at least {RESOURCES} were expected"));
    }
    let mut sum = 0_u64;
    for (index, line) in text.lines().take(RESOURCES).enumerate() {
        let wrong = |what: &str| format!("line {} is {line:?}: {what}", index + 1);
        let numbers: Option<Vec<u64>> = line.split_whitespace().map(hexadecimal).collect();
        let Some([start, end, _flags]) = numbers.as_deref() else {
            return Err(wrong("start, end and flags were expected, like 0xfe000000"));
        };
        if *start == 0 {
            continue;
        }
        let length = end.checked_sub(*start).and_then(|length| length.checked_add(1));
        let length = length.ok_or_else(|| wrong("it ends before it begins"))?;
        sum = sum.checked_add(length).ok_or_else(|| wrong("the device takes more than there are addresses"))?;
    }
    Ok(Bytes(sum))
}

/// The size of the hole below 4 GiB for these devices: the smallest of 256 MiB, 512 MiB, 1 GiB and 2 GiB that holds the devices
/// and 256 MiB for what QEMU emulates. XenServer uses the same rule. A vGPU adds 256 MiB, because its drivers cannot use
/// 64-bit addresses, so its hole has at least 512 MiB.
///
/// A hole is a power of two, because hvmloader relies on that when it aligns devices (`pci_setup`,
/// tools/firmware/hvmloader/pci.c, Xen 4.17). The largest is 2 GiB: hvmloader places devices that do not fit above 4 GiB, if
/// they allow that.
#[must_use]
pub fn hole_for(devices: &[PciDevice], vgpu: bool) -> Bytes {
    let emulated = DEFAULT_MMIO_HOLE.get() * if vgpu { 2 } else { 1 };
    let total = devices.iter().fold(emulated, |sum, device| sum.saturating_add(device.resources.get()));
    let least = if devices.iter().any(|device| (device.vendor, device.device) == MXGPU) {
        MAX_MMIO_HOLE.get()
    } else {
        emulated
    };
    let mut size = least;
    while size < total && size < MAX_MMIO_HOLE.get() {
        size *= 2;
    }
    Bytes(size)
}

/// The hole that these devices need, by the sysfs at `sysfs`. `None` without a device or a vGPU.
///
/// # Errors
/// Those of [`read_device`]; [`Error::BadConfig`] for a device that is named twice.
pub fn needed_hole(addresses: &[PciAddress], vgpu: bool, sysfs: &Path) -> Result<Option<Bytes>, Error> {
    if addresses.is_empty() && !vgpu {
        return Ok(None);
    }
    let mut devices: Vec<PciDevice> = Vec::new();
    for address in addresses.iter().copied() {
        if devices.iter().any(|device| device.address == address) {
            return Err(HostError::PciDeviceTwice(address).into());
        }
        devices.push(read_device(sysfs, address)?);
    }
    let hole = hole_for(&devices, vgpu);
    log::info!("{} PCI devices need an MMIO hole of {}", devices.len(), hole);
    Ok(Some(hole))
}

/// The regions that the host reserves for these devices, as Xen reports them.
///
/// # Errors
/// An error of Xen.
pub fn reserved_for(xen: &Interface, addresses: &[PciAddress]) -> Result<Vec<Reserved>, Error> {
    let mut reserved = Vec::new();
    for address in addresses.iter().copied() {
        for region in xen.reserved_regions(address)? {
            log::info!("the host reserves {region} for the PCI device {address}");
            reserved.push(region);
        }
    }
    Ok(reserved)
}

/// All requirements of these devices on a guest's layout.
///
/// # Errors
/// Those of [`needed_hole`]; an error of Xen.
pub fn sizing(xen: &Interface, addresses: &[PciAddress], vgpu: bool, sysfs: &Path) -> Result<Sizing, Error> {
    Ok(Sizing { mmio_hole: needed_hole(addresses, vgpu, sysfs)?, reserved: reserved_for(xen, addresses)? })
}

/// Asks Xen which regions the host reserves for the guest's devices, and plans the memory again around them.
///
/// # Errors
/// An error of Xen; [`Error::Plan`] or [`Error::BadConfig`] if the guest does not fit around the regions.
pub fn plan_around_reserved(guest: &mut Guest, xen: &Interface) -> Result<(), Error> {
    let reserved = reserved_for(xen, &guest.devices)?;
    if reserved.is_empty() {
        return Ok(());
    }
    guest.plan = Plan::new(&Request { reserved, ..guest.plan.request.clone() })?;
    if let BootFiles::Firmware { firmware, .. } = &guest.boot_files {
        let (needed, lowmem_end) = (firmware_needs(firmware.len()), guest.plan.layout.lowmem_end);
        if lowmem_end < needed {
            return Err(HostError::ReservedTooMuch { lowmem_end, needed }.into());
        }
    }
    Ok(())
}

/// The hole of the guest, if `chosen` was requested and devices need `needed`: the larger of the two.
///
/// # Errors
/// [`Error::BadConfig`] if `chosen` is too small.
pub fn agree(chosen: Option<Bytes>, needed: Option<Bytes>) -> Result<Option<Bytes>, Error> {
    match (chosen, needed) {
        (Some(chosen), Some(needed)) if chosen < needed => Err(HostError::HoleTooSmall { chosen, needed }.into()),
        (Some(chosen), _) => Ok(Some(chosen)),
        (None, needed) => Ok(needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(resources: u64) -> PciDevice {
        let address = "03:00.0".parse().expect("an address");
        PciDevice { address, vendor: 0x8086, device: 0x10fb, resources: Bytes(resources) }
    }

    #[test]
    fn holes_are_doubled_until_the_devices_fit() {
        const MIB: u64 = 1 << 20;
        for (devices, vgpu, hole) in [
            (&[][..], false, 256),
            (&[0], false, 256),
            (&[1], false, 512),
            (&[256 * MIB], false, 512),
            (&[256 * MIB, 1], false, 1024),
            (&[1792 * MIB], false, 2048),
            (&[1792 * MIB + 1], false, 2048),
            (&[u64::MAX, u64::MAX], false, 2048),
            (&[], true, 512),
            (&[1], true, 1024),
            (&[512 * MIB, 1], true, 2048),
        ] {
            let devices: Vec<PciDevice> = devices.iter().copied().map(device).collect();
            assert_eq!(hole_for(&devices, vgpu), Bytes(hole * MIB), "{devices:?} {vgpu}");
        }
        let mxgpu = PciDevice { vendor: 0x1002, device: 0x692f, ..device(0) };
        assert_eq!(hole_for(&[device(0), mxgpu], false), MAX_MMIO_HOLE);
        assert_eq!(hole_for(&[PciDevice { vendor: 0x1022, ..mxgpu }], false), DEFAULT_MMIO_HOLE);
    }

    #[test]
    fn the_larger_hole_is_made() {
        let (small, large) = (Bytes(256 << 20), Bytes(512 << 20));
        assert_eq!(agree(None, None).expect("neither"), None);
        for (chosen, needed) in
            [(Some(large), None), (None, Some(large)), (Some(large), Some(small)), (Some(large), Some(large))]
        {
            assert_eq!(agree(chosen, needed).expect("fits"), Some(large));
        }
        let error = agree(Some(small), Some(large)).expect_err("too small").to_string();
        assert!(error.contains("256 MiB") && error.contains("512 MiB"), "{error}");
    }
}
