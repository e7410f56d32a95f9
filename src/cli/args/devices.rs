//! Room for the host's devices in a guest's address space.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use super::host::StoreArgs;
use super::qemu::Switch;
use super::time::seconds;
use crate::config::devices::emulated::{SoundModel, UsbDevice, UsbVersion};
use crate::config::devices::machine::{BootOrder, DiskController, GraphicsCard};
use crate::config::devices::pci::PciWord;
use crate::config::host_access::{IoMemory, Irq, PortRange};
use crate::devices::pci::SYSFS;
use crate::memory::Kib;

/// Devices that the guest gets later.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// Size of the hole for devices below 4 GiB: 256MiB to 2GiB [default: 256MiB for hvm, or what --pci and --vgpu need;
    /// always 64MiB for pvh, none for pv]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub mmio_hole: Option<Kib>,
    /// The guest gets PCI devices of the host later; it cannot be populated on demand
    #[arg(long)]
    pub passthrough: bool,
    /// Give this PCI device of the host to the guest (repeat it, or use commas): `SBDF[@SLOT][,KEY=0|1]...` with permissive,
    /// msitranslate, power_mgmt and seize, and rdm_policy=strict|relaxed. `dombuild pci assign` takes it from dom0. An HVM
    /// guest has room for it: a hole as large as sysfs says, and no RAM where the host reserves memory. build makes that
    /// room alone, and plan does not ask Xen. Implies --passthrough
    #[arg(long, value_name = "SBDF", value_delimiter = ',')]
    pub pci: Vec<PciWord>,
    /// Make room for an NVIDIA vGPU in an HVM guest: a hole of 512MiB at least, and 16MiB reserved in it. The vGPU itself is
    /// not given to the guest
    #[arg(long)]
    pub vgpu: bool,
    /// Where sysfs is
    #[arg(long, value_name = "DIR", default_value = SYSFS, hide = true)]
    pub sysfs: PathBuf,
}

/// Devices that the guest is created with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Devices")]
pub struct VirtualDeviceArgs {
    // Words on the command line, like --name: what is wrong in them has the configuration's exit code.
    /// A disk or CD drive, as in a line of xl's disk=[...] (repeat it): /dev/vg/web,raw,xvda,w or
    /// format=qcow2,vdev=xvdb,access=ro,target=/srv/b.img or, an empty CD drive, ,hdc:cdrom,r. docs/devices.md lists the words
    #[arg(long, value_name = "SPEC")]
    pub disk: Vec<String>,
    /// A network card, as in a line of xl's vif=[...] (repeat it): bridge=xenbr0,mac=00:16:3e:12:34:56 or '' for all
    /// defaults. docs/devices.md lists the words
    #[arg(long, value_name = "SPEC")]
    pub vif: Vec<String>,
    /// A framebuffer that VNC shows, with keyboard and pointer, as in a line of xl's vfb=[...]: vncdisplay=1,keymap=de or ''
    /// for all defaults. Of an HVM guest, VNC shows the graphics card
    #[arg(long, value_name = "SPEC")]
    pub vfb: Option<String>,
    /// A directory of dom0 that the guest mounts by 9pfs, as in a line of xl's p9=[...] (repeat it): tag=data,path=/srv/data
    #[arg(long, value_name = "SPEC")]
    pub p9: Vec<String>,
    /// A further console of the guest, as in a line of xl's channel=[...] (repeat it): name=org.example.agent,connection=pty
    #[arg(long, value_name = "SPEC")]
    pub channel: Vec<String>,
    /// A virtual TPM that another domain serves, as in a line of xl's vtpm=[...] (repeat it): backend=tpm-web
    #[arg(long, value_name = "SPEC")]
    pub vtpm: Vec<String>,
    /// A paravirtual display, as in a line of xl's vdispl=[...] (repeat it): backend=gpu,connectors=screen:1024x768
    #[arg(long, value_name = "SPEC")]
    pub vdispl: Vec<String>,
    /// A paravirtual sound card, as in one card of xl's vsnd=[...] with commas between its strings (repeat it):
    /// CARD,backend=audio,PCM,STREAM,unique-id=0,type=p
    #[arg(long, value_name = "SPEC")]
    pub vsnd: Vec<String>,
    /// PV calls, by which another domain makes the guest's socket calls, as in a line of xl's pvcalls=[...] (repeat it):
    /// backend=net
    #[arg(long, value_name = "SPEC")]
    pub pvcalls: Vec<String>,
    /// An emulated sound card of an HVM guest: hda, ac97, es1370, sb16, adlib, cs4231a or gus. dom0 does not play its sound
    #[arg(long, value_name = "MODEL", hide_possible_values = true)]
    pub sound: Option<SoundModel>,
    /// The emulated USB 1.1 controller of an HVM guest
    #[arg(long)]
    pub usb: bool,
    /// An emulated USB device of an HVM guest: tablet, mouse or keyboard (repeat it, or use commas). Implies --usb
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', hide_possible_values = true)]
    pub usb_device: Vec<UsbDevice>,
    /// An emulated USB controller of an HVM guest without devices: version 1, 2 or 3
    #[arg(long, value_name = "VERSION", hide_possible_values = true, conflicts_with_all = ["usb", "usb_device"])]
    pub usb_version: Option<UsbVersion>,
    /// I/O ports of the host that the guest may use, in hexadecimal as in xl's ioports=[...] (repeat it): 2f8-2ff
    #[arg(long, value_name = "FIRST[-LAST]")]
    pub ioport: Vec<PortRange>,
    /// An interrupt of the host that the guest may use, as in xl's irqs=[...] (repeat it)
    #[arg(long, value_name = "NUMBER")]
    pub irq: Vec<Irq>,
    /// Pages of the host's I/O memory that the guest may use, in hexadecimal as in xl's iomem=[...] (repeat it): a0,20 or
    /// fed40,1@fe000. HVM and PVH guests have them at GFN [default: START]
    #[arg(long, value_name = "START,COUNT[@GFN]")]
    pub iomem: Vec<IoMemory>,
    /// The graphics card of an HVM guest: stdvga, cirrus, qxl or none; --video sets its memory [default: stdvga]
    #[arg(long, value_name = "CARD", hide_possible_values = true)]
    pub vga: Option<GraphicsCard>,
    /// The controller of an HVM guest's disks hda to hdd and xvda to xvdf: ide, which has four of them, or ahci
    #[arg(long, value_name = "ide|ahci", value_enum, hide_possible_values = true, default_value = "ide")]
    pub hdtype: DiskController,
    /// A serial port of an HVM guest, in QEMU's words: pty, null, file:PATH (repeat it); none for no port [default: pty]
    #[arg(long, value_name = "PORT")]
    pub serial: Vec<String>,
    /// Whether an HVM guest has Xen's PCI device, by which its PV drivers find Xen
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true, default_value = "on")]
    pub xen_platform_pci: Switch,
    /// The order in which an HVM guest's firmware looks for a system: c disk, d CD drive, n network, a floppy [default: cda]
    #[arg(long, value_name = "LETTERS", help_heading = "Boot")]
    pub boot: Option<BootOrder>,
    /// How long the hotplug script of a device may take
    #[arg(long, value_name = "SECONDS", default_value = "40", value_parser = seconds)]
    pub hotplug_timeout: Duration,
}

