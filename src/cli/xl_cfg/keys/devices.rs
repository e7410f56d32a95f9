//! The keys of devices that a backend in dom0 or another domain serves, and of the host's own devices.

use super::super::{libxl_devices, libxl_parts};
use super::Type::{Flag, Lists, Number, Text, Texts};
use super::{ALL, HVM, HVM_PV, INT_MAX, Key, PVH_PV, State, key};

const CHECKED: State = State::Checked;
const READ: State = State::Read;
const PORT: super::Type = Number(0, 59_635);

pub(super) const KEYS: &[Key] = &[
    key("disk", Texts, ALL, CHECKED, "Disks and CD drives ([devices](devices.md)).").parts(libxl_devices::disks),
    key("vif", Texts, ALL, CHECKED, "Network cards ([devices](devices.md)); xl ignores words that it does not know.")
        .parts(libxl_devices::nics),
    key("vif2", Texts, ALL, State::Ignored("xl ignores it, too: give vif"), "Network cards of another kind."),
    key("vfb", Texts, PVH_PV, CHECKED, "Framebuffer, keyboard and pointer ([devices](devices.md))."),
    key("vkb", Texts, ALL, CHECKED, "Keyboards and pointers."),
    key("vnc", Flag, HVM_PV, CHECKED, "VNC shows the graphics card; of a PV guest without vfb, a framebuffer.")
        .at("b_info.type.hvm.vnc.enable"),
    key("vncdisplay", PORT, HVM_PV, CHECKED, "Display of VNC: the port less 5900.").at("b_info.type.hvm.vnc.display"),
    key("vnclisten", Text, HVM_PV, CHECKED, "Address on which VNC listens; 127.0.0.1 without it.")
        .at("b_info.type.hvm.vnc.listen"),
    key("vncunused", Flag, HVM_PV, CHECKED, "The next free display is taken where this one is in use; 1 without it.")
        .at("b_info.type.hvm.vnc.findunused"),
    key("vncpasswd", Text, HVM_PV, CHECKED, "Password of VNC, of which it compares 8 bytes.")
        .at("b_info.type.hvm.vnc.passwd"),
    key("p9", Texts, ALL, CHECKED, "Directories that the guest mounts by 9pfs ([devices](devices.md)).")
        .parts(libxl_devices::shares),
    key("channel", Texts, ALL, CHECKED, "Further consoles ([devices](devices.md)).").parts(libxl_devices::channels),
    key("vtpm", Texts, ALL, CHECKED, "TPMs that a domain serves.").parts(libxl_devices::vtpms),
    key("pvcalls", Texts, ALL, CHECKED, "Sockets that a domain serves.").parts(libxl_devices::pvcalls),
    key("vdispl", Texts, ALL, CHECKED, "Displays that a domain serves.").parts(libxl_devices::vdispls),
    key("vsnd", Lists, ALL, CHECKED, "Sound cards that a domain serves.").parts(libxl_devices::sound_cards),
    key("virtio", Texts, ALL, State::Refused("it is for Arm: x86 has no transport for it"), "Virtio devices.")
        .of_4_20(),
    key("usbctrl", Texts, ALL, CHECKED, "USB controllers.").parts(libxl_devices::usb_controllers),
    key("usbdev", Texts, ALL, CHECKED, "USB devices of the host.").parts(libxl_devices::usb_devices),
    key("pci", Texts, ALL, CHECKED, "PCI devices of the host.").parts(libxl_devices::pci_devices),
    key("pci_msitranslate", Flag, ALL, CHECKED, "msitranslate of every device in pci."),
    key("pci_power_mgmt", Flag, ALL, CHECKED, "power_mgmt of every device in pci."),
    key("pci_permissive", Flag, ALL, CHECKED, "permissive of every device in pci."),
    key("pci_seize", Flag, ALL, CHECKED, "seize of every device in pci."),
    key("ioports", Texts, ALL, CHECKED, "I/O ports of the host, in hexadecimal: 2f8-2ff.").parts(libxl_parts::ioports),
    key("irqs", Texts, ALL, CHECKED, "Interrupts of the host.").parts(libxl_parts::irqs),
    key("iomem", Texts, ALL, CHECKED, "Pages of the host's I/O memory, in hexadecimal: START,COUNT[@GFN].")
        .parts(libxl_parts::iomem),
    key("vkb_device", Flag, HVM, CHECKED, "A paravirtual keyboard; 1 without it.").at("b_info.type.hvm.vkb_device"),
    key(
        "gfx_passthru",
        super::Type::FlagOrWord(&["igd"]),
        HVM,
        CHECKED,
        "The host's graphics card is the guest's first.",
    )
    .parts(libxl_parts::gfx_passthru),
    key(
        "vncviewer",
        Number(0, INT_MAX),
        ALL,
        State::Ignored("xl ignores it, too: xl create -V starts a viewer"),
        "A viewer of VNC is started.",
    ),
    key("keymap", Text, HVM_PV, READ, "Layout of the keyboard in VNC, such as de.").at("b_info.type.hvm.keymap"),
    key("sdl", Flag, HVM_PV, CHECKED, "A window on dom0's display.").at("b_info.type.hvm.sdl.enable"),
    key("opengl", Flag, HVM_PV, CHECKED, "OpenGL for that window.").at("b_info.type.hvm.sdl.opengl"),
    key("display", Text, HVM_PV, READ, "DISPLAY for that window.").at("b_info.type.hvm.sdl.display"),
    key("xauthority", Text, HVM_PV, READ, "XAUTHORITY for that window.").at("b_info.type.hvm.sdl.xauthority"),
    key("boot", Text, HVM, CHECKED, "Order of boot devices: a floppy, c disk, d CD, n network; cda without it.")
        .at("b_info.type.hvm.boot"),
    key("serial", super::Type::TextOrTexts, HVM, READ, "Serial ports, in QEMU's form.").parts(libxl_parts::serial),
    key("nographic", Flag, HVM, CHECKED, "No graphics card, and no display.").at("b_info.type.hvm.nographic"),
];
