//! A guest's platform: what it is given besides memory and files. CPUs, clocks, CPUID, ACPI, the enlightenments of
//! Hyper-V.
//!
//! Toolstacks of the xenopsd family write these settings into `/local/domain/N/platform` and let the builder look for
//! them; `create` and `build` take the same ones with `--platform KEY=VALUE`. Every setting is one line of [`SETTINGS`],
//! which the parsers go by and docs/platform.md is made from.

pub mod cpu_list;
pub mod lookup;
pub mod setting;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod value;
pub mod viridian;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::config::bios_string::{self, BiosString};
use crate::config::error::ConfigError;
use crate::memory::Kind;

pub use lookup::describe;
pub use setting::Setting;
pub use settings::SETTINGS;
pub use value::{CpuMap, number};
pub use viridian::Viridian;

use crate::payload::firmware::FirmwareKind;
use crate::xen::{Altp2m, CpuidRules};

/// The settings of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Platform {
    /// Number of vCPUs, if it is set here.
    pub vcpus: Option<u32>,
    /// How many of them are online at the start; `None` means all.
    pub online_vcpus: Option<u32>,
    /// The CPUs that a vCPU may run on, by its number; one that is not here may run on all.
    pub affinity: BTreeMap<u32, CpuMap>,
    /// The CPUs that a vCPU runs on by preference, by its number.
    pub soft_affinity: BTreeMap<u32, CpuMap>,
    /// Its weight against other domains; `None` leaves the scheduler's.
    pub weight: Option<u16>,
    /// Its cap in percent of a CPU; `None` leaves the scheduler's.
    pub cap: Option<u16>,
    /// The no-execute bit is shown.
    pub nx: bool,
    /// Physical address extension is shown, and what depends on it, long mode among that.
    pub pae: bool,
    /// The features that it may have, word by word.
    pub featureset: Option<Vec<u32>>,
    /// What the caller changes in its CPUID policy. No setting: `--cpuid` has a language of its own.
    pub cpuid: CpuidRules,
    /// How many vCPUs a socket shows; `None` leaves the topology to Xen.
    pub cores_per_socket: Option<u32>,
    /// The guest sees hardware virtualisation.
    pub nested: bool,
    /// The guest never migrates: the TSC may then be reported as invariant.
    pub nomigrate: bool,
    /// The Hyper-V features that the guest sees.
    pub viridian: Viridian,
    /// An I/O APIC is announced to hvmloader.
    pub apic: bool,
    /// ACPI tables are made.
    pub acpi: bool,
    /// ACPI's sleep state S3 is offered.
    pub acpi_s3: bool,
    /// ACPI's sleep state S4 is offered.
    pub acpi_s4: bool,
    /// ACPI's switch of convertible laptops is offered.
    pub acpi_laptop_slate: bool,
    /// TSC: 0 default, 1 always emulated, 2 never.
    pub tsc_mode: u32,
    /// A HPET is emulated.
    pub hpet: bool,
    /// How missed timer ticks are delivered, 0 to 3; `None` leaves what is set.
    pub timer_mode: Option<u8>,
    /// Periodic timers are aligned; `None` leaves what is set.
    pub vpt_align: Option<bool>,
    /// Width of the x87's saved FIP: 4 or 8; `None` leaves it automatic.
    pub x87_fip_width: Option<u8>,
    /// Seconds by which its clock is ahead of the host's.
    pub time_offset: i32,
    /// The generation ID that Windows reads, as two decimal numbers with a colon.
    pub generation_id: Option<String>,
    /// Machine checks can reach one vCPU only.
    pub local_machine_checks: bool,
    /// The firmware that hvmloader starts, if it is set here.
    pub firmware: Option<FirmwareKind>,
    /// Another OVMF, a file in OVMF's own directory.
    pub ovmf_override: Option<String>,
    /// The guest gets the host's SMBIOS strings.
    pub smbios_passthrough: bool,
    /// The guest gets the host's SLIC table.
    pub acpi_passthrough: bool,
    /// Who may use its alternate memory maps. No setting: `--altp2m` is a flag of its own.
    pub altp2m: Option<Altp2m>,
    /// Strings of its SMBIOS tables. No setting: `--bios-string` is a flag of its own.
    pub bios_strings: Vec<BiosString>,
    /// A guest that meets a triple fault has crashed, where it would otherwise have asked for a reboot. No setting:
    /// XenServer's helper has always set it so.
    pub crash_on_triple_fault: bool,
}

impl Platform {
    /// The platform of a guest without other requests: libxl's defaults.
    #[must_use]
    pub fn usual() -> Self {
        // A unit test makes sure that the defaults are valid.
        Self::asked::<&str>(&[]).unwrap_or_default()
    }

