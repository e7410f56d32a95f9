//! A PCI device of the host for a guest, as `--pci` and xl's `pci=[...]` name it.

use std::str::FromStr;

use crate::memory::Kind;
use crate::xen::PciAddress;

/// A PCI device with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it is on the host.
    pub address: PciAddress,
    /// The slot (0 to 31) that it has on the bus of an HVM guest; `None`: QEMU chooses.
    pub slot: Option<u8>,
    /// The guest may write every register of its configuration space.
    pub permissive: bool,
    /// libxl's msitranslate, which is recorded and has no effect in any QEMU that is younger than Xen's own.
    pub msitranslate: bool,
    /// libxl's power_mgmt, which is recorded and has no effect in the same way.
    pub power_mgmt: bool,
    /// It is taken from its driver in dom0 if that still has it.
    pub seize: bool,
    /// Memory that the host reserves for it may be RAM of the guest.
    pub relaxed: bool,
}

impl PciDevice {
    /// The device at this address with libxl's defaults.
    #[must_use]
    pub const fn new(address: PciAddress) -> Self {
        Self {
            address,
            slot: None,
            permissive: false,
            msitranslate: false,
            power_mgmt: false,
            seize: false,
            relaxed: false,
        }
    }
}

/// A word between the commas of `--pci`: a device, or a setting of the device before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PciWord {
    /// The next device, with its slot.
    Device(PciAddress, Option<u8>),
    /// A setting of the last device.
    Setting(PciSetting, bool),
}

/// The settings of a PCI device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PciSetting {
    /// `permissive=`
    Permissive,
    /// `msitranslate=`
    MsiTranslate,
    /// `power_mgmt=`
    PowerMgmt,
    /// `seize=`
    Seize,
    /// `rdm_policy=relaxed` (true) or `strict`
    Relaxed,
}

impl FromStr for PciWord {
    type Err = String;

    /// Parses `[SSSS:]BB:DD.F[@SLOT]`, `bdf=` with the same, or a setting.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else { return device(text) };
        let setting = match key {
            "bdf" => return device(value),
            "permissive" => PciSetting::Permissive,
            "msitranslate" => PciSetting::MsiTranslate,
            "power_mgmt" => PciSetting::PowerMgmt,
            "seize" => PciSetting::Seize,
            "rdm_policy" => {
                return match value {
                    "strict" => Ok(Self::Setting(PciSetting::Relaxed, false)),
                    "relaxed" => Ok(Self::Setting(PciSetting::Relaxed, true)),
                    _ => Err(format!("rdm_policy is {value:?}; it takes strict or relaxed")),
                };
            }
            "name" => return Err("name= is not taken: give the device's address".to_owned()),
            _ => {
                let known = "permissive=, msitranslate=, power_mgmt=, seize= and rdm_policy=";
                return Err(format!("{key:?} is no setting of a PCI device; those are {known}"));
            }
        };
        match value {
            "0" => Ok(Self::Setting(setting, false)),
            "1" => Ok(Self::Setting(setting, true)),
            _ => Err(format!("{key} is {value:?}; it takes 0 or 1")),
        }
    }
}

fn device(text: &str) -> Result<PciWord, String> {
    let (address, slot) = text.split_once('@').map_or((text, None), |(address, slot)| (address, Some(slot)));
    if address.ends_with(".*") {
        return Err(format!("{text:?} names all functions of a device: give each of them"));
    }
    let wrong = |slot: &str| format!("{slot:?} in {text:?} is no slot: 0 to 1f, in hexadecimal");
    let number = |slot: &str| {
        let plain = slot.bytes().all(|byte| byte.is_ascii_hexdigit());
        u8::from_str_radix(slot, 16).ok().filter(|number| plain && *number < 32).ok_or_else(|| wrong(slot))
    };
    Ok(PciWord::Device(address.parse()?, slot.map(number).transpose()?))
}

/// Why words make no devices, or the guest cannot have them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PciSpecError {
    /// A setting stands in front of the first device.
    #[error("a setting of a PCI device comes after the device: 0000:03:00.0,permissive=1")]
    NoDevice,
    /// A guest of this kind has no PCI bus that Xen or a backend provides.
    #[error("a {0} guest gets no PCI device: Xen has no passthrough for x86 PVH guests, and libxl refuses it as well")]
    Kind(Kind),
    /// Only an emulated bus has slots.
    #[error("{0}: a slot (@) is for an HVM guest; pciback chooses it for a PV guest")]
    Slot(PciAddress),
}

/// The devices of these words, in order.
///
/// # Errors
/// [`PciSpecError::NoDevice`].
pub fn devices(words: &[PciWord]) -> Result<Vec<PciDevice>, PciSpecError> {
    let mut all: Vec<PciDevice> = Vec::new();
    for word in words.iter().copied() {
        match word {
            PciWord::Device(address, slot) => all.push(PciDevice { slot, ..PciDevice::new(address) }),
            PciWord::Setting(setting, on) => {
                let last = all.last_mut().ok_or(PciSpecError::NoDevice)?;
                match setting {
                    PciSetting::Permissive => last.permissive = on,
                    PciSetting::MsiTranslate => last.msitranslate = on,
                    PciSetting::PowerMgmt => last.power_mgmt = on,
                    PciSetting::Seize => last.seize = on,
                    PciSetting::Relaxed => last.relaxed = on,
                }
            }
        }
    }
    Ok(all)
}

/// Whether a guest of this kind can have them.
///
/// # Errors
/// [`PciSpecError::Kind`], [`PciSpecError::Slot`].
pub fn check(devices: &[PciDevice], kind: Kind) -> Result<(), PciSpecError> {
    match kind {
        Kind::Pvh if !devices.is_empty() => Err(PciSpecError::Kind(kind)),
        Kind::Pv => match devices.iter().find(|device| device.slot.is_some()) {
            Some(device) => Err(PciSpecError::Slot(device.address)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<PciDevice>, String> {
        let words: Result<Vec<PciWord>, _> = text.split(',').map(str::parse).collect();
        devices(&words?).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_belong_to_the_device_before_them() {
        let at = |text: &str| text.parse().expect("an address");
        let found = read("03:00.0,permissive=1,0001:04:1f.7@1f,seize=1,rdm_policy=relaxed,permissive=0").expect("two");
        let first = PciDevice { permissive: true, ..PciDevice::new(at("03:00.0")) };
        let second = PciDevice { slot: Some(31), seize: true, relaxed: true, ..PciDevice::new(at("0001:04:1f.7")) };
        assert_eq!(found, [first, second]);
        assert_eq!(read("bdf=03:00.0,msitranslate=1"), read("03:00.0,power_mgmt=0,msitranslate=1"));
    }

    #[test]
    fn what_is_no_device_says_why() {
        for (text, why) in [
            ("permissive=1", "comes after the device"),
            ("03:00.0,permissive=yes", "takes 0 or 1"),
            ("03:00.0,colour=1", "no setting"),
            ("03:00.*", "each of them"),
            ("03:00.0@20", "no slot"),
            ("03:00.0@+1", "no slot"),
            ("name=gpu", "address"),
            ("03:00.0,rdm_policy=", "strict or relaxed"),
            ("03:20.0", "more than 1f"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let device = PciDevice { slot: Some(5), ..PciDevice::new("03:00.0".parse().expect("an address")) };
        assert!(check(&[device], Kind::Hvm).is_ok() && check(&[], Kind::Pvh).is_ok());
        assert!(matches!(check(&[device], Kind::Pvh), Err(PciSpecError::Kind(_))));
        assert!(matches!(check(&[device], Kind::Pv), Err(PciSpecError::Slot(_))));
    }
}
