//! The table of settings: the one place that knows their names, their values, their defaults and their effects.

use super::Platform;
use super::setting::Setting;
use super::value::{cpu_map, featureset, number_within, truth};
use super::viridian::{self, Viridian};
use crate::payload::search::FirmwareKind;
use crate::xen::enlightenment;

const BOOLEAN: &str = "true or false, or a number, of which 0 is false";

/// Every setting. The first one comes first: the number of vCPUs is needed for theirs.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "platform/vcpu/number",
        others: &["platform/vcpu_number"],
        values: "1 to 128",
        absent: "",
        usual: "",
        flag: Some("--vcpus"),
        effect: "the number of vCPUs; must be there, and be no more than `xc_domain_max_vcpus` made",
        seen: "`nr_vcpus` in hvm_info",
        apply: |platform, _, text| put(&mut platform.vcpus, number_within(text, 1, 128).map(Some)),
    },
    Setting {
        name: "platform/vcpu/current",
        others: &["platform/vcpu_current"],
        values: "1 to the number of vCPUs",
        absent: "",
        usual: "",
        flag: None,
        effect: "how many vCPUs are online at the start; where it is not told, all",
        seen: "`vcpu_online` in hvm_info",
        apply: |platform, _, text| put(&mut platform.online_vcpus, number_within(text, 1, 128).map(Some)),
    },
    Setting {
        name: "platform/vcpu/N/affinity",
        others: &[],
        values: "one 0 or 1 for each CPU of the host, CPU 0 first",
        absent: "",
        usual: "",
        flag: None,
        effect: "the CPUs that vCPU N may run on (hard affinity); what is beyond the host's CPUs does not count",
        seen: "`xl vcpu-list`",
        apply: |platform, vcpu, text| {
            platform.affinity.insert(vcpu, cpu_map(text)?);
            Ok(())
        },
    },
    Setting {
        name: "platform/vcpu/weight",
        others: &[],
        values: "1 to 65535, or 0 for the scheduler's own",
        absent: "",
        usual: "",
        flag: None,
        effect: "the domain's weight, under the schedulers credit and credit2",
        seen: "`xl sched-credit2`, `xl sched-credit`",
        apply: |platform, _, text| put(&mut platform.weight, number_within(text, 0, 65_535).map(positive)),
    },
    Setting {
        name: "platform/vcpu/cap",
        others: &[],
        values: "percent of one CPU, 1 to 65535, or 0 for none",
        absent: "",
        usual: "",
        flag: None,
        effect: "the most CPU time that the domain gets, under the schedulers credit and credit2",
        seen: "`xl sched-credit2`, `xl sched-credit`",
        apply: |platform, _, text| put(&mut platform.cap, number_within(text, 0, 65_535).map(positive)),
    },
    Setting {
        name: "platform/nx",
        others: &[],
        values: BOOLEAN,
        absent: "false",
        usual: "true",
        flag: None,
        effect: "the guest's CPUs have the no-execute bit",
        seen: "CPUID leaf 0x80000001, EDX bit 20 (`xen-cpuid -p`)",
        apply: |platform, _, text| put(&mut platform.nx, truth(text)),
    },
    boolean(
        "platform/pae",
        [NO, YES],
        "the guest's CPUs have physical address extension; without it there is no long mode either",
        "CPUID leaf 1, EDX bit 6",
        |platform, _, text| put(&mut platform.pae, truth(text)),
    ),
    Setting {
        name: "platform/featureset",
        others: &[],
        values: "32-bit words in hexadecimal, with - or : between them",
        absent: "",
        usual: "",
        flag: None,
        effect: "the features that the guest's CPUs may have; where it is not told, what Xen gives guests of this kind. More words \
                 than this Xen knows must be 0",
        seen: "CPUID (`xen-cpuid -p`)",
        apply: |platform, _, text| put(&mut platform.featureset, featureset(text).map(Some)),
    },
    Setting {
        name: "platform/cores-per-socket",
        others: &[],
        values: "a number that divides that of the vCPUs, or 0 for Xen's own topology",
        absent: "",
        usual: "",
        flag: None,
        effect: "HVM and PVH: how many vCPUs a socket shows",
        seen: "CPUID leaves 1, 4 (Intel), 0x80000001 and 0x80000008 (AMD)",
        apply: |platform, _, text| put(&mut platform.cores_per_socket, number_within(text, 0, 128).map(positive)),
    },
    Setting {
        name: "platform/nested-virt",
        others: &["platform/exp-nested-hvm", "platform/nested"],
        values: BOOLEAN,
        absent: "false",
        usual: "false",
        flag: None,
        effect: "the guest's CPUs have VMX or SVM. `create` makes the domain for that; one that was given must have been \
                 made so. Counts as nomigrate; never together with populate on demand",
        seen: "CPUID leaf 1, ECX bit 5, or leaf 0x80000001, ECX bit 2",
        apply: |platform, _, text| put(&mut platform.nested, truth(text)),
    },
    Setting {
        name: "platform/nomigrate",
        others: &[],
        values: BOOLEAN,
        absent: "false",
        usual: "false",
        flag: None,
        effect: "the guest will never migrate: an invariant TSC is promised where the host has one",
        seen: "CPUID leaf 0x80000007, EDX bit 8",
        apply: |platform, _, text| put(&mut platform.nomigrate, truth(text)),
    },
    Setting {
        name: "platform/viridian",
        others: &[],
        values: "true or false, or a number, of which 0 is false; or the words of xl's `viridian` with commas between them, \
                 as `defaults,!freq,synic`",
        absent: NO,
        usual: NO,
        flag: None,
        effect: "the guest sees Hyper-V. `true`, HVM and PVH: its base set with frequencies, and hotplug of vCPUs; without \
                 it none of the next count. Words, HVM: exactly what xl gives for them",
        seen: "`HVM_PARAM_VIRIDIAN` (9)",
        apply: |platform, _, text| match truth(text) {
            Ok(shown) => {
                platform.viridian = Viridian { shown, exact: None, ..platform.viridian };
                Ok(())
            }
            Err(_) => put(&mut platform.viridian.exact, viridian::of_words(text).map(Some)),
        },
    },
    enlightenment("platform/viridian_time_ref_count", "… and its reference counter", |platform, _, text| {
        enlighten(platform, text, enlightenment::TIME_REF_COUNT)
    }),
    enlightenment("platform/viridian_reference_tsc", "… and its reference TSC page", |platform, _, text| {
        enlighten(platform, text, enlightenment::REFERENCE_TSC)
    }),
    enlightenment(
        "platform/viridian_hcall_remote_tlb_flush",
        "… and its hypercall to flush other vCPUs' TLBs",
        |platform, _, text| enlighten(platform, text, enlightenment::HCALL_REMOTE_TLB_FLUSH),
    ),
    enlightenment("platform/viridian_apic_assist", "… and its APIC assist page", |platform, _, text| {
        enlighten(platform, text, enlightenment::APIC_ASSIST)
    }),
    enlightenment("platform/viridian_crash_ctl", "… and its MSRs to report a crash", |platform, _, text| {
        enlighten(platform, text, enlightenment::CRASH_CTL)
    }),
    enlightenment(
        "platform/viridian_hcall_ipi",
        "… and its hypercall to interrupt other vCPUs",
        |platform, _, text| enlighten(platform, text, enlightenment::HCALL_IPI),
    ),
    enlightenment(
        "platform/viridian_stimer",
        "… and its synthetic timer and interrupt controller; with a vGPU they come with the reference clocks unless \
         this says false",
        |platform, _, text| put(&mut platform.viridian.stimer, truth(text).map(Some)),
    ),
    boolean(
        "platform/apic",
        [NO, YES],
        "HVM: hvmloader describes an I/O APIC",
        "`apic_mode` in hvm_info",
        |platform, _, text| put(&mut platform.apic, truth(text)),
    ),
    boolean(
        "platform/acpi",
        [NO, YES],
        "HVM: hvmloader makes ACPI tables. hvmloader reads this node itself and knows 0 and 1 alone, so it is rewritten to \
                 that, and written where it is missing",
        "the node, and hvmloader's lines in `xl dmesg`",
        |platform, _, text| put(&mut platform.acpi, truth(text)),
    ),
    boolean(
        "platform/acpi_s3",
        [NO, YES],
        "HVM: the ACPI tables offer sleep state S3; rewritten as platform/acpi is",
        "the node",
        |platform, _, text| put(&mut platform.acpi_s3, truth(text)),
    ),
    boolean(
        "platform/acpi_s4",
        [NO, YES],
        "HVM: the ACPI tables offer sleep state S4; rewritten as platform/acpi is",
        "the node",
        |platform, _, text| put(&mut platform.acpi_s4, truth(text)),
    ),
    Setting {
        name: "platform/tsc_mode",
        others: &[],
        values: "0 default, 1 always emulated, 2 never",
        absent: "0",
        usual: "0",
        flag: None,
        effect: "whether reading the TSC is emulated",
        seen: "`xl debug-keys s`",
        apply: |platform, _, text| put(&mut platform.tsc_mode, number_within(text, 0, 2)),
    },
    Setting {
        name: "platform/hpet",
        others: &[],
        values: BOOLEAN,
        absent: "true",
        usual: "true",
        flag: None,
        effect: "HVM: a HPET is emulated",
        seen: "`HVM_PARAM_HPET_ENABLED` (11)",
        apply: |platform, _, text| put(&mut platform.hpet, truth(text)),
    },
    Setting {
        name: "platform/timer_mode",
        others: &["platform/timer-mode"],
        values: "0 to 3 (`HVMPTM_*`)",
        absent: "",
        usual: "1",
        flag: None,
        effect: "HVM and PVH: how timer ticks are delivered that a guest has missed",
        seen: "`HVM_PARAM_TIMER_MODE` (10)",
        apply: |platform, _, text| put(&mut platform.timer_mode, number_within(text, 0, 3).map(Some)),
    },
    Setting {
        name: "platform/vpt-align",
        others: &["platform/vpt_align"],
        values: BOOLEAN,
        absent: "",
        usual: "true",
        flag: None,
        effect: "HVM: periodic timers are aligned, to save host interrupts",
        seen: "`HVM_PARAM_VPT_ALIGN` (16)",
        apply: |platform, _, text| put(&mut platform.vpt_align, truth(text).map(Some)),
    },
    Setting {
        name: "platform/x87-fip-width",
        others: &[],
        values: "4 or 8 bytes, or 0 for automatic",
        absent: "",
        usual: "",
        flag: None,
        effect: "HVM and PVH: how wide the x87's instruction pointer is saved, on a host where Xen chooses by itself",
        seen: "`HVM_PARAM_X87_FIP_WIDTH` (36)",
        apply: |platform, _, text| {
            let width: u8 = number_within(text, 0, 8)?;
            if ![0, 4, 8].contains(&width) {
                return Err("there is no such width".to_owned());
            }
            platform.x87_fip_width = Some(width).filter(|width| *width > 0);
            Ok(())
        },
    },
    Setting {
        name: "platform/timeoffset",
        others: &[],
        values: "seconds, with a minus sign where it is behind",
        absent: "0",
        usual: "0",
        flag: None,
        effect: "how far the guest's clock is ahead of the host's",
        seen: "the RTC in `xen-hvmctx`, once the guest has read it",
        apply: |platform, _, text| {
            platform.time_offset = text.parse().map_err(|_| "it is no number of seconds of 32 bits".to_owned())?;
            Ok(())
        },
    },
    Setting {
        name: "hvmloader/bios",
        others: &[],
        values: "seabios or ovmf",
        absent: "",
        usual: "",
        flag: Some("--firmware"),
        effect: "HVM: the firmware. Where it is missing or empty, SeaBIOS is loaded and the node is written: hvmloader has none built in",
        seen: "the node, and hvmloader's lines in `xl dmesg`",
        apply: |platform, _, text| {
            platform.firmware = Some(match text {
                "seabios" => FirmwareKind::SeaBios,
                "ovmf" => FirmwareKind::Ovmf,
                _ => return Err("there is no such firmware here".to_owned()),
            });
            Ok(())
        },
    },
    Setting {
        name: "platform/ovmf-override",
        others: &[],
        values: "the name of a file, without a slash",
        absent: "",
        usual: "",
        flag: Some("--firmware ovmf:PATH"),
        effect: "HVM: another OVMF than the usual, in the same directory; no symbolic link",
        seen: "the guest's memory",
        apply: |platform, _, text| {
            if text.contains(['/', '\0']) || [".", ".."].contains(&text) {
                return Err("it is no plain file name".to_owned());
            }
            platform.ovmf_override = Some(text.to_owned());
            Ok(())
        },
    },
    Setting {
        name: "platform/smbios-pt",
        others: &[],
        values: BOOLEAN,
        absent: "false",
        usual: "false",
        flag: Some("--smbios-passthrough"),
        effect: "HVM: the host's own SMBIOS strings are handed on",
        seen: "the guest's SMBIOS",
        apply: |platform, _, text| put(&mut platform.smbios_passthrough, truth(text)),
    },
    Setting {
        name: "platform/acpi-pt",
        others: &[],
        values: BOOLEAN,
        absent: "false",
        usual: "false",
        flag: Some("--acpi"),
        effect: "HVM: the host's ACPI table SLIC is handed on, where it has one",
        seen: "the guest's ACPI tables",
        apply: |platform, _, text| put(&mut platform.acpi_passthrough, truth(text)),
    },
];

