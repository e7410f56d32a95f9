//! The QEMU of a saved guest, in libxl's JSON: its program, its user, its emulated devices and its other arguments.

use std::path::PathBuf;

use super::saved_devices::{choices, framebuffer, no_sdl};
use super::saved_fields::Fields;
use crate::config::devices::emulated::{SoundModel, Usb, UsbDevice, UsbVersion};
use crate::config::devices::machine::{DiskController, GraphicsCard, Machine};
use crate::config::devices::set::Devices;
use crate::error::migration::FileProblem;
use crate::memory::units::KIB_PER_MIB;
use crate::memory::{Kib, Kind};

/// The QEMU of a saved guest.
#[derive(Debug)]
pub struct SavedQemu {
    /// The program, if it was chosen.
    pub path: Option<PathBuf>,
    /// The machine that it emulates.
    pub machine: Machine,
    /// Its other arguments.
    pub arguments: Vec<String>,
    /// It has no rights beyond its own guest.
    pub restricted: bool,
    /// The user that runs it, if it was chosen.
    pub user: Option<String>,
    /// It serves a paravirtual keyboard.
    pub keyboard: bool,
}

/// The QEMU of an HVM guest, and its emulated devices.
pub(super) fn read(
    build: &mut Fields,
    hvm: &mut Fields,
    kind: Kind,
    devices: &mut Devices,
    video: &mut Option<Kib>,
) -> Result<SavedQemu, FileProblem> {
    build.one_of("device_model_version", &["qemu_xen", "none_required", "unknown"])?;
    build.absent(&["device_model_stubdomain", "extra", "extra_pv"])?;
    let path = build.text("device_model")?.map(PathBuf::from);
    let (restricted, user) = (build.truth("dm_restrict")?.unwrap_or(false), build.text("device_model_user")?);
    let mut arguments = build.words("extra_hvm")?;
    let mut machine = Machine::default();
    let mut keyboard = false;
    if kind == Kind::Hvm {
        let mut vga = hvm.object("vga")?;
        let mut card = match vga.text("kind")?.as_deref() {
            None | Some("cirrus") => GraphicsCard::Cirrus,
            Some("std") => GraphicsCard::Std,
            Some("qxl") => GraphicsCard::Qxl,
            Some("none") => GraphicsCard::None,
            Some(other) => return Err(vga.unknown("kind", &other.into())),
        };
        vga.end()?;
        *video = video.or(Some(card.usual_video()));
        // dombuild writes a card with little video RAM so, because libxl has no other words for it.
        let own = ["-device".to_owned(), format!("VGA,vgamem_mb={}", video.unwrap_or_default().0 / KIB_PER_MIB)];
        if card == GraphicsCard::None && arguments.starts_with(&own) {
            card = GraphicsCard::Std;
            arguments.drain(..own.len());
        }
        let mut vnc = hvm.object("vnc")?;
        devices.framebuffer = framebuffer(&mut vnc, hvm)?;
        vnc.end()?;
        no_sdl(hvm)?;
        let mut spice = hvm.object("spice")?;
        spice.absent(&["enable"])?;
        keyboard = hvm.truth("vkb_device")?.unwrap_or(true);
        emulated(hvm, devices)?;
        machine.graphics = card;
        machine.disks = match hvm.text("hdtype")?.as_deref() {
            None | Some("ide") => DiskController::Ide,
            Some("ahci") => DiskController::Ahci,
            Some(other) => return Err(hvm.unknown("hdtype", &other.into())),
        };
        machine.serial = hvm.words("serial_list")?;
        machine.serial.extend(hvm.text("serial")?);
        machine.platform_device = hvm.truth("xen_platform_pci")? != Some(false);
        if let Some(order) = hvm.text("boot")? {
            machine.boot = order.parse().map_err(|_| hvm.unknown("boot", &order.into()))?;
        }
    }
    Ok(SavedQemu { path, machine, arguments, restricted, user, keyboard })
}

/// The sound card and USB.
fn emulated(hvm: &mut Fields, devices: &mut Devices) -> Result<(), FileProblem> {
    use UsbDevice::{Keyboard, Mouse, Tablet};
    const SOUND: [SoundModel; 7] = [
        SoundModel::Hda,
        SoundModel::Ac97,
        SoundModel::Es1370,
        SoundModel::Sb16,
        SoundModel::Adlib,
        SoundModel::Cs4231a,
        SoundModel::Gus,
    ];
    let sound: Vec<String> = hvm.text("soundhw")?.into_iter().collect();
    devices.sound = choices(hvm, "soundhw", &sound, &SOUND, SoundModel::as_str)?.first().copied();
    let mut names = hvm.words("usbdevice_list")?;
    names.extend(hvm.text("usbdevice")?);
    let list = choices(hvm, "usbdevice", &names, &[Tablet, Mouse, Keyboard], UsbDevice::as_str)?;
    let wanted = hvm.truth("usb")?.unwrap_or(false);
    let version = hvm.number("usbversion")?.filter(|version| *version > 0);
    devices.usb = match version {
        _ if wanted || !list.is_empty() => Some(Usb::Devices(list)),
        None => None,
        Some(1) => Some(Usb::Controller(UsbVersion::One)),
        Some(2) => Some(Usb::Controller(UsbVersion::Two)),
        Some(3) => Some(Usb::Controller(UsbVersion::Three)),
        Some(other) => return Err(hvm.unknown("usbversion", &other.into())),
    };
    Ok(())
}
