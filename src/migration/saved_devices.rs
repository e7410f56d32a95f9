//! The devices in libxl's JSON: the reverse of [`libxl_devices`](crate::domain::libxl_devices).

use std::str::FromStr;

use serde_json::Value;

use super::saved_fields::Fields;
use crate::config::devices::channel::{Channel, ChannelConnection};
use crate::config::devices::disk::Disk;
use crate::config::devices::error::DeviceSpecError;
use crate::config::devices::framebuffer::Framebuffer;
use crate::config::devices::nic::{Nic, Rate};
use crate::config::devices::set::Devices;
use crate::config::devices::share::Share;
use crate::error::migration::FileProblem;
use crate::os::Untrusted;

/// The interval of a rate that has none (`xlu__vif_parse_rate`, Xen 4.17): 50 ms.
const RATE_INTERVAL: u32 = 50_000;

/// Reads the lists of devices of a configuration, whose other fields stay.
pub(super) fn read(all: &mut Fields) -> Result<Devices, FileProblem> {
    let framebuffers = of_list(all, "vfbs", |fields| {
        let mut vnc = fields.object("vnc")?;
        let found = framebuffer(&mut vnc, fields)?;
        vnc.end()?;
        no_sdl(fields)?;
        found.ok_or_else(|| fields.missing("vnc"))
    })?;
    // Each framebuffer has a keyboard, which is made with it.
    let keyboards = of_list(all, "vkbs", |fields| {
        fields.one_of("backend_type", &["qemu", "unknown"])?;
        fields.absent(&["unique_id", "backend_domid", "backend_domname"])?;
        fields.pass(&["devid"]);
        Ok(())
    })?;
    if framebuffers.len() > 1 || keyboards.len() > framebuffers.len() {
        return Err(all.missing("pairs of vfbs and vkbs"));
    }
    Ok(Devices {
        disks: of_list(all, "disks", disk)?,
        nics: of_list(all, "nics", nic)?,
        shares: of_list(all, "p9s", share)?,
        channels: of_list(all, "channels", channel)?,
        framebuffer: framebuffers.into_iter().next(),
        ..Devices::default()
    })
}

/// Reads each object of a list.
fn of_list<T>(
    all: &mut Fields,
    name: &str,
    read: impl Fn(&mut Fields) -> Result<T, FileProblem>,
) -> Result<Vec<T>, FileProblem> {
    let list = all.list(name)?;
    let devices = list.into_iter().enumerate().map(|(index, device)| {
        let mut fields = Fields::of(&format!("{name}[{index}]."), Some(device))?;
        let device = read(&mut fields)?;
        fields.end()?;
        Ok(device)
    });
    devices.collect()
}

/// A device from the words that the command line takes.
fn of_words<T: FromStr<Err = DeviceSpecError>>(
    fields: &Fields,
    words: &[(&str, Option<String>)],
) -> Result<T, FileProblem> {
    let spec: Vec<String> =
        words.iter().filter_map(|(word, value)| Some(format!("{word}={}", value.as_ref()?))).collect();
    let refused = |error: DeviceSpecError| FileProblem::Device {
        name: fields.name().to_owned(),
        reason: Untrusted::from(error.to_string()),
    };
    spec.join(",").parse().map_err(refused)
}

fn disk(fields: &mut Fields) -> Result<Disk, FileProblem> {
    let cdrom = fields.truth("is_cdrom")?.unwrap_or(false);
    let writable = fields.truth("readwrite")?.unwrap_or(false);
    let format = fields.text("format")?.unwrap_or_else(|| "raw".to_owned());
    fields.pass(&["removable", "colo_restore_enable", "colo_enable", "colo_port"]);
    fields.one_of("specification", &["xen", "unknown"])?;
    fields.one_of("transport", &["unknown"])?;
    let target = fields.text("pdev_path")?.filter(|target| !target.is_empty());
    let backend = fields.text("backend")?.filter(|backend| backend != "unknown");
    fields.absent(&["backend_domid"])?;
    let words = [
        ("vdev", fields.text("vdev")?),
        ("format", Some(format)),
        ("backendtype", backend),
        ("script", fields.text("script")?),
        ("backend", fields.text("backend_domname")?),
        ("access", Some(if writable { "rw" } else { "ro" }.to_owned())),
        ("devtype", cdrom.then(|| "cdrom".to_owned())),
        // The last one has all that follows, commas too.
        ("target", target),
    ];
    let mut disk: Disk = of_words(fields, &words)?;
    disk.direct_io_safe = fields.truth("direct_io_safe")?.unwrap_or(false);
    disk.discard = fields.truth("discard_enable")?;
    disk.trusted = fields.truth("trusted")?;
    Ok(disk)
}

