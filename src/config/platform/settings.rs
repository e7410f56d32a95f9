//! The table of settings: their names, values, defaults and effects.

use uuid::Uuid;

use super::Platform;
use super::setting::Setting;
use super::value::{cpu_map, featureset, number_within, truth};
use super::viridian::{self, Viridian};
use crate::payload::firmware::FirmwareKind;
use crate::xen::enlightenment;

const BOOLEAN: &str = "true or false, or a number (0 is false)";

/// Every setting. The number of vCPUs comes first, because the settings of vCPUs need it.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "platform/vcpu/number",
        others: &["platform/vcpu_number"],
        values: "1 to 128",
        absent: "",
        usual: "",
        flag: Some("--vcpus"),
        effect: "the number of vCPUs; required, and at most what `xc_domain_max_vcpus` allocated",
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
        effect: "how many vCPUs are online at the start; all if it is missing",
        seen: "`vcpu_online` in hvm_info",
        apply: |platform, _, text| put(&mut platform.online_vcpus, number_within(text, 1, 128).map(Some)),
    },
    Setting {
        name: "platform/vcpu/N/affinity",
        others: &[],
        values: "one 0 or 1 for each CPU of the host, CPU 0 first; or `list:` and xl's words, as in `list:0-3,^1,node:1`",
        absent: "",
        usual: "",
        flag: None,
        effect: "the CPUs that vCPU N may run on (hard affinity); digits beyond the host's CPUs are ignored",
        seen: "`xl vcpu-list`",
        apply: |platform, vcpu, text| {
            platform.affinity.insert(vcpu, cpu_map(text)?);
            Ok(())
        },
    },
    Setting {
        name: "platform/vcpu/N/soft-affinity",
        others: &[],
        values: "one 0 or 1 for each CPU of the host, CPU 0 first; or `list:` and xl's words, as in `list:0-3,^1,node:1`",
        absent: "",
        usual: "",
        flag: None,
        effect: "the CPUs that vCPU N runs on by preference (soft affinity)",
        seen: "`xl vcpu-list`",
        apply: |platform, vcpu, text| {
            platform.soft_affinity.insert(vcpu, cpu_map(text)?);
            Ok(())
        },
    },
    Setting {
        name: "platform/vcpu/weight",
        others: &[],
        values: "1 to 65535, or 0 for the scheduler's default",
        absent: "",
        usual: "",
        flag: None,
        effect: "the domain's weight in the schedulers credit and credit2",
        seen: "`xl sched-credit2`, `xl sched-credit`",
        apply: |platform, _, text| put(&mut platform.weight, number_within(text, 0, 65_535).map(positive)),
    },
    Setting {
        name: "platform/vcpu/cap",
        others: &[],
        values: "percent of one CPU, 1 to 65535, or 0 for no cap",
        absent: "",
        usual: "",
        flag: None,
        effect: "the most CPU time that the domain gets, in the schedulers credit and credit2",
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
        "the guest's CPUs have physical address extension; without it they have no long mode either",
        "CPUID leaf 1, EDX bit 6",
        |platform, _, text| put(&mut platform.pae, truth(text)),
    ),
    Setting {
        name: "platform/featureset",
        others: &[],
        values: "32-bit words in hexadecimal, separated by - or :",
        absent: "",
        usual: "",
        flag: None,
        effect: "the features that the guest's CPUs may have; if it is missing, Xen's default for guests of this kind. Words beyond \
                 those that this Xen knows must be 0",
        seen: "CPUID (`xen-cpuid -p`)",
        apply: |platform, _, text| put(&mut platform.featureset, featureset(text).map(Some)),
    },
    Setting {
        name: "platform/cores-per-socket",
        others: &[],
        values: "a divisor of the number of vCPUs, or 0 for Xen's default topology",
        absent: "",
        usual: "",
        flag: None,
        effect: "HVM and PVH: how many vCPUs one socket has in CPUID",
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
        effect: "the guest's CPUs have VMX or SVM. `create` creates the domain for that; the caller of `build` and `xenguest` must \
                 have done so. Implies nomigrate; excludes populate on demand",
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
        effect: "the guest will never migrate: it gets an invariant TSC if the host has one",
        seen: "CPUID leaf 0x80000007, EDX bit 8",
        apply: |platform, _, text| put(&mut platform.nomigrate, truth(text)),
    },
    Setting {
        name: "platform/viridian",
        others: &[],
        values: "true or false, or a number (0 is false); or the words of xl's `viridian`, separated by commas, as in \
                 `defaults,!freq,synic`",
        absent: NO,
        usual: NO,
        flag: None,
        effect: "the guest sees Hyper-V. `true` (HVM and PVH): the base set, frequencies and hotplug of vCPUs; without it the \
                 settings below have no effect. Words (HVM): exactly what xl sets for them",
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
        "… and its hypercall that flushes the TLBs of other vCPUs",
        |platform, _, text| enlighten(platform, text, enlightenment::HCALL_REMOTE_TLB_FLUSH),
    ),
    enlightenment("platform/viridian_apic_assist", "… and its APIC assist page", |platform, _, text| {
        enlighten(platform, text, enlightenment::APIC_ASSIST)
    }),
    enlightenment("platform/viridian_crash_ctl", "… and its MSRs that report a crash", |platform, _, text| {
        enlighten(platform, text, enlightenment::CRASH_CTL)
    }),
    enlightenment(
        "platform/viridian_hcall_ipi",
        "… and its hypercall that interrupts other vCPUs",
        |platform, _, text| enlighten(platform, text, enlightenment::HCALL_IPI),
    ),
    enlightenment(
        "platform/viridian_stimer",
        "… and its synthetic timer and interrupt controller; with a vGPU, the reference clocks enable them unless this \
         is false",
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
        "HVM: hvmloader makes ACPI tables. hvmloader reads this node itself and accepts only 0 and 1, so dombuild rewrites \
         it to one of these, also if it is missing",
        "the node, and hvmloader's lines in `xl dmesg`",
        |platform, _, text| put(&mut platform.acpi, truth(text)),
    ),
    boolean(
        "platform/acpi_s3",
        [NO, YES],
        "HVM: the ACPI tables offer sleep state S3; rewritten like platform/acpi",
        "the node",
        |platform, _, text| put(&mut platform.acpi_s3, truth(text)),
    ),
    boolean(
        "platform/acpi_s4",
        [NO, YES],
        "HVM: the ACPI tables offer sleep state S4; rewritten like platform/acpi",
        "the node",
        |platform, _, text| put(&mut platform.acpi_s4, truth(text)),
    ),
    boolean(
        "platform/acpi_laptop_slate",
        [NO, NO],
        "HVM: the ACPI tables have the switch of convertible laptops; rewritten like platform/acpi",
        "the node",
        |platform, _, text| put(&mut platform.acpi_laptop_slate, truth(text)),
    ),
    Setting {
        name: "platform/tsc_mode",
        others: &[],
        values: "0 default, 1 always emulated, 2 never",
        absent: "0",
        usual: "0",
        flag: None,
        effect: "whether Xen emulates reads of the TSC",
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
        effect: "HVM: Xen emulates an HPET",
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
        effect: "HVM and PVH: how Xen delivers timer ticks that the guest has missed",
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
        effect: "HVM: Xen aligns periodic timers, to save host interrupts",
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
        effect: "HVM and PVH: the width of the saved x87 instruction pointer, on hosts where Xen chooses it by itself",
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
        values: "seconds; negative if the guest's clock is behind",
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
        name: "platform/generation-id",
        others: &[],
        values: "`generate`, or two decimal numbers of 64 bits with a colon between them",
        absent: "",
        usual: "",
        flag: None,
        effect: "HVM: the generation ID that Windows reads; `generate` makes a random one",
        seen: "the node, and hvmloader's table `VM_Gen_Counter`",
        apply: |platform, _, text| put(&mut platform.generation_id, generation_id(text).map(Some)),
    },
    Setting {
        name: "platform/mca-caps",
        others: &[],
        values: "lmce",
        absent: "",
        usual: "",
        flag: None,
        effect: "HVM: machine checks that reach one vCPU only (local machine check exceptions)",
        seen: "`HVM_PARAM_MCA_CAP` (38)",
        apply: |platform, _, text| match text {
            "lmce" => {
                platform.local_machine_checks = true;
                Ok(())
            }
            _ => Err("there is no such capability".to_owned()),
        },
    },
    Setting {
        name: "hvmloader/bios",
        others: &[],
        values: "seabios or ovmf",
        absent: "",
        usual: "",
        flag: Some("--firmware"),
        effect: "HVM: the firmware. If it is missing or empty, dombuild loads SeaBIOS and writes the node: hvmloader has no built-in BIOS",
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
        effect: "HVM: another OVMF in the directory of the default one; not a symbolic link",
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
        effect: "HVM: the guest gets the host's own SMBIOS strings",
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
        effect: "HVM: the guest gets the host's ACPI table SLIC, if the host has one",
        seen: "the guest's ACPI tables",
        apply: |platform, _, text| put(&mut platform.acpi_passthrough, truth(text)),
    },
];

