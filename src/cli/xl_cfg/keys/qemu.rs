//! The keys of QEMU: the device model, its emulated devices and displays.

use super::Type::{Flag, Number, Text, TextOrTexts, Texts, Word};
use super::{ALL, HVM, Key, State, key};

const CHECKED: State = State::Checked;
const READ: State = State::Read;
const STUB: State = State::Refused("it is for a stub domain, and dombuild runs QEMU in dom0");

pub(super) const KEYS: &[Key] = &[
    key(
        "device_model_version",
        Word(&["qemu-xen", "qemu-xen-traditional"]),
        ALL,
        CHECKED,
        "Which QEMU; qemu-xen-traditional is refused: Debian does not have QEMU's old fork.",
    ),
    key("device_model_override", Text, ALL, READ, "File of QEMU."),
    key("device_model_user", Text, ALL, READ, "User that runs QEMU."),
    key("device_model_args", Texts, ALL, READ, "Further arguments of QEMU."),
    key("device_model_args_hvm", Texts, HVM, READ, "Further arguments of QEMU for HVM guests."),
    key("device_model_args_pv", Texts, ALL, READ, "Further arguments of the QEMU that serves PV devices."),
    key("device_model", Text, ALL, State::Ignored("xl ignores it, too"), "File of QEMU.")
        .instead("device_model_override"),
    key("dm_restrict", Flag, HVM, CHECKED, "QEMU runs without root's rights."),
    key(
        "device_model_stubdomain_override",
        Flag,
        HVM,
        CHECKED,
        "QEMU runs in a stub domain; 1 is refused: dombuild runs QEMU in dom0.",
    ),
    key("device_model_stubdomain_seclabel", Text, HVM, STUB, "FLASK label of the stub domain."),
    key("stubdomain_kernel", Text, HVM, STUB, "Kernel of the stub domain."),
    key("stubdomain_ramdisk", Text, HVM, STUB, "Ramdisk of the stub domain."),
    key("stubdomain_cmdline", Text, HVM, STUB, "Command line of the stub domain."),
    key("stubdomain_memory", Number(1, 16_777_214), HVM, STUB, "MiB of the stub domain."),
    key("vga", Word(&["stdvga", "cirrus", "qxl", "none"]), HVM, CHECKED, "Graphics card; cirrus without it."),
    key("stdvga", Flag, HVM, CHECKED, "1 is vga = \"stdvga\", 0 is cirrus.").instead("vga"),
    key("hdtype", Word(&["ide", "ahci"]), HVM, CHECKED, "Controller of the disks; ide without it."),
    key("xen_platform_pci", Flag, HVM, CHECKED, "Xen's PCI device; 1 without it."),
    key("vendor_device", Word(&["none", "xenserver"]), HVM, CHECKED, "PCI device of a vendor, for its drivers."),
    key("usb", Flag, HVM, CHECKED, "An emulated USB controller."),
    key("usbdevice", TextOrTexts, HVM, READ, "Emulated USB devices, such as tablet."),
    key("usbversion", Number(1, 3), HVM, CHECKED, "Version of emulated USB: 1, 2 or 3."),
    key("soundhw", Text, HVM, READ, "An emulated sound card, such as hda."),
    key("spice", Flag, HVM, CHECKED, "SPICE shows the graphics card."),
    key("spicehost", Text, HVM, READ, "Address on which SPICE listens."),
    key("spiceport", Number(0, 65_535), HVM, CHECKED, "Port of SPICE without TLS."),
    key("spicetls_port", Number(0, 65_535), HVM, CHECKED, "Port of SPICE with TLS."),
    key("spicedisable_ticketing", Flag, HVM, CHECKED, "SPICE asks for no password."),
    key("spicepasswd", Text, HVM, READ, "Password of SPICE."),
    key("spiceagent_mouse", Flag, HVM, CHECKED, "SPICE's agent moves the pointer; 1 without it."),
    key("spicevdagent", Flag, HVM, CHECKED, "SPICE's agent is there."),
    key("spice_clipboard_sharing", Flag, HVM, CHECKED, "The clipboard is shared."),
    key("spiceusbredirection", Number(0, 4), HVM, CHECKED, "Number of USB devices that SPICE redirects."),
    key("spice_image_compression", Text, HVM, READ, "How SPICE compresses images."),
    key("spice_streaming_video", Text, HVM, READ, "How SPICE streams video."),
];
