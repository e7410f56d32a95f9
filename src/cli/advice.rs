//! What to do about an error: the flags and commands that the errors themselves do not know.

use crate::config::error::ConfigError;
use crate::error::Error;
use crate::error::device_user::DeviceUserError;
use crate::error::domain::DomainError;
use crate::error::host::HostError;
use crate::payload::error::FileError;

/// The advice for an error, if there is any beyond its own words.
pub(crate) fn advice(error: &Error) -> Option<String> {
    match error {
        Error::File(error) => of_file(error).map(str::to_owned),
        Error::Config(error) => of_config(error),
        Error::Domain(error) => of_domain(error),
        Error::Host(error) => of_host(error),
        Error::DeviceUser(error) => of_device_user(error).map(str::to_owned),
        _ => None,
    }
}

fn of_file(error: &FileError) -> Option<&'static str> {
    match error {
        FileError::NotInstalled { name, .. } => match *name {
            "hvmloader" => Some("or name a file with --hvmloader"),
            "SeaBIOS" => Some("or name a file with --firmware seabios:PATH"),
            "OVMF" => Some("or name a file with --firmware ovmf:PATH"),
            "QEMU" => Some("or name a file with --device-model"),
            "PV shim" => Some("or start the kernel without --shim"),
            _ => None,
        },
        FileError::NoHostSmbios(_) => Some("leave --smbios-passthrough out, or give --smbios FILE"),
        _ => None,
    }
}

fn of_config(error: &ConfigError) -> Option<String> {
    match error {
        ConfigError::NotKeyValue(_) => Some("give --platform KEY=VALUE".to_owned()),
        ConfigError::UnknownSetting(_) => Some("docs/platform.md has all that --platform takes".to_owned()),
        ConfigError::HasFlag { flag, .. } => Some(format!("give {flag} instead of --platform")),
        _ => None,
    }
}

fn of_domain(error: &DomainError) -> Option<String> {
    match error {
        DomainError::WrongKind { was, .. } => Some(format!("give --kind {was}")),
        DomainError::VcpusDiffer { created, .. } => Some(format!("give --vcpus {created}")),
        _ => None,
    }
}

fn of_host(error: &HostError) -> Option<String> {
    match error {
        HostError::ReservedTooMuch { .. } => Some("leave a device out of --pci".to_owned()),
        HostError::HoleTooSmall { needed, .. } => {
            Some(format!("give --mmio-hole {}MiB or leave it out", needed.get() >> 20))
        }
        _ => None,
    }
}

fn of_device_user(error: &DeviceUserError) -> Option<&'static str> {
    match error {
        DeviceUserError::PciDevices => Some("leave --device-model-user out"),
        DeviceUserError::NoSuchUser(_) => Some("make that user, or give --device-model-user a UID"),
        DeviceUserError::Root => Some("to run QEMU as root give --device-model-root"),
        DeviceUserError::Taken { .. } => Some("name another user with --device-model-user"),
        DeviceUserError::Unknown { .. } => {
            Some("see to the host's user database, or name a user with --device-model-user")
        }
        _ => None,
    }
}
