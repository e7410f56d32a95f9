//! The keys of QEMU: the device model, its emulated devices and displays.

use super::super::libxl_parts;
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
    )
    .word("b_info.device_model_version", &[("qemu-xen", "qemu_xen")]),
    key("device_model_override", Text, ALL, READ, "File of QEMU.").at("b_info.device_model"),
    key("device_model_user", Text, ALL, READ, "User that runs QEMU.").at("b_info.device_model_user"),
    key("device_model_args", Texts, ALL, READ, "Further arguments of QEMU.").at("b_info.extra"),
    key("device_model_args_hvm", Texts, HVM, READ, "Further arguments of QEMU for HVM guests.").at("b_info.extra_hvm"),
    key("device_model_args_pv", Texts, ALL, READ, "Further arguments of the QEMU that serves PV devices.")
        .at("b_info.extra_pv"),
    key("device_model", Text, ALL, State::Ignored("xl ignores it, too"), "File of QEMU.")
        .instead("device_model_override"),
    key("dm_restrict", Flag, HVM, CHECKED, "QEMU runs without root's rights.").at("b_info.dm_restrict"),
    key(
        "device_model_stubdomain_override",
        Flag,
        HVM,
        CHECKED,
        "QEMU runs in a stub domain; 1 is refused: dombuild runs QEMU in dom0.",
    )
    .at("b_info.device_model_stubdomain"),
    key("device_model_stubdomain_seclabel", Text, HVM, STUB, "FLASK label of the stub domain."),
    key("stubdomain_kernel", Text, HVM, STUB, "Kernel of the stub domain."),
    key("stubdomain_ramdisk", Text, HVM, STUB, "Ramdisk of the stub domain."),
    key("stubdomain_cmdline", Text, HVM, STUB, "Command line of the stub domain."),
    key("stubdomain_memory", Number(1, 16_777_214), HVM, STUB, "MiB of the stub domain."),
    key("vga", Word(&["stdvga", "cirrus", "qxl", "none"]), HVM, CHECKED, "Graphics card; cirrus without it.")
        .parts(libxl_parts::vga),
    key("stdvga", Flag, HVM, CHECKED, "1 is vga = \"stdvga\", 0 is cirrus.").parts(libxl_parts::stdvga).instead("vga"),
    key("hdtype", Word(&["ide", "ahci"]), HVM, CHECKED, "Controller of the disks; ide without it.")
        .word("b_info.type.hvm.hdtype", &[("ide", "")]),
    key("xen_platform_pci", Flag, HVM, CHECKED, "Xen's PCI device; 1 without it.")
        .at("b_info.type.hvm.xen_platform_pci"),
    key("vendor_device", Word(&["none", "xenserver"]), HVM, CHECKED, "PCI device of a vendor, for its drivers.")
        .word("b_info.type.hvm.vendor_device", &[("none", "")]),
    key("usb", Flag, HVM, CHECKED, "An emulated USB controller.").at("b_info.type.hvm.usb"),
    key("usbdevice", TextOrTexts, HVM, READ, "Emulated USB devices, such as tablet.").parts(libxl_parts::usbdevice),
    key("usbversion", Number(1, 3), HVM, CHECKED, "Version of emulated USB: 1, 2 or 3.")
        .at("b_info.type.hvm.usbversion"),
    key("soundhw", Text, HVM, READ, "An emulated sound card, such as hda.").at("b_info.type.hvm.soundhw"),
    key("spice", Flag, HVM, CHECKED, "SPICE shows the graphics card.").at("b_info.type.hvm.spice.enable"),
    key("spicehost", Text, HVM, READ, "Address on which SPICE listens.").at("b_info.type.hvm.spice.host"),
    key("spiceport", Number(0, 65_535), HVM, CHECKED, "Port of SPICE without TLS.").at("b_info.type.hvm.spice.port"),
    key("spicetls_port", Number(0, 65_535), HVM, CHECKED, "Port of SPICE with TLS.")
        .at("b_info.type.hvm.spice.tls_port"),
    key("spicedisable_ticketing", Flag, HVM, CHECKED, "SPICE asks for no password.")
        .at("b_info.type.hvm.spice.disable_ticketing"),
    key("spicepasswd", Text, HVM, READ, "Password of SPICE.").at("b_info.type.hvm.spice.passwd"),
    key("spiceagent_mouse", Flag, HVM, CHECKED, "SPICE's agent moves the pointer; 1 without it.")
        .at("b_info.type.hvm.spice.agent_mouse"),
    key("spicevdagent", Flag, HVM, CHECKED, "SPICE's agent is there.").at("b_info.type.hvm.spice.vdagent"),
    key("spice_clipboard_sharing", Flag, HVM, CHECKED, "The clipboard is shared.")
        .at("b_info.type.hvm.spice.clipboard_sharing"),
    key("spiceusbredirection", Number(0, 4), HVM, CHECKED, "Number of USB devices that SPICE redirects.")
        .at("b_info.type.hvm.spice.usbredirection"),
    key("spice_image_compression", Text, HVM, READ, "How SPICE compresses images.")
        .at("b_info.type.hvm.spice.image_compression"),
    key("spice_streaming_video", Text, HVM, READ, "How SPICE streams video.")
        .at("b_info.type.hvm.spice.streaming_video"),
];