const NO: &str = "false";
const YES: &str = "true";

/// A setting that is true or false, with what counts where it is missing, and for `create`.
const fn boolean(
    name: &'static str,
    [absent, usual]: [&'static str; 2],
    effect: &'static str,
    seen: &'static str,
    apply: fn(&mut Platform, u32, &str) -> Result<(), String>,
) -> Setting {
    Setting { name, others: &[], values: BOOLEAN, absent, usual, flag: None, effect, seen, apply }
}

/// A part of what Hyper-V has; left out unless it is asked for.
const fn enlightenment(
    name: &'static str,
    effect: &'static str,
    apply: fn(&mut Platform, u32, &str) -> Result<(), String>,
) -> Setting {
    boolean(name, [""; 2], effect, "`HVM_PARAM_VIRIDIAN` (9)", apply)
}

/// Puts a value where it belongs, if it is one.
fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// 0 stands for what is there without being asked for.
fn positive<T: PartialOrd + From<u8>>(number: T) -> Option<T> {
    Some(number).filter(|number| *number > T::from(0))
}

fn enlighten(platform: &mut Platform, text: &str, bit: u32) -> Result<(), String> {
    platform.viridian.more = platform.viridian.more & !bit | if truth(text)? { bit } else { 0 };
    Ok(())
}
