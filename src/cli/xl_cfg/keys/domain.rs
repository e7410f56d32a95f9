//! The keys of the domain itself: its name, memory, vCPUs, and what Xen gives it.

use super::super::libxl_parts;
use super::Type::{Flag, Lists, Number, Text, TextOrTexts, Texts, Word};
use super::{ALL, HVM, HVM_PVH, INT_MAX, Key, PV, State, key};

const CHECKED: State = State::Checked;
const READ: State = State::Read;
const ARM: State = State::Refused("it is for Arm, and dombuild builds guests on x86; xl ignores it there");
const RTDS: State = State::Ignored("it is for the scheduler rtds, and dombuild sets weight and cap only");
const SEDF: State = State::Ignored("it was for the scheduler sedf, which Xen no longer has");

/// What happens to a guest that has ended.
const ON_END: super::Type =
    Word(&["destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart", "soft-reset"]);

/// libxl's names of what happens to a guest that has ended; it is destroyed where nothing is said.
const ACTIONS: &[(&str, &str)] = &[
    ("destroy", ""),
    ("rename-restart", "restart_rename"),
    ("coredump-destroy", "coredump_destroy"),
    ("coredump-restart", "coredump_restart"),
    ("soft-reset", "soft_reset"),
];

pub(super) const KEYS: &[Key] = &[
    key("name", Text, ALL, CHECKED, "Name of the guest.").at("c_info.name"),
    key("type", Word(&["hvm", "pvh", "pv"]), ALL, CHECKED, "Kind of guest; pv without it."),
    key("builder", Word(&["hvm", "generic"]), ALL, CHECKED, "Kind of guest; generic is pv.").instead("type"),
    key("uuid", Text, ALL, CHECKED, "UUID; a random one without it.").parts(libxl_parts::uuid),
    key("seclabel", Text, ALL, READ, "FLASK label.").parts(libxl_parts::seclabel),
    key("init_seclabel", Text, ALL, READ, "FLASK label until the guest is complete; seclabel replaces it then.")
        .parts(libxl_parts::seclabel),
    key("pool", Text, ALL, READ, "CPU pool, by name or number.").at("c_info.pool_name"),
    key(
        "memory",
        Number(1, 16_777_214),
        ALL,
        CHECKED,
        "MiB that the guest runs with; maxmem without it, 32 without both.",
    )
    .kib("b_info.target_memkb"),
    key("maxmem", Number(1, 16_777_214), ALL, CHECKED, "MiB that it may grow to; memory without it.")
        .parts(libxl_parts::maxmem),
    key("vcpus", Number(1, 128), ALL, CHECKED, "vCPUs that are online at the start; 1 without it.")
        .parts(libxl_parts::vcpus),
    key("maxvcpus", Number(1, 128), ALL, CHECKED, "vCPUs that it has; vcpus without it.").parts(libxl_parts::maxvcpus),
    key("cpus", TextOrTexts, ALL, CHECKED, "CPUs that the vCPUs may run on; a list has one entry for each vCPU.")
        .parts(libxl_parts::cpus),
    key("cpus_soft", TextOrTexts, ALL, CHECKED, "CPUs that the vCPUs run on by preference.")
        .parts(libxl_parts::cpus_soft),
    key("cpu_weight", Number(1, 65_535), ALL, CHECKED, "Weight against other guests.")
        .number("b_info.sched_params.weight"),
    key("cap", Number(0, 12_800), ALL, CHECKED, "Limit in percent of one CPU; 0 is none.")
        .number("b_info.sched_params.cap"),
    key("period", Number(0, INT_MAX), ALL, RTDS, "Period, in microseconds.").number("b_info.sched_params.period"),
    key("budget", Number(0, INT_MAX), ALL, RTDS, "Time in each period, in microseconds."),
    key("slice", Number(0, INT_MAX), ALL, SEDF, "Slice of time.").number("b_info.sched_params.slice"),
    key("latency", Number(0, INT_MAX), ALL, SEDF, "Latency.").number("b_info.sched_params.latency"),
    key("extratime", Number(0, INT_MAX), ALL, RTDS, "Time beyond the budget.").number("b_info.sched_params.extratime"),
    key("vnuma", Lists, HVM_PVH, CHECKED, "NUMA nodes that the guest sees, each a list of KEY=VALUE.")
        .parts(libxl_parts::vnuma),
    key("max_event_channels", Number(16, 131_071), ALL, CHECKED, "Highest event channel port; 1023 without it.")
        .at("b_info.event_channels"),
    key("max_grant_frames", Number(1, INT_MAX), ALL, CHECKED, "Most frames of the grant table.")
        .number("b_info.max_grant_frames"),
    key("max_maptrack_frames", Number(0, INT_MAX), ALL, CHECKED, "Most frames of the maptrack table.")
        .number("b_info.max_maptrack_frames"),
    key("max_grant_version", Number(1, 2), ALL, CHECKED, "Highest version of the grant table.")
        .number("b_info.max_grant_version"),
    key("nomigrate", Flag, ALL, CHECKED, "The guest never migrates: its TSC is invariant.")
        .at("b_info.disable_migrate"),
    key("driver_domain", Flag, ALL, CHECKED, "The guest may serve devices to others.").at("c_info.driver_domain"),
    key("device_tree", Text, ALL, ARM, "Part of the device tree."),
    key("dtdev", Texts, ALL, ARM, "Devices of the device tree."),
    key("gic_version", Text, ALL, ARM, "Version of the interrupt controller."),
    key("tee", Text, ALL, ARM, "Trusted execution environment."),
    key("vuart", Text, ALL, ARM, "Emulated UART."),
    key("sve", Text, ALL, ARM, "Length of the vectors of SVE.").of_4_20(),
    key("nr_spis", Number(0, INT_MAX), ALL, ARM, "Number of shared interrupts.").of_4_20(),
    key("llc_colors", TextOrTexts, ALL, ARM, "Colours of the last-level cache.").of_4_20(),
    key(
        "passthrough",
        Word(&["disabled", "enabled", "sync_pt", "share_pt"]),
        ALL,
        CHECKED,
        "IOMMU for the guest; enabled where pci names devices.",
    )
    .at("c_info.passthrough"),
    key("xend_suspend_evtchn_compat", Flag, ALL, CHECKED, "The guest may write its directory of devices in xenstore.")
        .at("c_info.xend_suspend_evtchn_compat"),
    key("vpmu", Flag, ALL, CHECKED, "Performance counters.").at("b_info.vpmu"),
    key("vmtrace_buf_kb", Number(0, INT_MAX), ALL, CHECKED, "KiB of the processor trace of each vCPU.")
        .at("b_info.vmtrace_buf_kb"),
    key(
        "oos",
        Flag,
        HVM_PVH,
        State::Ignored("it is for shadow paging, and dombuild builds under HAP"),
        "Out-of-sync shadow pages.",
    )
    .at("c_info.oos"),
    key("hap", Flag, HVM_PVH, CHECKED, "Hardware-assisted paging; 0 is refused: dombuild builds under HAP only.")
        .at("c_info.hap"),
    key(
        "altp2m",
        super::Type::WordOrNumber(&["disabled", "mixed", "external", "limited"]),
        HVM_PVH,
        CHECKED,
        "Alternate memory maps.",
    )
    .word("b_info.altp2m", &[("disabled", "")]),
    key("altp2mhvm", Flag, HVM, CHECKED, "Alternate memory maps.").at("b_info.type.hvm.altp2m").instead("altp2m"),
    key("msr_relaxed", Flag, ALL, CHECKED, "Unknown MSRs are read as 0, as Xen did before 4.15.")
        .at("b_info.arch_x86.msr_relaxed"),
    key("on_poweroff", ON_END, ALL, CHECKED, "What follows a shutdown; destroy without it.")
        .word("on_poweroff", ACTIONS),
    key("on_reboot", ON_END, ALL, CHECKED, "What follows a reboot; restart without it.").word("on_reboot", ACTIONS),
    key("on_watchdog", ON_END, ALL, CHECKED, "What follows the watchdog; destroy without it.")
        .word("on_watchdog", ACTIONS),
    key("on_crash", ON_END, ALL, CHECKED, "What follows a crash; destroy without it.").word("on_crash", ACTIONS),
    key("on_soft_reset", ON_END, ALL, CHECKED, "What follows a soft reset; soft-reset without it.")
        .word("on_soft_reset", ACTIONS),
    key("shadow_memory", Number(1, 4_194_303), HVM_PVH, CHECKED, "MiB of the paging pool; by a formula without it.")
        .kib("b_info.shadow_memkb"),
    key("e820_host", Flag, PV, CHECKED, "The guest sees the host's memory map.").at("b_info.type.pv.e820_host"),
];
