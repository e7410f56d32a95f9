//! The keys of what the guest starts with: kernel, firmware, tables, processor and clocks.

use super::super::libxl_parts;
use super::Type::{Flag, FlagOrTexts, Number, Text, TextOrTexts, Texts, Word, WordOrNumber};
use super::{ALL, HVM, HVM_PVH, INT_MAX, Key, PVH, PVH_PV, State, key};

const CHECKED: State = State::Checked;
const READ: State = State::Read;

pub(super) const KEYS: &[Key] = &[
    key("kernel", Text, ALL, READ, "Kernel; of an HVM guest, QEMU starts it through the firmware.")
        .parts(libxl_parts::kernel),
    key("ramdisk", Text, ALL, READ, "Initial ramdisk of the kernel.").at("b_info.ramdisk"),
    key("cmdline", Text, ALL, CHECKED, "Command line of the kernel; root and extra have no effect with it.")
        .parts(libxl_parts::cmdline),
    key("root", Text, ALL, CHECKED, "The value of root= in the command line.").parts(libxl_parts::cmdline),
    key("extra", Text, ALL, CHECKED, "The rest of the command line.").parts(libxl_parts::cmdline),
    key(
        "firmware",
        Text,
        ALL,
        CHECKED,
        "HVM: seabios or bios, ovmf or uefi, or a path that replaces hvmloader. PVH, PV: pvgrub32 or pvgrub64.",
    )
    .parts(libxl_parts::firmware),
    key(
        "bios",
        Word(&["seabios", "ovmf", "rombios"]),
        HVM,
        CHECKED,
        "Firmware; seabios without it. rombios is refused: it needs QEMU's old fork.",
    )
    .parts(libxl_parts::bios),
    key("bios_path_override", Text, HVM, READ, "File of the firmware.").at("b_info.type.hvm.system_firmware"),
    key("firmware_override", Text, HVM, READ, "File that replaces hvmloader.").parts(libxl_parts::firmware_override),
    key(
        "bootloader",
        Text,
        PVH_PV,
        READ,
        "Program in dom0 that takes the kernel out of the first disk, such as pygrub.",
    )
    .at("b_info.bootloader"),
    key("bootloader_args", TextOrTexts, PVH_PV, READ, "Arguments of the boot loader.")
        .parts(libxl_parts::bootloader_args),
    key("bootloader_restrict", Flag, PVH_PV, CHECKED, "The boot loader runs without root's rights.")
        .at("b_info.bootloader_restrict")
        .of_4_20(),
    key("bootloader_user", Text, PVH_PV, READ, "User that runs the boot loader.")
        .at("b_info.bootloader_user")
        .of_4_20(),
    key("pvshim", Flag, PVH, CHECKED, "The kernel is a PV kernel, which runs under Xen's PV shim.")
        .at("b_info.type.pvh.pvshim"),
    key("pvshim_path", Text, PVH, READ, "File of the shim.").at("b_info.type.pvh.pvshim_path"),
    key("pvshim_cmdline", Text, PVH, READ, "Command line of the shim.").at("b_info.type.pvh.pvshim_cmdline"),
    key("pvshim_extra", Text, PVH, READ, "What is appended to the shim's command line.")
        .at("b_info.type.pvh.pvshim_extra"),
    key(
        "tsc_mode",
        WordOrNumber(&["default", "always_emulate", "native", "native_paravirt"]),
        ALL,
        CHECKED,
        "How the guest reads the TSC; native_paravirt is refused: Xen no longer has it.",
    )
    .word("b_info.tsc_mode", &[("default", "")]),
    key(
        "timer_mode",
        WordOrNumber(&[
            "delay_for_missed_ticks",
            "no_delay_for_missed_ticks",
            "no_missed_ticks_pending",
            "one_missed_tick_pending",
        ]),
        HVM_PVH,
        CHECKED,
        "How missed timer ticks are delivered; no_delay_for_missed_ticks without it.",
    )
    .at("b_info.timer_mode"),
    key("rtc_timeoffset", Number(-INT_MAX, INT_MAX), ALL, CHECKED, "Seconds by which its clock is ahead of UTC.")
        .parts(libxl_parts::rtc_timeoffset),
    key("localtime", Flag, ALL, CHECKED, "Its clock has dom0's local time.").at("b_info.localtime"),
    key("hpet", Flag, HVM, CHECKED, "A HPET is emulated; 1 without it.").at("b_info.type.hvm.hpet"),
    key("vpt_align", Flag, HVM, CHECKED, "Periodic timers are aligned; 1 without it.").at("b_info.type.hvm.vpt_align"),
    key("pae", Flag, HVM, CHECKED, "Physical address extension; 1 without it.").at("b_info.type.hvm.pae"),
    key("nx", Flag, HVM, CHECKED, "The no-execute bit; 1 without it.").at("b_info.type.hvm.nx"),
    key("apic", Flag, HVM, CHECKED, "An APIC; 1 without it.").parts(libxl_parts::apic),
    key("acpi", Flag, HVM_PVH, CHECKED, "ACPI tables; 1 without it.").at("b_info.acpi"),
    key("acpi_s3", Flag, HVM, CHECKED, "ACPI's sleep state S3; 1 without it.").at("b_info.type.hvm.acpi_s3"),
    key("acpi_s4", Flag, HVM, CHECKED, "ACPI's sleep state S4; 1 without it.").at("b_info.type.hvm.acpi_s4"),
    key("acpi_laptop_slate", Flag, HVM, CHECKED, "ACPI's switch of convertible laptops.")
        .at("b_info.type.hvm.acpi_laptop_slate"),
    key("nestedhvm", Flag, HVM_PVH, CHECKED, "The guest sees hardware virtualisation.").at("b_info.nested_hvm"),
    key(
        "viridian",
        FlagOrTexts,
        HVM,
        CHECKED,
        "Hyper-V's enlightenments: 1 is the usual set, a list names the groups.",
    )
    .parts(libxl_parts::viridian),
    key("cpuid", TextOrTexts, ALL, CHECKED, "CPUID: one text that begins with host, or a list in xend's form.")
        .parts(libxl_parts::cpuid),
    key("mca_caps", Texts, HVM, CHECKED, "Capabilities of machine checks: lmce.").parts(libxl_parts::mca_caps),
    key("ms_vm_genid", Word(&["generate", "none"]), HVM, CHECKED, "Generation ID of Windows guests.")
        .parts(libxl_parts::ms_vm_genid),
    key("smbios_firmware", Text, HVM, READ, "File with SMBIOS structures.").at("b_info.type.hvm.smbios_firmware"),
    key("acpi_firmware", Text, HVM, READ, "File with ACPI tables.").at("b_info.type.hvm.acpi_firmware"),
    key("smbios", Texts, HVM, CHECKED, "SMBIOS strings, each KEY=VALUE.").parts(libxl_parts::smbios).of_4_20(),
    key("hvm_pirq", Flag, HVM, CHECKED, "Interrupts of emulated devices by event channels.")
        .at("b_info.type.hvm.pirq")
        .of_4_20(),
    key("mmio_hole", Number(256, 2048), HVM, CHECKED, "MiB of the hole for devices below 4 GiB; xl takes up to 3840.")
        .kib("b_info.type.hvm.mmio_hole_memkb"),
    key(
        "videoram",
        Number(0, 512),
        HVM,
        CHECKED,
        "MiB of the graphics card; 8 for cirrus, 16 for stdvga, 128 for qxl without it.",
    )
    .kib("b_info.video_memkb"),
    key(
        "rdm",
        Text,
        HVM,
        CHECKED,
        "How memory is laid out around regions that the host reserves: strategy=host. xl ignores a value with policy=.",
    )
    .parts(libxl_parts::rdm),
    key("rdm_mem_boundary", Number(0, INT_MAX), HVM, CHECKED, "MiB below which such regions must not be.")
        .kib("b_info.type.hvm.rdm_mem_boundary_memkb"),
];
