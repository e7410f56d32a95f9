//! The place of a disk in a guest, by its name there and by its number in xenstore.

use std::fmt;
use std::str::FromStr;

use super::error::DeviceSpecError;
use super::text::decimal;

/// The place of a disk: `xvda`, `hdc`, `sda1`, `d2p3` or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualDevice {
    /// The name, as it was given.
    pub name: String,
    /// The number of the device in xenstore (docs/man/xen-vbd-interface.7, Xen 4.17).
    pub number: u32,
    /// The disk, counted from 0 in its class.
    pub disk: u32,
    /// The partition; 0: the whole disk.
    pub partition: u32,
    /// The class of the name.
    pub class: DiskClass,
}

/// The class of a disk's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskClass {
    /// `xvdX`, `dNpM`, or a plain number that is none of the others.
    Xen,
    /// `hdX`.
    Ide,
    /// `sdX`.
    Scsi,
}

/// The forms of a disk's place.
const TAKES: &str = "xvda to xvdzz and beyond, hda to hdd or sda to sdp, with a partition behind it if wanted, dNpM, or the number of the device";

/// Marks a number that has its disk in 20 bits and its partition in 8 (xen-vbd-interface.7).
const EXTENDED: u32 = 1 << 28;

impl VirtualDevice {
    /// The place of an emulated IDE disk of an HVM guest that this is, too, from 0 (hda) to 3 (hdd): `xvda` to `xvdd` share
    /// the IDE places with `hda` to `hdd` (`libxl__build_device_model_args_new`, libxl_dm.c, Xen 4.17).
    #[must_use]
    pub const fn ide_place(&self) -> Option<u32> {
        match self.class {
            DiskClass::Xen | DiskClass::Ide if self.disk < 4 => Some(self.disk),
            _ => None,
        }
    }

    /// The port of the AHCI controller, from 0 to 5, of an HVM guest that has its disks there.
    #[must_use]
    pub const fn ahci_port(&self) -> Option<u32> {
        match self.class {
            DiskClass::Xen | DiskClass::Ide if self.disk < 6 => Some(self.disk),
            _ => None,
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        let (class, disk, partition) = if let Some(place) = name.strip_prefix("xvd") {
            let (disk, partition) = letters(place, (1 << 20) - 1, 255)?;
            (DiskClass::Xen, disk, partition)
        } else if let Some(place) = name.strip_prefix("hd") {
            let (disk, partition) = letters(place, 3, 63)?;
            (DiskClass::Ide, disk, partition)
        } else if let Some(place) = name.strip_prefix("sd") {
            let (disk, partition) = letters(place, 15, 15)?;
            (DiskClass::Scsi, disk, partition)
        } else if let Some((disk, partition)) = name.strip_prefix('d').and_then(|place| place.split_once('p')) {
            (DiskClass::Xen, number(disk, (1 << 20) - 1)?, number(partition, 255)?)
        } else {
            return Self::of_number(name, number(name, i32::MAX.unsigned_abs())?);
        };
        let number = match class {
            DiskClass::Xen if disk <= 15 && partition <= 15 => (202 << 8) | (disk << 4) | partition,
            DiskClass::Xen => EXTENDED | (disk << 8) | partition,
            DiskClass::Ide => (if disk < 2 { 3 } else { 22 } << 8) | ((disk & 1) << 6) | partition,
            DiskClass::Scsi => (8 << 8) | (disk << 4) | partition,
        };
        Some(Self { name: name.to_owned(), number, disk, partition, class })
    }

    /// The place that a number stands for. Major 0 has no disks.
    fn of_number(name: &str, number: u32) -> Option<Self> {
        let minor = number & 0xff;
        let (class, disk, partition) = match number >> 8 {
            0 => return None,
            3 if minor < 128 => (DiskClass::Ide, minor >> 6, minor & 63),
            22 if minor < 128 => (DiskClass::Ide, 2 + (minor >> 6), minor & 63),
            8 => (DiskClass::Scsi, minor >> 4, minor & 15),
            202 => (DiskClass::Xen, minor >> 4, minor & 15),
            _ if number & EXTENDED != 0 => (DiskClass::Xen, (number & (EXTENDED - 1)) >> 8, minor),
            // A major of another driver: its disk is beyond those with a name.
            _ => (DiskClass::Xen, number >> 4, number & 15),
        };
        Some(Self { name: name.to_owned(), number, disk, partition, class })
    }
}

impl FromStr for VirtualDevice {
    type Err = DeviceSpecError;

    /// Reads a name or a number as `libxl__device_disk_dev_number` does (libxl_device.c, Xen 4.17), which also takes octal
    /// numbers, signs and an empty text.
    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        Self::of_name(text).ok_or_else(|| DeviceSpecError::bad_value("vdev", text, TAKES))
    }
}