fn nic(fields: &mut Fields) -> Result<Nic, FileProblem> {
    fields.absent(&["backend_domid", "vlan"])?;
    let rate = fields.number("rate_bytes_per_interval")?.filter(|bytes| *bytes > 0);
    let interval = fields.small("rate_interval_usecs")?.filter(|interval| *interval > 0);
    let emulated = match fields.text("nictype")?.as_deref() {
        None | Some("unknown") => None,
        Some("vif") => Some(false),
        Some("vif_ioemu") => Some(true),
        Some(other) => return Err(fields.unknown("nictype", &other.into())),
    };
    let words = [
        ("devid", fields.number("devid")?.map(|number| number.to_string())),
        ("mac", fields.text("mac")?),
        ("bridge", fields.text("bridge")?),
        ("script", fields.text("script")?),
        ("ip", fields.text("ip")?),
        ("vifname", fields.text("ifname")?),
        ("gatewaydev", fields.text("gatewaydev")?),
        // libxl names one for cards that are not emulated, too.
        ("model", fields.text("model")?.filter(|_| emulated == Some(true))),
        ("mtu", fields.number("mtu")?.filter(|mtu| *mtu > 0).map(|mtu| mtu.to_string())),
        ("backend", fields.text("backend_domname")?),
    ];
    let mut nic: Nic = of_words(fields, &words)?;
    nic.emulated = emulated;
    nic.rate = rate.map(|bytes| Rate { bytes, interval_us: interval.unwrap_or(RATE_INTERVAL) });
    nic.trusted = fields.truth("trusted")?;
    Ok(nic)
}

fn share(fields: &mut Fields) -> Result<Share, FileProblem> {
    fields.absent(&["backend_domid", "backend_domname"])?;
    fields.one_of("type", &["qemu", "unknown"])?;
    fields.pass(&["devid"]);
    let words = ["tag", "path", "security_model"];
    let words = words.map(|name| fields.text(name).map(|value| (name, value)));
    let words: Vec<_> = words.into_iter().collect::<Result<_, _>>()?;
    of_words(fields, &words)
}

fn channel(fields: &mut Fields) -> Result<Channel, FileProblem> {
    fields.absent(&["backend_domid", "backend_domname"])?;
    fields.pass(&["devid"]);
    let name = fields.text("name")?.ok_or_else(|| fields.missing("name"))?;
    fields.pass(&["connection.pty"]);
    let mut socket = fields.object("connection.socket")?;
    let connection = match socket.text("path")? {
        Some(path) => ChannelConnection::Socket(path.into()),
        None => ChannelConnection::Pty,
    };
    socket.end()?;
    Ok(Channel { name, connection })
}

/// A `libxl_vnc_info`, and the keymap that goes with it. `None`: there is no VNC.
pub(super) fn framebuffer(vnc: &mut Fields, beside: &mut Fields) -> Result<Option<Framebuffer>, FileProblem> {
    let enabled = vnc.truth("enable")?.unwrap_or(true);
    let display = vnc.number("display")?.unwrap_or(0);
    let unused = vnc.truth("findunused")?.unwrap_or(true);
    let words = [
        ("vnc", Some("1".to_owned())),
        ("vnclisten", vnc.text("listen")?),
        ("vncdisplay", Some(display.to_string())),
        ("vncunused", Some(u8::from(unused).to_string())),
        ("vncpasswd", vnc.text("passwd")?.filter(|password| !password.is_empty())),
        ("keymap", beside.text("keymap")?),
    ];
    if enabled { of_words(beside, &words).map(Some) } else { Ok(None) }
}

/// Fails if the guest is shown by SDL.
pub(super) fn no_sdl(fields: &mut Fields) -> Result<(), FileProblem> {
    let mut sdl = fields.object("sdl")?;
    sdl.absent(&["enable", "opengl"])?;
    sdl.pass(&["display", "xauthority"]);
    sdl.end()
}

/// The words of a list in JSON, of which each must be one of these.
pub(super) fn choices<T: Copy>(
    fields: &Fields,
    name: &str,
    words: &[String],
    known: &[T],
    word_of: impl Fn(T) -> &'static str,
) -> Result<Vec<T>, FileProblem> {
    let choice = |word: &String| {
        let found = known.iter().copied().find(|known| word_of(*known) == word);
        found.ok_or_else(|| fields.unknown(name, &Value::from(word.as_str())))
    };
    words.iter().map(choice).collect()
}
