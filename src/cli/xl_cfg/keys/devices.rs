//! The keys of devices that a backend in dom0 or another domain serves, and of the host's own devices.

use super::Type::{Flag, Lists, Number, Text, Texts};
use super::{ALL, HVM, HVM_PV, INT_MAX, Key, PVH_PV, State, key};

const CHECKED: State = State::Checked;
const READ: State = State::Read;
const PORT: super::Type = Number(0, 59_635);

pub(super) const KEYS: &[Key] = &[
    key("disk", Texts, ALL, CHECKED, "Disks and CD drives ([devices](devices.md))."),
    key("vif", Texts, ALL, CHECKED, "Network cards ([devices](devices.md)); xl ignores words that it does not know."),
    key("vif2", Texts, ALL, State::Ignored("xl ignores it, too: give vif"), "Network cards of another kind."),
    key("vfb", Texts, PVH_PV, CHECKED, "Framebuffer, keyboard and pointer ([devices](devices.md))."),
    key("vkb", Texts, ALL, READ, "Keyboards and pointers."),
    key("vnc", Flag, HVM_PV, CHECKED, "VNC shows the graphics card; of a PV guest without vfb, a framebuffer."),
    key("vncdisplay", PORT, HVM_PV, CHECKED, "Display of VNC: the port less 5900."),
    key("vnclisten", Text, HVM_PV, CHECKED, "Address on which VNC listens; 127.0.0.1 without it."),
    key("vncunused", Flag, HVM_PV, CHECKED, "The next free display is taken where this one is in use; 1 without it."),
    key("vncpasswd", Text, HVM_PV, CHECKED, "Password of VNC, of which it compares 8 bytes."),
    key("p9", Texts, ALL, CHECKED, "Directories that the guest mounts by 9pfs ([devices](devices.md))."),
    key("channel", Texts, ALL, CHECKED, "Further consoles ([devices](devices.md))."),
    key("vtpm", Texts, ALL, CHECKED, "TPMs that a domain serves."),
    key("pvcalls", Texts, ALL, CHECKED, "Sockets that a domain serves."),
    key("vdispl", Texts, ALL, CHECKED, "Displays that a domain serves."),
    key("vsnd", Lists, ALL, READ, "Sound cards that a domain serves."),
    key("virtio", Texts, ALL, State::Refused("it is for Arm: x86 has no transport for it"), "Virtio devices.")
        .of_4_20(),
    key("usbctrl", Texts, ALL, READ, "USB controllers."),
    key("usbdev", Texts, ALL, READ, "USB devices of the host."),
    key("pci", Texts, ALL, READ, "PCI devices of the host."),
    key("pci_msitranslate", Flag, ALL, CHECKED, "msitranslate of every device in pci."),
    key("pci_power_mgmt", Flag, ALL, CHECKED, "power_mgmt of every device in pci."),
    key("pci_permissive", Flag, ALL, CHECKED, "permissive of every device in pci."),
    key("pci_seize", Flag, ALL, CHECKED, "seize of every device in pci."),
    key("ioports", Texts, ALL, READ, "I/O ports of the host, in hexadecimal: 2f8-2ff."),
    key("irqs", Texts, ALL, READ, "Interrupts of the host."),
    key("iomem", Texts, ALL, READ, "Pages of the host's I/O memory, in hexadecimal: START,COUNT[@GFN]."),
    key("vkb_device", Flag, HVM, CHECKED, "A paravirtual keyboard; 1 without it."),
    key(
        "gfx_passthru",
        super::Type::FlagOrWord(&["igd"]),
        HVM,
        CHECKED,
        "The host's graphics card is the guest's first.",
    ),
    key(
        "vncviewer",
        Number(0, INT_MAX),
        ALL,
        State::Ignored("xl ignores it, too: xl create -V starts a viewer"),
        "A viewer of VNC is started.",
    ),
    key("keymap", Text, HVM_PV, READ, "Layout of the keyboard in VNC, such as de."),
    key("sdl", Flag, HVM_PV, CHECKED, "A window on dom0's display."),
    key("opengl", Flag, HVM_PV, CHECKED, "OpenGL for that window."),
    key("display", Text, HVM_PV, READ, "DISPLAY for that window."),
    key("xauthority", Text, HVM_PV, READ, "XAUTHORITY for that window."),
    key("boot", Text, HVM, CHECKED, "Order of boot devices: a floppy, c disk, d CD, n network; cda without it."),
    key("serial", super::Type::TextOrTexts, HVM, READ, "Serial ports, in QEMU's form."),
    key("nographic", Flag, HVM, CHECKED, "No graphics card, and no display."),
];
