//! What QEMU has for a guest's devices: the emulated twins of an HVM guest's disks and network cards, which its firmware and its
//! first kernel use, VNC, and the host's end of channels. QEMU's arguments, and the descriptors that QEMU gets with them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::emulated;
use crate::config::devices::channel::ChannelConnection;
use crate::config::devices::disk::DiskFormat;
use crate::config::devices::emulated::{SoundModel, Usb};
use crate::config::devices::framebuffer::Framebuffer;
use crate::config::devices::nic::{MacAddress, Nic};
use crate::error::device::DeviceError;
use crate::os::network_interface::make_tap;
use crate::xen::DomId;

/// The card that QEMU emulates if none was chosen (libxl__device_nic_setdefault, tools/libs/light/libxl_nic.c, Xen 4.17).
const DEFAULT_MODEL: &str = "rtl8139";

/// The SCSI controller that libxl's documentation names for `sd` disks.
pub(super) const SCSI_CONTROLLER: &str = "lsi53c895a,id=scsi0";

/// A part of QEMU's for a device.
#[derive(Debug)]
pub enum QemuDevice {
    /// An emulated disk.
    Disk {
        /// Its place.
        place: DrivePlace,
        /// Its image.
        image: DriveImage,
        /// The guest may write.
        writable: bool,
    },
    /// An emulated IDE CD drive.
    Cdrom {
        /// Its place among the four IDE drives.
        ide: u32,
        /// Its number in xenstore, by which libxl names it to QEMU.
        number: u32,
        /// Its medium; `None`: it is empty.
        image: Option<DriveImage>,
    },
    /// An emulated network card.
    Nic {
        /// Its number.
        devid: u32,
        /// Its address.
        mac: MacAddress,
        /// The card, as QEMU names it.
        model: Option<String>,
    },
    /// The AHCI controller of emulated disks.
    Ahci,
    /// An emulated sound card.
    Sound(SoundModel),
    /// Emulated USB.
    Usb(Usb),
    /// A VNC server for the guest's framebuffer or graphics card.
    Vnc(Framebuffer),
    /// The host's end of a channel.
    Channel {
        /// The number of the console.
        devid: u32,
        /// Where it is.
        connection: ChannelConnection,
    },
}

impl QemuDevice {
    /// Whether the guest sees it as a device of a real machine.
    #[must_use]
    pub const fn is_emulated(&self) -> bool {
        matches!(self, Self::Disk { .. } | Self::Cdrom { .. } | Self::Nic { .. } | Self::Sound(_) | Self::Usb(_))
    }
}

/// The place of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrivePlace {
    /// One of four IDE drives.
    Ide(u32),
    /// A port of the AHCI controller.
    Ahci(u32),
    /// A unit of the SCSI controller.
    Scsi(u32),
}

/// The image of a drive.
#[derive(Debug)]
pub struct DriveImage {
    /// Its path.
    pub path: PathBuf,
    /// The open file. QEMU gets it as a descriptor if it is raw. QEMU opens other formats by their path, because it looks for
    /// a backing file next to the image; it does so before it drops its rights.
    pub file: File,
    /// It is a block device.
    pub block_device: bool,
    /// Its format.
    pub format: DiskFormat,
}

/// QEMU's arguments for devices, and the descriptors that go with them.
#[derive(Debug, Default)]
pub struct QemuDevices {
    /// The arguments.
    pub arguments: Vec<String>,
    /// The descriptors, which have the same numbers in QEMU.
    pub descriptors: Vec<OwnedFd>,
    /// The VNC server, if there is one.
    pub vnc: Option<Framebuffer>,
}

/// The name of the tap device of an emulated card.
#[must_use]
pub fn tap_name(domid: DomId, devid: u32) -> String {
    format!("vif{domid}.{devid}{}", Nic::EMULATED_SUFFIX)
}

/// The name of the host's end of a channel, in QEMU and in xenstore.
#[must_use]
pub fn channel_id(devid: u32) -> String {
    format!("libxl-channel{devid}")
}

/// The name of an IDE CD drive, by its number in xenstore (libxl's).
#[must_use]
pub fn drive_id(number: u32) -> String {
    format!("ide-{number}")
}

/// A path as the value of an option: QEMU ends a value at a comma, and reads two as one.
fn value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