impl fmt::Display for VirtualDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// The disk of letters (a is 0, z is 25, aa is 26) and the partition behind them; 0: none.
fn letters(place: &str, last: u32, last_partition: u32) -> Option<(u32, u32)> {
    let end = place.find(|character: char| !character.is_ascii_lowercase()).unwrap_or(place.len());
    let (letters, partition) = place.split_at_checked(end)?;
    let mut disks = 0_u32;
    for letter in letters.bytes() {
        disks = disks.checked_mul(26)?.checked_add(u32::from(letter - b'a') + 1)?;
    }
    let disk = disks.checked_sub(1).filter(|disk| *disk <= last)?;
    let partition = match partition {
        "" => 0,
        digits => number(digits, last_partition).filter(|partition| *partition > 0 && !digits.starts_with("0x"))?,
    };
    Some((disk, partition))
}

/// A decimal number without a leading zero, or a hexadecimal one behind `0x`.
fn number(text: &str, last: u32) -> Option<u32> {
    let number = match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok()?,
        Some(_) => return None,
        None => decimal(text, 0, last.into())?.try_into().ok()?,
    };
    (number <= last).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(name: &str) -> VirtualDevice {
        name.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    #[test]
    fn a_name_has_the_number_that_libxl_gives_it() {
        use DiskClass::{Ide, Scsi, Xen};
        for (name, number, class, disk, partition) in [
            ("xvda", 51712, Xen, 0, 0),
            ("xvdb", 51728, Xen, 1, 0),
            ("xvdp15", 51967, Xen, 15, 15),
            ("xvda16", 0x1000_0010, Xen, 0, 16),
            ("xvdq", 0x1000_1000, Xen, 16, 0),
            ("xvdz255", 0x1000_19ff, Xen, 25, 255),
            ("xvdaa", 0x1000_1a00, Xen, 26, 0),
            ("xvdzz", 0x1002_bd00, Xen, 701, 0),
            ("xvdbgqcv255", 0x1fff_ffff, Xen, 1_048_575, 255),
            ("d0p0", 51712, Xen, 0, 0),
            ("d2p3", 51747, Xen, 2, 3),
            ("d0x10p0", 0x1000_1000, Xen, 16, 0),
            ("d1048575p255", 0x1fff_ffff, Xen, 1_048_575, 255),
            ("hda", 768, Ide, 0, 0),
            ("hda63", 831, Ide, 0, 63),
            ("hdb", 832, Ide, 1, 0),
            ("hdc", 5632, Ide, 2, 0),
            ("hdd", 5696, Ide, 3, 0),
            ("sda1", 2049, Scsi, 0, 1),
            ("sdp15", 2303, Scsi, 15, 15),
            ("51712", 51712, Xen, 0, 0),
            ("0x1601", 5633, Ide, 2, 1),
            ("768", 768, Ide, 0, 0),
            ("2065", 2065, Scsi, 1, 1),
            ("268439552", 0x1000_1000, Xen, 16, 0),
            ("0x2100", 0x2100, Xen, 0x210, 0),
        ] {
            let expected = VirtualDevice { name: name.to_owned(), number, disk, partition, class };
            assert_eq!(place(name), expected);
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "xvd",
            "xvd1",
            "xvdA",
            "xvda0",
            "xvda01",
            "xvda256",
            "xvda0x1",
            "xvdbgqcw",
            "xvdzzzzzzzzzz",
            "xvda 1",
            " xvda",
            "hde",
            "hda64",
            "hdaa",
            "sdq",
            "sda16",
            "d1048576p0",
            "d0p256",
            "d-1p0",
            "d0",
            "dp",
            "d010p1",
            "010",
            "0",
            "255",
            "-1",
            "+51712",
            "0x+1",
            "0x",
            "2147483648",
            "99999999999",
            "vda",
            "xvd\u{e4}",
            "xvda\u{e4}",
        ] {
            let error = text.parse::<VirtualDevice>().expect_err(text);
            assert_eq!(error.span, 0..text.len());
        }
    }

    #[test]
    fn the_first_four_disks_are_ide_disks_too() {
        for (name, ide) in [("xvda", Some(0)), ("hdc", Some(2)), ("xvdd1", Some(3)), ("xvde", None), ("sda", None)] {
            assert_eq!(place(name).ide_place(), ide, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_the_place_of_the_name_that_has_it(name in "(xvd[a-z]{1,4}|hd[a-d]|sd[a-p])([1-9][0-9]?)?") {
            if let Ok(place) = name.parse::<VirtualDevice>() {
                let same: VirtualDevice = place.number.to_string().parse().expect("a number");
                let parts = |place: &VirtualDevice| (place.number, place.class, place.disk, place.partition);
                prop_assert_eq!(parts(&same), parts(&place));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,12}|(x?v?h?s?d)?[a-z0-9]{0,9}") {
            let _ = text.parse::<VirtualDevice>();
        }
    }
}