const NO: &str = "false";
const YES: &str = "true";

/// A setting that is true or false; `absent` is its value if the node is missing, `usual` the default of `create`.
const fn boolean(
    name: &'static str,
    [absent, usual]: [&'static str; 2],
    effect: &'static str,
    seen: &'static str,
    apply: fn(&mut Platform, u32, &str) -> Result<(), String>,
) -> Setting {
    Setting { name, others: &[], values: BOOLEAN, absent, usual, flag: None, effect, seen, apply }
}

/// A generation ID, in the form of its node.
fn generation_id(text: &str) -> Result<String, String> {
    if text == "generate" {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        return Ok(format!("{high}:{low}"));
    }
    let is_number = |number: &str| number.parse::<u64>().is_ok() && number.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once(':') {
        Some((high, low)) if is_number(high) && is_number(low) => Ok(text.to_owned()),
        _ => Err("it is no pair of numbers of 64 bits".to_owned()),
    }
}

/// One of Hyper-V's enlightenments; off by default.
const fn enlightenment(
    name: &'static str,
    effect: &'static str,
    apply: fn(&mut Platform, u32, &str) -> Result<(), String>,
) -> Setting {
    boolean(name, [""; 2], effect, "`HVM_PARAM_VIRIDIAN` (9)", apply)
}

/// Stores a parsed value, or returns its error.
fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// 0 stands for the default.
fn positive<T: PartialOrd + From<u8>>(number: T) -> Option<T> {
    Some(number).filter(|number| *number > T::from(0))
}

fn enlighten(platform: &mut Platform, text: &str, bit: u32) -> Result<(), String> {
    platform.viridian.more = platform.viridian.more & !bit | if truth(text)? { bit } else { 0 };
    Ok(())
}