    /// What `create` and `build` give a guest: libxl's defaults, and what was asked for, each as `KEY=VALUE`.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key or an invalid value; it names both.
    pub fn asked<T: AsRef<str>>(asked: &[T]) -> Result<Self, ConfigError> {
        let mut platform = Self::default();
        for setting in SETTINGS.iter().filter(|setting| !setting.usual.is_empty()) {
            platform.set(setting, None, setting.usual, setting.name)?;
        }
        for text in asked.iter().map(AsRef::as_ref) {
            let Some((key, value)) = text.split_once('=') else {
                return Err(ConfigError::NotKeyValue(text.to_owned()));
            };
            let Some((setting, vcpu)) = lookup::find(key) else {
                return Err(ConfigError::UnknownSetting(key.to_owned()));
            };
            if let Some(flag) = setting.flag {
                return Err(ConfigError::HasFlag { key: key.to_owned(), flag });
            }
            platform.set(setting, vcpu, value, key)?;
        }
        Ok(platform)
    }

    /// The directories below the domain's in which there are settings.
    #[must_use]
    pub fn directories() -> BTreeSet<&'static str> {
        let names = SETTINGS.iter().filter(|setting| !setting.is_of_vcpu()).flat_map(Setting::names);
        names.filter_map(|name| name.rsplit_once('/')).map(|(directory, _)| directory).collect()
    }

    /// The nodes that have settings, where these directories have `listed`; one of a vCPU's may be missing.
    #[must_use]
    pub fn nodes(listed: &BTreeSet<String>) -> Vec<String> {
        SETTINGS.iter().flat_map(|setting| setting.nodes(listed)).collect()
    }

    /// What stands in xenstore: the values of nodes below the domain's directory. What is missing or empty counts as
    /// XenServer's helper counts it.
    ///
    /// # Errors
    /// [`ConfigError`] for an invalid value; it names the node.
    pub fn of_keys(values: &HashMap<String, String>) -> Result<Self, ConfigError> {
        let read = |name: &str| values.get(name).filter(|value| !value.is_empty());
        let mut platform = Self { crash_on_triple_fault: true, ..Self::default() };
        for setting in SETTINGS {
            if setting.is_of_vcpu() {
                for vcpu in 0..platform.vcpus.unwrap_or(0) {
                    let name = setting.name.replace('N', &vcpu.to_string());
                    if let Some(value) = read(&name) {
                        platform.set(setting, Some(vcpu), value, &name)?;
                    }
                }
                continue;
            }
            match setting.names().find_map(|name| Some((name, read(name)?))) {
                Some((name, value)) => platform.set(setting, None, value, name)?,
                None if setting.absent.is_empty() => {}
                None => platform.set(setting, None, setting.absent, setting.name)?,
            }
        }
        Ok(platform)
    }

    fn set(&mut self, setting: &Setting, vcpu: Option<u32>, value: &str, name: &str) -> Result<(), ConfigError> {
        (setting.apply)(self, vcpu.unwrap_or(0), value).map_err(|reason| ConfigError::BadSetting {
            name: name.to_owned(),
            value: value.to_owned(),
            reason,
            takes: setting.values,
        })
    }

    /// Checks what depends on the number of vCPUs, and on what else the guest is.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self, kind: Kind, vcpus: u32, on_demand: bool) -> Result<(), ConfigError> {
        if let Some(online) = self.online_vcpus.filter(|online| !(1..=vcpus).contains(online)) {
            return Err(ConfigError::OnlineVcpus { online, vcpus });
        }
        if let Some(vcpu) = self.affinity.keys().chain(self.soft_affinity.keys()).copied().find(|vcpu| *vcpu >= vcpus) {
            return Err(ConfigError::AffinityOfVcpu { vcpu, vcpus });
        }
        if let Some(cores) = self.cores_per_socket.filter(|cores| !vcpus.is_multiple_of(*cores)) {
            return Err(ConfigError::CoresPerSocket { cores, vcpus });
        }
        if self.nested && on_demand {
            return Err(ConfigError::NestedOnDemand);
        }
        if let Some(mode) = self.altp2m {
            let excludes = match kind {
                Kind::Pv => Some("PV guests"),
                _ if on_demand => Some("guests that are populated on demand"),
                _ if self.nested => Some("guests with nested virtualisation"),
                _ => None,
            };
            if let Some(guests) = excludes {
                return Err(ConfigError::Altp2m { mode, guests });
            }
        }
        if !bios_string::fit(&self.bios_strings) {
            return Err(ConfigError::OemStrings(bios_string::MOST_OEM_STRINGS));
        }
        if self.viridian.is_said_twice() {
            return Err(ConfigError::ViridianTwice);
        }
        if self.viridian.exact.is_some() && kind != Kind::Hvm {
            return Err(ConfigError::ViridianNotHvm(kind));
        }
        Ok(())
    }

    /// How many vCPUs are online at the start, of so many.
    #[must_use]
    pub fn online(&self, vcpus: u32) -> u32 {
        self.online_vcpus.unwrap_or(vcpus)
    }
}
