//! Converts `--disk`, `--vif` and the other flags of devices to the devices of a guest.

use std::str::FromStr;

use crate::cli::args::devices::VirtualDeviceArgs;
use crate::config::devices::emulated::Usb;
use crate::config::devices::error::DeviceSpecError;
use crate::config::devices::machine::Machine;
use crate::config::devices::set::Devices;
use crate::config::error::ConfigError;
use crate::config::host_access::HostAccess;
use crate::error::Error;
use crate::memory::Kind;

/// The devices of these flags, each network card with a number and an address.
///
/// # Errors
/// A text that describes no device, and devices that a guest of this kind cannot have together.
pub(crate) fn read(arguments: &VirtualDeviceArgs, kind: Kind) -> Result<Devices, Error> {
    let mut devices = Devices {
        disks: parse("--disk", &arguments.disk)?,
        nics: parse("--vif", &arguments.vif)?,
        shares: parse("--p9", &arguments.p9)?,
        channels: parse("--channel", &arguments.channel)?,
        framebuffer: arguments.vfb.as_deref().map(|spec| parse_one("--vfb", spec)).transpose()?,
        vtpms: parse("--vtpm", &arguments.vtpm)?,
        vdispls: parse("--vdispl", &arguments.vdispl)?,
        sound_cards: parse("--vsnd", &arguments.vsnd)?,
        pvcalls: parse("--pvcalls", &arguments.pvcalls)?,
        sound: arguments.sound,
        usb: match arguments.usb_version {
            Some(version) => Some(Usb::Controller(version)),
            None if arguments.usb || !arguments.usb_device.is_empty() => {
                Some(Usb::Devices(arguments.usb_device.clone()))
            }
            None => None,
        },
        host_access: HostAccess {
            ports: arguments.ioport.clone(),
            irqs: arguments.irq.clone(),
            memory: arguments.iomem.clone(),
        },
        machine: Machine { disks: arguments.hdtype, ..Machine::default() },
        ..Devices::default()
    };
    devices.check(kind).map_err(ConfigError::from)?;
    for disk in devices.paravirtual_only(kind) {
        log::warn!(
            "disk {}: only the guest's Xen drivers see it; the emulated disks are hda to hdd (or xvda to xvdd) and sda to sdp",
            disk.vdev
        );
    }
    devices.complete();
    Ok(devices)
}

fn parse<T: FromStr<Err = DeviceSpecError>>(flag: &str, specs: &[String]) -> Result<Vec<T>, Error> {
    specs.iter().map(|spec| parse_one(flag, spec)).collect()
}

/// The device of a text that stands behind `flag`.
///
/// # Errors
/// [`Error::BadConfig`] with the column of what is wrong.
pub(crate) fn parse_one<T: FromStr<Err = DeviceSpecError>>(flag: &str, spec: &str) -> Result<T, Error> {
    spec.parse().map_err(|error| Error::BadConfig(message(flag, spec, &error)))
}

fn message(flag: &str, spec: &str, error: &DeviceSpecError) -> String {
    let before = spec.get(..error.span.start).unwrap_or(spec);
    format!("{flag} {:?}, column {}: {error}", without_password(spec), before.chars().count() + 1)
}

/// The text with `...` in place of a password: messages go to logs.
fn without_password(spec: &str) -> String {
    const KEY: &str = "vncpasswd=";
    let masked = |word: &str| word.split_once(KEY).map(|(blanks, _)| format!("{blanks}{KEY}..."));
    let words: Vec<_> = spec.split(',').map(|word| masked(word).unwrap_or_else(|| word.to_owned())).collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::devices::framebuffer::Framebuffer;

    #[test]
    fn a_message_has_no_password() {
        for spec in ["vncpasswd=secret,vnc=2", "vnc=2,vncpasswd=secret", "vncpasswd=secret,keymap=*, vncpasswd=secret2"]
        {
            let error = parse_one::<Framebuffer>("--vfb", spec).expect_err("refused").to_string();
            assert!(!error.contains("secret") && error.contains("vncpasswd=..."), "{error}");
        }
    }
}
