//! PCI devices of the host: their addresses, and the memory regions that are reserved for them.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;
use xen_sys as sys;

use super::Interface;
use super::error::{self, XenError};
use dombuild_memory::{Bytes, Gfn, Pages, Reserved};

/// The attempts to read Xen's list while its length changes.
const MAX_ATTEMPTS: u32 = 4;

/// The address of a PCI device: segment, bus, device (0 to 31) and function (0 to 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    segment: u16,
    bus: u8,
    /// Device (5 bits) and function (3 bits), as Xen takes them.
    devfn: u8,
}

impl PciAddress {
    /// The address of these parts; device and function in one byte, as Xen takes them.
    pub(super) const fn new(segment: u16, bus: u8, devfn: u8) -> Self {
        Self { segment, bus, devfn }
    }

    /// The segment (formerly: domain); 0 on most machines.
    #[must_use]
    pub fn segment(self) -> u16 {
        self.segment
    }

    /// The bus.
    #[must_use]
    pub fn bus(self) -> u8 {
        self.bus
    }

    /// The device on its bus, 0 to 31.
    #[must_use]
    pub fn device(self) -> u8 {
        self.devfn >> 3
    }

    /// The function of the device, 0 to 7.
    #[must_use]
    pub fn function(self) -> u8 {
        self.devfn & 7
    }
}

impl fmt::Display for PciAddress {
    /// Shown as in sysfs: `0000:03:00.0`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, bus, .. } = self;
        write!(formatter, "{segment:04x}:{bus:02x}:{:02x}.{:x}", self.device(), self.function())
    }
}

impl FromStr for PciAddress {
    type Err = String;

    /// Parses `SSSS:BB:DD.F` or `BB:DD.F`, in hexadecimal digits; fewer digits are valid.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not the address of a PCI device, which is like 0000:03:00.0 or 03:00.0");
        let (rest, function) = text.split_once('.').ok_or_else(wrong)?;
        let parts: Vec<&str> = rest.split(':').collect();
        let (segment, bus, device) = match parts[..] {
            [segment, bus, device] => (segment, bus, device),
            [bus, device] => ("0", bus, device),
            _ => return Err(wrong()),
        };
        let hex = |part: &str, digits: usize, most: u16| {
            let plain = part.bytes().all(|byte| byte.is_ascii_hexdigit()) && part.len() <= digits;
            let number = u16::from_str_radix(part, 16).ok().filter(|_| plain).ok_or_else(wrong)?;
            if number > most { Err(format!("{part:?} in {text:?} is more than {most:x}")) } else { Ok(number) }
        };
        let byte = |part: &str, digits: usize, most: u8| {
            hex(part, digits, u16::from(most)).and_then(|number| u8::try_from(number).map_err(|_| wrong()))
        };
        Ok(Self {
            segment: hex(segment, 4, u16::MAX)?,
            bus: byte(bus, 2, u8::MAX)?,
            devfn: byte(device, 2, 31)? << 3 | byte(function, 1, 7)?,
        })
    }
}

impl Interface {
    /// The regions of guest-physical addresses that must not be RAM in a guest with this device
    /// (`XENMEM_reserved_device_memory_map`). Empty if the firmware has reserved none for it, or Xen runs without an
    /// IOMMU (`iommu_get_reserved_device_memory`, xen/drivers/passthrough/iommu.c, Xen 4.17).
    ///
    /// # Errors
    /// If the hypercall fails.
    pub fn reserved_regions(&self, address: PciAddress) -> Result<Vec<Reserved>, XenError> {
        let mut entries: Vec<sys::xen_reserved_device_memory> = Vec::new();
        for _ in 0..MAX_ATTEMPTS {
            let mut count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let buffer = if entries.is_empty() { std::ptr::null_mut() } else { entries.as_mut_ptr() };
            // SAFETY: `buffer` has room for `count` entries, or is null with a count of 0, which returns the number of
            // entries; `count` is a live u32.
            let returned = unsafe {
                let PciAddress { segment, bus, devfn } = address;
                sys::xc_reserved_device_memory_map(self.as_raw(), 0, segment, bus, devfn, buffer, &raw mut count)
            };
            let asked = format_args!("{address}, {} entries", entries.len());
            let answer = error::minus_one("xc_reserved_device_memory_map", asked, returned);
            let found = usize::try_from(count).unwrap_or(0);
            match answer {
                Ok(_) => {
                    entries.truncate(found);
                    return entries.iter().map(|entry| region(address, entry)).collect();
                }
                Err(error) if error.errno == Some(Errno::ENOBUFS) => entries = vec![Default::default(); found],
                // Xen was built without passthrough, so no device can be assigned either.
                Err(error) if matches!(error.errno, Some(Errno::ENOSYS | Errno::EOPNOTSUPP)) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        let detail = format!("changed its answer {MAX_ATTEMPTS} times");
        Err(XenError::unexpected("xc_reserved_device_memory_map", address.to_string(), detail))
    }
}

fn region(address: PciAddress, raw: &sys::xen_reserved_device_memory) -> Result<Reserved, XenError> {
    let sizes = Gfn(raw.start_pfn).to_bytes().zip(Pages(raw.nr_pages).to_bytes());
    sizes.map(|(start, size): (Bytes, Bytes)| Reserved { start, size }).ok_or_else(|| {
        let detail = format!("returned {:#x} pages from frame {:#x}", raw.nr_pages, raw.start_pfn);
        XenError::unexpected("xc_reserved_device_memory_map", address.to_string(), detail)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        let address: PciAddress = "0001:af:1d.7".parse().expect("an address");
        let parts = (address.segment(), address.bus(), address.device(), address.function());
        assert_eq!((parts, address.to_string().as_str()), ((1, 0xaf, 0x1d, 7), "0001:af:1d.7"));
        assert_eq!("3:0.0".parse::<PciAddress>().expect("short").to_string(), "0000:03:00.0");
        assert_eq!("FFFF:FF:1F.7".parse::<PciAddress>().expect("the last").to_string(), "ffff:ff:1f.7");
        for bad in [
            "",
            ".",
            "03:00",
            "03.0",
            "03:00.",
            ":00.0",
            "0:0:0:0.0",
            "10000:03:00.0",
            "003:00.0",
            "03:000.0",
            "03:20.0",
            "03:00.8",
            "03:00.00",
            "03:0g.0",
            "+3:00.0",
            "03:00.0 ",
            " 03:00.0",
            "0x3:00.0",
            "03:-0.0",
            "03:00.*",
        ] {
            let error = bad.parse::<PciAddress>().expect_err(bad);
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn a_region_in_bytes() {
        let address = "03:00.0".parse().expect("an address");
        let raw = |start_pfn, nr_pages| sys::xen_reserved_device_memory { start_pfn, nr_pages };
        let expected = Reserved { start: Bytes(0x7b80_0000), size: Bytes(0x2000) };
        assert_eq!(region(address, &raw(0x7b800, 2)).expect("a region"), expected);
        assert!(region(address, &raw(u64::MAX, 1)).expect_err("too high").to_string().contains("0000:03:00.0"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(segment: u16, bus: u8, devfn: u8) {
            let address = PciAddress { segment, bus, devfn };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_panics(text in ".{0,16}") {
            let _ = text.parse::<PciAddress>();
        }
    }
}