/// The class of a device that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttachClass {
    /// A disk or CD drive
    Disk,
    /// A network card
    Vif,
    /// A PCI device of the host
    Pci,
}

/// The class of a device that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DetachClass {
    /// A disk or CD drive
    Disk,
    /// A network card
    Vif,
    /// A virtual TPM
    Vtpm,
    /// A paravirtual display
    Vdispl,
    /// A paravirtual sound card
    Vsnd,
    /// PV calls
    Pvcalls,
    /// A PCI device of the host
    Pci,
}

/// Attach a disk, a network card or a PCI device to a guest, and wait until the guest has connected it
#[derive(Debug, Clone, Args)]
pub struct AttachArgs {
    /// Class of the device
    #[arg(value_name = "disk|vif|pci", hide_possible_values = true)]
    pub class: AttachClass,
    /// Number or name of the guest, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// The device, as in --disk, --vif and --pci of create: /srv/b.img,raw,xvdb,w or bridge=xenbr0 or '' for a network card
    /// with all defaults or 03:00.0,permissive=1. docs/devices.md lists the words
    pub spec: String,
    /// How long the guest may take to connect it; a device that it does not connect is taken away again
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
    /// Do not wait for the guest: it may be paused, or have no drivers yet
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// How long the hotplug script of the device may take
    #[arg(long, value_name = "SECONDS", default_value = "40", value_parser = seconds)]
    pub hotplug_timeout: Duration,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Put an image into a CD drive of an HVM guest; what is in it comes out
#[derive(Debug, Clone, Args)]
pub struct InsertArgs {
    /// Number or name of the guest, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// The CD drive: hda to hdd
    #[arg(value_name = "VDEV", value_parser = NonEmptyStringValueParser::new())]
    pub drive: String,
    /// The image: a file or a block device, such as /dev/sr0
    #[arg(value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new())]
    pub image: String,
    /// Format of the image: raw, qcow2, vhd, ...
    #[arg(long, default_value = "raw")]
    pub format: String,
    /// How the medium that is in the drive is taken out
    #[command(flatten)]
    pub eject: EjectHow,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Take the medium out of a CD drive of an HVM guest
#[derive(Debug, Clone, Args)]
pub struct EjectArgs {
    /// Number or name of the guest, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// The CD drive: hda to hdd
    #[arg(value_name = "VDEV", value_parser = NonEmptyStringValueParser::new())]
    pub drive: String,
    /// How the medium is taken out
    #[command(flatten)]
    pub eject: EjectHow,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}

/// How a medium is taken out.
#[derive(Debug, Clone, Args)]
pub struct EjectHow {
    /// How long a guest that has locked the drive may take to open it
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub timeout: Duration,
    /// Take the medium out of a locked drive, too
    #[arg(long, conflicts_with = "timeout")]
    pub force: bool,
}

/// Detach a device from a guest, which is asked to release it
#[derive(Debug, Clone, Args)]
pub struct DetachArgs {
    /// Class of the device: disk, vif, vtpm, vdispl, vsnd, pvcalls or pci
    #[arg(value_name = "CLASS", hide_possible_values = true)]
    pub class: DetachClass,
    /// Number or name of the guest, whoever built it
    #[arg(value_name = "DOMID|NAME", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// The device: of a disk its place (xvdb) or its number, of a network card its number or its MAC address, of a PCI device
    /// its address on the host (03:00.0), of another device its number
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub device: String,
    /// How long the guest may take to release it; a guest that does not begin to keeps it
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
    /// Do not ask the guest: what it has not written yet is lost. Not for a PCI device, which the guest could still reach
    #[arg(long, conflicts_with = "timeout")]
    pub force: bool,
    /// xenstored
    #[command(flatten)]
    pub store: StoreArgs,
}
