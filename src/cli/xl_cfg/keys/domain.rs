//! The keys of the domain itself: its name, memory, vCPUs, and what Xen gives it.

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

pub(super) const KEYS: &[Key] = &[
    key("name", Text, ALL, CHECKED, "Name of the guest."),
    key("type", Word(&["hvm", "pvh", "pv"]), ALL, CHECKED, "Kind of guest; pv without it."),
    key("builder", Word(&["hvm", "generic"]), ALL, CHECKED, "Kind of guest; generic is pv.").instead("type"),
    key("uuid", Text, ALL, CHECKED, "UUID; a random one without it."),
    key("seclabel", Text, ALL, READ, "FLASK label."),
    key("init_seclabel", Text, ALL, READ, "FLASK label until the guest is complete; seclabel replaces it then."),
    key("pool", Text, ALL, READ, "CPU pool, by name or number."),
    key(
        "memory",
        Number(1, 16_777_214),
        ALL,
        CHECKED,
        "MiB that the guest runs with; maxmem without it, 32 without both.",
    ),
    key("maxmem", Number(1, 16_777_214), ALL, CHECKED, "MiB that it may grow to; memory without it."),
    key("vcpus", Number(1, 128), ALL, CHECKED, "vCPUs that are online at the start; 1 without it."),
    key("maxvcpus", Number(1, 128), ALL, CHECKED, "vCPUs that it has; vcpus without it."),
    key("cpus", TextOrTexts, ALL, CHECKED, "CPUs that the vCPUs may run on; a list has one entry for each vCPU."),
    key("cpus_soft", TextOrTexts, ALL, CHECKED, "CPUs that the vCPUs run on by preference."),
    key("cpu_weight", Number(1, 65_535), ALL, CHECKED, "Weight against other guests."),
    key("cap", Number(0, 12_800), ALL, CHECKED, "Limit in percent of one CPU; 0 is none."),
    key("period", Number(0, INT_MAX), ALL, RTDS, "Period, in microseconds."),
    key("budget", Number(0, INT_MAX), ALL, RTDS, "Time in each period, in microseconds."),
    key("slice", Number(0, INT_MAX), ALL, SEDF, "Slice of time."),
    key("latency", Number(0, INT_MAX), ALL, SEDF, "Latency."),
    key("extratime", Number(0, INT_MAX), ALL, RTDS, "Time beyond the budget."),
    key("vnuma", Lists, HVM_PVH, READ, "NUMA nodes that the guest sees, each a list of KEY=VALUE."),
    key("max_event_channels", Number(16, 131_071), ALL, CHECKED, "Highest event channel port; 1023 without it."),
    key("max_grant_frames", Number(1, INT_MAX), ALL, CHECKED, "Most frames of the grant table."),
    key("max_maptrack_frames", Number(0, INT_MAX), ALL, CHECKED, "Most frames of the maptrack table."),
    key("max_grant_version", Number(1, 2), ALL, CHECKED, "Highest version of the grant table."),
    key("nomigrate", Flag, ALL, CHECKED, "The guest never migrates: its TSC is invariant."),
    key("driver_domain", Flag, ALL, CHECKED, "The guest may serve devices to others."),
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
    ),
    key("xend_suspend_evtchn_compat", Flag, ALL, CHECKED, "The guest may write its directory of devices in xenstore."),
    key("vpmu", Flag, ALL, CHECKED, "Performance counters."),
    key("vmtrace_buf_kb", Number(0, INT_MAX), ALL, CHECKED, "KiB of the processor trace of each vCPU."),
    key(
        "oos",
        Flag,
        HVM_PVH,
        State::Ignored("it is for shadow paging, and dombuild builds under HAP"),
        "Out-of-sync shadow pages.",
    ),
    key("hap", Flag, HVM_PVH, CHECKED, "Hardware-assisted paging; 0 is refused: dombuild builds under HAP only."),
    key(
        "altp2m",
        super::Type::WordOrNumber(&["disabled", "mixed", "external", "limited"]),
        HVM_PVH,
        CHECKED,
        "Alternate memory maps.",
    ),
    key("altp2mhvm", Flag, HVM, CHECKED, "Alternate memory maps.").instead("altp2m"),
    key("msr_relaxed", Flag, ALL, CHECKED, "Unknown MSRs are read as 0, as Xen did before 4.15."),
    key("on_poweroff", ON_END, ALL, CHECKED, "What follows a shutdown; destroy without it."),
    key("on_reboot", ON_END, ALL, CHECKED, "What follows a reboot; restart without it."),
    key("on_watchdog", ON_END, ALL, CHECKED, "What follows the watchdog; destroy without it."),
    key("on_crash", ON_END, ALL, CHECKED, "What follows a crash; destroy without it."),
    key("on_soft_reset", ON_END, ALL, CHECKED, "What follows a soft reset; soft-reset without it."),
    key("shadow_memory", Number(1, 4_194_303), HVM_PVH, CHECKED, "MiB of the paging pool; by a formula without it."),
    key("e820_host", Flag, PV, CHECKED, "The guest sees the host's memory map."),
];