impl QemuDevices {
    /// The arguments for the devices of `domid` (tools/libs/light/libxl_dm.c, Xen 4.17). Makes the tap devices of the cards,
    /// which last as long as their descriptors.
    ///
    /// # Errors
    /// [`DeviceError::System`] if a tap device cannot be made or a descriptor copied.
    pub fn of(domid: DomId, devices: &[QemuDevice]) -> Result<Self, DeviceError> {
        let mut all = Self::default();
        for device in devices {
            match device {
                QemuDevice::Disk { place, image, writable } => all.add_disk(*place, image, *writable)?,
                QemuDevice::Cdrom { ide, number, image } => all.add_cdrom(*ide, *number, image.as_ref())?,
                QemuDevice::Nic { devid, mac, model } => {
                    let name = tap_name(domid, *devid);
                    let failed = |source| DeviceError::System {
                        device: format!("vif {devid}"),
                        action: format!("make the tap device {name}"),
                        source,
                    };
                    let (_, tap) = make_tap(&name).map_err(failed)?;
                    let model = model.as_deref().unwrap_or(DEFAULT_MODEL);
                    all.add(&["-netdev", &format!("tap,id=net{devid},fd={}", tap.as_raw_fd())]);
                    all.add(&["-device", &format!("{model},id=nic{devid},netdev=net{devid},mac={mac}")]);
                    all.descriptors.push(tap);
                }
                QemuDevice::Ahci => all.add(&["-device", "ahci,id=ahci0"]),
                QemuDevice::Sound(model) => all.arguments.extend(emulated::sound(*model)),
                QemuDevice::Usb(usb) => all.arguments.extend(emulated::usb(usb)),
                QemuDevice::Vnc(framebuffer) => {
                    all.add_vnc(framebuffer);
                    all.vnc = Some(framebuffer.clone());
                }
                QemuDevice::Channel { devid, connection } => {
                    let id = channel_id(*devid);
                    let chardev = match connection {
                        ChannelConnection::Pty => format!("pty,id={id}"),
                        ChannelConnection::Socket(path) => {
                            format!("socket,id={id},path={},server=on,wait=off", value(path))
                        }
                    };
                    all.add(&["-chardev", &chardev]);
                }
            }
        }
        Ok(all)
    }

    fn add(&mut self, words: &[&str]) {
        self.arguments.extend(words.iter().map(|word| (*word).to_owned()));
    }

    fn add_vnc(&mut self, framebuffer: &Framebuffer) {
        let mut vnc = framebuffer.address();
        if framebuffer.unused {
            // As many displays as libxl lets QEMU try.
            vnc.push_str(",to=99");
        }
        if framebuffer.password.is_some() {
            vnc.push_str(",password=on");
        }
        self.add(&["-vnc", &vnc]);
        if let Some(keymap) = &framebuffer.keymap {
            self.add(&["-k", keymap]);
        }
    }

    fn add_disk(&mut self, place: DrivePlace, image: &DriveImage, writable: bool) -> Result<(), DeviceError> {
        let file = self.file(image, writable)?;
        let format = image.format.as_str();
        match place {
            DrivePlace::Ide(index) => self
                .add(&["-drive", &format!("{file},if=ide,index={index},media=disk,format={format},cache=writeback")]),
            DrivePlace::Ahci(port) => {
                let drive = format!("{file},if=none,id=ahcidisk-{port},format={format},cache=writeback");
                let disk = format!("ide-hd,bus=ahci0.{port},unit=0,drive=ahcidisk-{port}");
                self.add(&["-drive", &drive, "-device", &disk]);
            }
            // QEMU 7.2 and later take no `if=scsi` here: the machine has no SCSI controller of its own.
            DrivePlace::Scsi(unit) => {
                let readonly = if writable { "off" } else { "on" };
                let drive =
                    format!("{file},if=none,id=scsi0-hd{unit},format={format},readonly={readonly},cache=writeback");
                let disk = format!("scsi-hd,drive=scsi0-hd{unit},bus=scsi0.0,scsi-id={unit}");
                if !self.arguments.iter().any(|argument| argument == SCSI_CONTROLLER) {
                    self.add(&["-device", SCSI_CONTROLLER]);
                }
                self.add(&["-drive", &drive, "-device", &disk]);
            }
        }
        Ok(())
    }

    fn add_cdrom(&mut self, ide: u32, number: u32, image: Option<&DriveImage>) -> Result<(), DeviceError> {
        let medium = match image {
            Some(image) => format!(",{},format={}", self.file(image, false)?, image.format.as_str()),
            None => String::new(),
        };
        let id = drive_id(number);
        self.add(&["-drive", &format!("if=none,readonly=on,id={id}{medium}")]);
        let (bus, unit) = (ide / 2, ide % 2);
        self.add(&["-device", &format!("ide-cd,id={id},drive={id},bus=ide.{bus},unit={unit}")]);
        Ok(())
    }

    /// The option that names the file of a drive.
    fn file(&mut self, image: &DriveImage, writable: bool) -> Result<String, DeviceError> {
        if image.format != DiskFormat::Raw {
            return Ok(format!("file={}", value(&image.path)));
        }
        let failed = |source: io::Error| DeviceError::System {
            device: image.path.display().to_string(),
            action: "copy its descriptor".to_owned(),
            source,
        };
        let set = self.descriptors.len();
        let mut copies = vec![image.file.try_clone().map_err(failed)?];
        if writable {
            // QEMU opens an image for reading only until the guest's drive has it (dynamic auto-read-only).
            copies.push(File::open(format!("/proc/self/fd/{}", image.file.as_raw_fd())).map_err(failed)?);
        }
        for copy in copies {
            self.add(&["-add-fd", &format!("fd={},set={set}", copy.as_raw_fd())]);
            self.descriptors.push(copy.into());
        }
        // QEMU finds the driver by the path, and this one shows no block device.
        let driver = if image.block_device { "host_device" } else { "file" };
        Ok(format!("file.driver={driver},file.filename=/dev/fdset/{set}"))
    }
}
