//! The lists of devices: each text goes through the parser of its class.

use std::str::FromStr;

use super::document::{Document, Setting};
use super::reader::{Read, Reader, Values};
use super::source::Place;
use super::value::Text;
use crate::config::devices::error::{DeviceSetError, DeviceSpecError};
use crate::config::devices::framebuffer::Framebuffer;
use crate::config::devices::machine::{DiskController, Machine};
use crate::config::devices::set::Devices;
use crate::memory::Kind;

/// A device, with its text.
type Parsed<'a, T> = Vec<(T, &'a Text)>;

/// Checks the devices one by one and, if each is right, all together.
pub(super) fn check(reader: &mut Reader<'_>, document: &Document, values: &Values<'_>, kind: Kind) {
    let disks = list(reader, values, "disk");
    let nics = list(reader, values, "vif");
    let shares = list(reader, values, "p9");
    let channels = list(reader, values, "channel");
    let (vtpms, vdispls) = (list(reader, values, "vtpm"), list(reader, values, "vdispl"));
    let pvcalls = list(reader, values, "pvcalls");
    // xl ignores the framebuffers of an HVM guest.
    let framebuffers: Option<Parsed<'_, Framebuffer>> =
        if kind == Kind::Hvm { Some(Vec::new()) } else { list(reader, values, "vfb") };
    let (Some(disks), Some(nics), Some(shares), Some(channels), Some(framebuffers)) =
        (disks, nics, shares, channels, framebuffers)
    else {
        return;
    };
    let (Some(vtpms), Some(vdispls), Some(pvcalls)) = (vtpms, vdispls, pvcalls) else { return };
    if let Some((_, second)) = framebuffers.get(1) {
        reader.diagnostics.error(second.place(), "vfb has a second framebuffer, and a guest of dombuild has one");
    }
    let texts = [texts(&disks), texts(&nics), texts(&shares), texts(&channels)];
    let is_ahci = values.get("hdtype").and_then(Read::text) == Some("ahci");
    let controller = if is_ahci { DiskController::Ahci } else { DiskController::Ide };
    let devices = Devices {
        disks: devices_of(disks),
        nics: devices_of(nics),
        shares: devices_of(shares),
        channels: devices_of(channels),
        framebuffer: devices_of(framebuffers).into_iter().next(),
        vtpms: devices_of(vtpms),
        vdispls: devices_of(vdispls),
        pvcalls: devices_of(pvcalls),
        machine: Machine { disks: controller, ..Machine::default() },
        ..Devices::default()
    };
    if let Err(error) = devices.check(kind) {
        let place = place_of(&error, &devices, &texts).or_else(|| document.get(key_of(&error)).and_then(value_place));
        reader.diagnostics.error(place, error.to_string());
    }
}

fn value_place(setting: &Setting) -> Option<Place> {
    setting.value.place()
}

fn texts<'a, T>(parsed: &Parsed<'a, T>) -> Vec<&'a Text> {
    parsed.iter().map(|(_, text)| *text).collect()
}

fn devices_of<T>(parsed: Parsed<'_, T>) -> Vec<T> {
    parsed.into_iter().map(|(device, _)| device).collect()
}

/// The devices of a list. `None` where one is wrong, or the list itself.
fn list<'a, T>(reader: &mut Reader<'_>, values: &Values<'a>, key: &str) -> Option<Parsed<'a, T>>
where
    T: FromStr<Err = DeviceSpecError>,
{
    let Some(Read::Texts(items)) = values.get(key) else { return Some(Vec::new()) };
    let mut devices = Some(Vec::new());
    for (spec, text) in items {
        match spec.parse::<T>() {
            Ok(device) => {
                if let Some(devices) = &mut devices {
                    devices.push((device, *text));
                }
            }
            Err(error) => {
                reader.error_in(text, error.span.clone(), format!("{key}: {error}"));
                devices = None;
            }
        }
    }
    devices
}

fn key_of(error: &DeviceSetError) -> &'static str {
    match error {
        DeviceSetError::Nic { .. }
        | DeviceSetError::LongVifname { .. }
        | DeviceSetError::SameNic { .. }
        | DeviceSetError::TooManyNics { .. } => "vif",
        DeviceSetError::Twice { class, .. } => class,
        _ => "disk",
    }
}

/// The text of the device that an error names.
fn place_of(error: &DeviceSetError, devices: &Devices, texts: &[Vec<&Text>; 4]) -> Option<Place> {
    let [disks, nics, ..] = texts;
    let text = match error {
        DeviceSetError::Nic { card, .. }
        | DeviceSetError::LongVifname { card, .. }
        | DeviceSetError::SameNic { second: card, .. } => nics.get(usize::try_from(*card).ok()?.checked_sub(1)?)?,
        DeviceSetError::Disk { vdev, .. } | DeviceSetError::ReadOnlyIde { vdev, .. } => disk(devices, disks, vdev)?,
        DeviceSetError::SameNumber { second, .. } | DeviceSetError::SameEmulatedPlace { second, .. } => {
            disk(devices, disks, second)?
        }
        _ => return None,
    };
    text.place()
}

/// The last disk of that name.
fn disk<'a>(devices: &Devices, texts: &[&'a Text], name: &str) -> Option<&'a Text> {
    let index = devices.disks.iter().rposition(|disk| disk.vdev.name == name)?;
    texts.get(index).copied()
}
