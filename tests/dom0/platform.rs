//! Every setting of the platform has its effect, read back from Xen, from the guest's memory or from Xen's own tools.

use std::collections::BTreeMap;

use dombuild::memory::{Gfn, Kind, Pages};
use dombuild::xen::{DomId, HvmParam, Interface};

use super::Test;
use super::parallel::SecondProcessor;
use super::passthrough::{guest_memory, sysfs};
use super::support::{create, destroy, dombuild, domid, empty_domain, file, path_text, shell};
use super::xenopsd::{USUAL, Vm};

pub(crate) const TESTS: &[Test] = &[
    ("platform_vcpus_and_apic", vcpus_and_apic),
    ("platform_affinity_weight_and_cap", affinity_weight_and_cap),
    ("platform_cpuid", cpuid),
    ("platform_viridian_and_timers", viridian_and_timers),
    ("platform_viridian_is_as_xl_has_it", viridian_as_xl),
    ("platform_clocks", clocks),
    ("platform_acpi", acpi),
    ("platform_firmware", firmware),
    ("platform_devices_and_tables_of_the_host", devices_and_tables_of_the_host),
    ("platform_flags_of_create", flags_of_create),
];

/// A guest of 64 MiB with these keys on top of the usual ones, built and paused.
fn built(kind: Kind, vcpus: u32, keys: &[(&str, &str)]) -> Vm {
    // A kernel of Linux fits into no less.
    let mib = if kind == Kind::Hvm { 64 } else { 128 };
    let vm = Vm::new(kind, vcpus, mib, mib, &[USUAL, keys].concat());
    vm.build(&[]).result();
    vm
}

/// hvm_info as it stands in the guest: APIC mode, vCPUs, online map (xen/include/public/hvm/hvm_info_table.h).
fn hvm_info(domid: DomId) -> (u8, u32, [u8; 2]) {
    let page = Interface::open().expect("Xen").map(domid, Gfn(0x9f), Pages(1)).expect("mapped");
    let mut info = [0; 48];
    page.read(0x800, &mut info);
    assert!(info.starts_with(b"HVM INFO"));
    assert_eq!(info.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "its checksum");
    (info[13], u32::from_le_bytes([info[16], info[17], info[18], info[19]]), [info[32], info[33]])
}

fn param(domid: DomId, number: u32) -> u64 {
    Interface::open().expect("Xen").hvm_param(domid, HvmParam::Number(number)).expect("a param")
}

fn vcpus_and_apic() {
    let vm = built(Kind::Hvm, 4, &[("platform/vcpu/current", "3")]);
    assert_eq!(hvm_info(vm.domid), (1, 4, [0b111, 0]));
    vm.destroy();
    let vm = built(Kind::Hvm, 9, &[("platform/apic", "false")]);
    assert_eq!(hvm_info(vm.domid), (0, 9, [0xff, 1]));
    vm.destroy();
    // Fewer vCPUs online than were made, set by OpenXT's name.
    let vm = built(
        Kind::Hvm,
        2,
        &[("platform/vcpu/number", ""), ("platform/vcpu_number", "1"), ("platform/vcpu/current", "")],
    );
    assert_eq!(hvm_info(vm.domid), (1, 1, [1, 0]));
    vm.destroy();
    for (name, value, words) in [
        ("platform/vcpu/number", "3", "platform/vcpu/number is 3, but domain"),
        ("platform/vcpu/number", "", "platform/vcpu/number is missing"),
        ("platform/vcpu/current", "3", "give 1 to 2"),
    ] {
        let vm = Vm::new(Kind::Hvm, 2, 64, 64, &[USUAL, &[(name, value)]].concat());
        let line = vm.build(&[]).error("hvm_build 22 ");
        assert!(line.contains(words), "{line}");
        vm.destroy();
    }
}

fn affinity_weight_and_cap() {
    let _both = SecondProcessor::wake();
    let keys = [
        ("platform/vcpu/0/affinity", "01"),
        ("platform/vcpu/1/affinity", "1"),
        ("platform/vcpu/weight", "512"),
        ("platform/vcpu/cap", "50"),
    ];
    for kind in Kind::ALL {
        let vm = built(kind, 2, &keys);
        // Name ID VCPU CPU State Time hard/soft
        let list = shell("xl vcpu-list t");
        let of = |vcpu: &str| {
            let line = list.lines().find(|line| line.split_whitespace().nth(2) == Some(vcpu));
            let hard = line.and_then(|line| line.split_once(" / ")?.0.split_whitespace().last());
            hard.unwrap_or_else(|| panic!("{list}")).to_owned()
        };
        assert_eq!((of("0").as_str(), of("1").as_str()), ("1", "0"), "{list}");
        let scheduler = shell("xl info | sed -n 's/^xen_scheduler *: //p'");
        let shares = shell(&format!("xl sched-{} -d t", scheduler.trim()));
        let line: Vec<&str> = shares.lines().last().expect("a line").split_whitespace().collect();
        assert_eq!(line[line.len() - 2..], ["512", "50"], "{shares}");
        vm.destroy();
    }
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &[("platform/vcpu/0/affinity", "0000000000000000001")]].concat());
    let line = vm.build(&[]).error("hvm_build_params 22 ");
    assert!(line.contains("xc_vcpu_setaffinity"), "{line}");
    vm.destroy();
}

/// Whether Xen can give nested virtualisation here: 4.20 wants more of the CPU than the emulated one has. Where it cannot,
/// there is no effect to read back.
pub(crate) fn nested_virtualisation() -> bool {
    let xen = Interface::open().expect("Xen");
    let created = empty_domain(&xen, Kind::Hvm, 1, true);
    match &created {
        Ok(domid) => destroy(&xen, *domid),
        Err(error) => println!("this Xen gives no nested virtualisation on this CPU: {error}"),
    }
    created.is_ok()
}

/// A domain's CPUID, as Xen's own tool prints it: leaf and subleaf to EAX, EBX, ECX, EDX.
pub(crate) fn policy(domid: DomId) -> BTreeMap<(u32, u32), [u32; 4]> {
    let text = shell(&format!("PATH=$PATH:$(dirname $(readlink -f $(which xl))) xen-cpuid -p {domid}"));
    let hex = |word: &str| u32::from_str_radix(word.trim(), 16).unwrap_or_else(|_| panic!("{word:?} in {text}"));
    let parsed: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| {
            let (leaf, registers) = line.split_once(" -> ")?;
            let (leaf, subleaf) = leaf.trim().split_once(':')?;
            let registers: Vec<u32> = registers.split(':').map(hex).collect();
            Some(((hex(leaf), hex(subleaf)), registers.try_into().ok()?))
        })
        .collect();
    assert!(parsed.len() > 8, "{text}");
    parsed
}

fn cpuid() {
    const NONE: u32 = u32::MAX;
    const ALL: u32 = 0xffff_ffff;
    let of = |kind, vcpus, keys: &[(&str, &str)]| {
        let vm = built(kind, vcpus, keys);
        let policy = policy(vm.domid);
        vm.destroy();
        policy
    };
    let bit = |policy: &BTreeMap<(u32, u32), [u32; 4]>, leaf: u32, register: usize, bit: u32| {
        policy.get(&(leaf, NONE)).is_some_and(|registers| registers[register] >> bit & 1 == 1)
    };
    let (nx, pae, long_mode) = ((0x8000_0001, 3, 20), (1, 3, 6), (0x8000_0001, 3, 29));
    let has = |policy: &_, (leaf, register, number)| bit(policy, leaf, register, number);

    let plain = of(Kind::Hvm, 2, &[]);
    assert!(has(&plain, nx) && has(&plain, pae) && has(&plain, long_mode), "{plain:x?}");
    // The same as libxl gives a guest that asks for nothing.
    let config = file(b"type=\"hvm\"\nname=\"x\"\nmemory=64\nvcpus=2\nvga=\"none\"\n");
    shell(&format!("xl create -p {}", path_text(&config)));
    let theirs = DomId::new(shell("xl domid x").trim().parse().expect("a domid")).expect("a domid");
    assert_eq!(plain, policy(theirs), "xl's");
    shell("xl destroy x");

    let without_nx = of(Kind::Hvm, 2, &[("platform/nx", "false")]);
    assert!(!has(&without_nx, nx) && has(&without_nx, pae) && has(&without_nx, long_mode), "{without_nx:x?}");
    // A missing key is one that says no.
    let without_pae = of(Kind::Hvm, 2, &[("platform/pae", "")]);
    assert!(!has(&without_pae, pae) && !has(&without_pae, long_mode), "{without_pae:x?}");

    // Everything but one feature: SSE3, bit 0 of leaf 1's ECX, word 1.
    let words: Vec<String> = (0..10).map(|word| format!("{:08x}", if word == 1 { ALL & !1 } else { ALL })).collect();
    for separator in ["-", ":"] {
        let masked = of(Kind::Hvm, 2, &[("platform/featureset", &words.join(separator))]);
        assert!(bit(&plain, 1, 2, 0) && !bit(&masked, 1, 2, 0), "{masked:x?}");
        assert!(has(&masked, nx), "{masked:x?}");
    }
    let vm =
        Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &[("platform/featureset", &format!("{}1", "0-".repeat(40)))]].concat());
    let line = vm.build(&[]).error("hvm_build_params 22 ");
    assert!(line.contains("word 40 of the featureset"), "{line}");
    vm.destroy();

    // Sockets: this host's CPUs are AMD's.
    let sockets = of(Kind::Hvm, 4, &[("platform/cores-per-socket", "2")]);
    let register = |policy: &BTreeMap<(u32, u32), [u32; 4]>, leaf: u32, number: usize| policy[&(leaf, NONE)][number];
    assert_eq!(register(&sockets, 1, 1) >> 16 & 0xff, 4, "logical processors: two ids a vCPU: {sockets:x?}");
    assert_eq!(register(&sockets, 0x8000_0008, 2) & 0xf0ff, 3, "{sockets:x?}");
    assert!(bit(&sockets, 0x8000_0001, 2, 1), "CmpLegacy: {sockets:x?}");
    let vm = Vm::new(Kind::Hvm, 3, 64, 64, &[USUAL, &[("platform/cores-per-socket", "2")]].concat());
    assert!(vm.build(&[]).error("hvm_build 22 ").contains("does not divide"));
    vm.destroy();

    // SVM, which this host has; the invariant TSC, which it has not, as its own leaf says.
    let svm = (0x8000_0001, 2, 2);
    if nested_virtualisation() {
        let nested = of(Kind::Hvm, 1, &[("platform/nested-virt", "true")]);
        assert!(has(&nested, svm) && !has(&plain, svm), "{nested:x?}");
    }
    let host = Interface::open().expect("Xen").featureset(dombuild::xen::FeaturesetOf::Host).expect("the host's");
    let nomigrate = of(Kind::Hvm, 1, &[("platform/nomigrate", "true")]);
    let itsc = host.get(7).is_some_and(|word| word >> 8 & 1 == 1);
    println!("the host has {} invariant TSC", if itsc { "an" } else { "no" });
    assert_eq!(bit(&nomigrate, 0x8000_0007, 3, 8), itsc, "{nomigrate:x?}");

    let pv = of(Kind::Pv, 1, &[("platform/nx", "0")]);
    assert!(!has(&pv, nx) && has(&pv, long_mode), "{pv:x?}");
}

fn viridian_and_timers() {
    // HVMPV_* of xen/include/public/hvm/params.h
    const BASE: u64 = 1 | 1 << 12;
    for (keys, mask) in [
        (&[("platform/viridian_reference_tsc", "1")][..], 0),
        (&[("platform/viridian", "true")], BASE),
        (&[("platform/viridian", "true"), ("platform/viridian_time_ref_count", "true")], BASE | 1 << 2),
        (&[("platform/viridian", "1"), ("platform/viridian_reference_tsc", "1")], BASE | 1 << 3),
        (&[("platform/viridian", "1"), ("platform/viridian_hcall_remote_tlb_flush", "1")], BASE | 1 << 4),
        (&[("platform/viridian", "1"), ("platform/viridian_apic_assist", "1")], BASE | 1 << 5),
        (&[("platform/viridian", "1"), ("platform/viridian_crash_ctl", "1")], BASE | 1 << 6),
        (&[("platform/viridian", "1"), ("platform/viridian_stimer", "1")], BASE | 1 << 7 | 1 << 8),
        (&[("platform/viridian", "1"), ("platform/viridian_hcall_ipi", "1")], BASE | 1 << 9),
    ] {
        let vm = built(Kind::Hvm, 1, keys);
        assert_eq!(param(vm.domid, 9), mask, "{keys:?}");
        vm.destroy();
    }
    let vm = built(Kind::Hvm, 1, &[]);
    assert_eq!(param(vm.domid, 11), 1, "a HPET, where nothing is said of it");
    assert_eq!(param(vm.domid, 31), 3, "a triple fault is a crash");
    assert_eq!((param(vm.domid, 10), param(vm.domid, 16)), (0, 0), "timer mode and alignment as they were");
    vm.destroy();
    let keys = [
        ("platform/hpet", "false"),
        ("platform/timer-mode", "2"),
        ("platform/vpt-align", "1"),
        ("platform/x87-fip-width", "8"),
    ];
    let vm = built(Kind::Hvm, 1, &keys);
    assert_eq!((param(vm.domid, 11), param(vm.domid, 10), param(vm.domid, 16)), (0, 2, 1));
    let width = param(vm.domid, 36);
    assert_eq!(width, 8, "{width}");
    vm.destroy();
    let vm = built(Kind::Pvh, 1, &[("platform/viridian", "true"), ("platform/timer_mode", "3")]);
    assert_eq!((param(vm.domid, 9), param(vm.domid, 10)), (BASE, 3));
    vm.destroy();
}

/// xl's words for the enlightenments of Hyper-V, `base` left out (xl.cfg(5)).
const VIRIDIAN: [&str; 12] = [
    "freq",
    "time_ref_count",
    "reference_tsc",
    "hcall_remote_tlb_flush",
    "apic_assist",
    "crash_ctl",
    "synic",
    "stimer",
    "hcall_ipi",
    "ex_processor_masks",
    "no_vp_limit",
    "cpu_hotplug",
];

/// Words ask for what xl gives for them. No two words are in the same sets, so that none passes for another.
fn viridian_as_xl() {
    let sets = (0..4).map(|set| {
        let chosen = VIRIDIAN.iter().enumerate().filter(|(index, _)| (index + 1) >> set & 1 == 1);
        [vec!["base"], chosen.map(|(_, word)| *word).collect()].concat()
    });
    let more = [vec!["defaults"], vec!["all"], vec!["defaults", "!freq", "!cpu_hotplug", "synic"]];
    for words in sets.chain(more) {
        let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(",");
        let text = format!("type=\"hvm\"\nname=\"theirs\"\nmemory=64\nvga=\"none\"\nviridian=[{list}]\n");
        let config = file(text.as_bytes());
        shell(&format!("xl create -p {}", path_text(&config)));
        let theirs = shell("xl domid theirs").trim().parse().ok().and_then(DomId::new).expect("a domid");
        let expected = param(theirs, 9);
        shell("xl destroy theirs");
        let ours = format!("viridian={}", words.join(","));
        let built = create("t", &["--memory", "64", "--device-model", "none", "--paused", "--platform", &ours]);
        assert_eq!(param(domid(&built), 9), expected, "{ours}");
        dombuild(&["destroy", "t"]).success();
    }
}

fn clocks() {
    for mode in ["0", "1", "2"] {
        let vm = built(Kind::Pvh, 1, &[("platform/tsc_mode", mode)]);
        // Xen's own dump: dom7(hvm): mode=1,...
        shell("xl debug-keys s");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let dump = shell("xl dmesg");
        let line = dump.lines().rev().find(|line| line.contains(&format!("dom{}", vm.domid)) && line.contains("mode="));
        let line = line.unwrap_or_else(|| panic!("domain {} is not in the dump", vm.domid));
        assert!(line.contains(&format!("mode={mode}")), "{line}");
        vm.destroy();
    }
}

/// The year that a guest's CMOS clock shows, its last two digits in BCD or binary. Xen brings the clock up to date when the
/// guest reads it.
pub(crate) fn rtc_year(domid: DomId) -> u8 {
    let text = shell(&format!("PATH=$PATH:$(dirname $(readlink -f $(which xl))) xen-hvmctx {domid}"));
    // 14 registers, on more than one line.
    let registers = text.split_once("RTC: regs").unwrap_or_else(|| panic!("{text}")).1;
    let registers: Vec<u8> = registers
        .split_whitespace()
        .take(14)
        .map(|word| u8::from_str_radix(word.trim_matches(',').trim_start_matches("0x"), 16).expect("a register"))
        .collect();
    let (year, binary) = (registers[9], registers[11] & 4 != 0);
    if binary { year } else { (year >> 4) * 10 + (year & 15) }
}

fn acpi() {
    // As hvmloader needs them, whatever was written.
    let vm = built(Kind::Hvm, 1, &[("platform/acpi", "TRUE"), ("platform/acpi_s3", "0"), ("platform/acpi_s4", "")]);
    let keys = ["acpi", "acpi_s3", "acpi_s4"].map(|name| vm.key(&format!("platform/{name}")));
    assert_eq!(keys.map(Option::unwrap_or_default), ["1", "0", "0"]);
    vm.destroy();
    // Nothing of it where there is no hvmloader to read it.
    let vm = built(Kind::Pvh, 1, &[("platform/acpi", "true")]);
    assert_eq!(vm.key("platform/acpi").as_deref(), Some("true"));
    vm.destroy();
}

fn firmware() {
    let vm = built(Kind::Hvm, 1, &[("hvmloader/bios", "ovmf")]);
    assert_eq!(vm.key("hvmloader/bios").as_deref(), Some("ovmf"));
    vm.destroy();
    // Another file in the same directory: it is in the guest, and no link leads elsewhere.
    let directory = "/usr/share/ovmf";
    shell(&format!("(cat {directory}/OVMF.fd; echo 'a firmware of our own') >{directory}/other.fd"));
    shell(&format!("ln -sf OVMF.fd {directory}/link.fd"));
    let vm = built(Kind::Hvm, 1, &[("hvmloader/bios", "ovmf"), ("platform/ovmf-override", "other.fd")]);
    // Modules stand behind hvmloader, which is loaded to 1 MiB.
    let memory = guest_memory(vm.domid, 1 << 20, 24 << 20);
    let found = memory.windows(21).any(|part| part == b"a firmware of our own");
    assert!(found, "the firmware is not in the guest");
    vm.destroy();
    for (name, words) in
        [("link.fd", "is a symbolic link"), ("none.fd", "/usr/share/ovmf/none.fd"), ("a/b", "plain file name")]
    {
        let keys = [("hvmloader/bios", "ovmf"), ("platform/ovmf-override", name)];
        let vm = Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &keys].concat());
        assert!(vm.build(&[]).error("hvm_build ").contains(words), "{name}");
        vm.destroy();
    }
    shell(&format!("rm {directory}/other.fd {directory}/link.fd"));
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &[("hvmloader/bios", "rombios")]].concat());
    assert!(vm.build(&[]).error("hvm_build 22 ").contains("hvmloader/bios is \"rombios\""));
    vm.destroy();
}

/// What the host has of its own, from a sysfs of the test's: SMBIOS strings, a licence table, and a device that needs room.
fn devices_and_tables_of_the_host() {
    let sysfs = sysfs();
    let tables = sysfs.path().join("firmware/dmi/tables");
    std::fs::create_dir_all(&tables).expect("made");
    let system = [&[1, 8, 0, 1, 1, 2, 0, 0][..], b"A Maker of Hosts\0Host Three\0\0"].concat();
    std::fs::write(tables.join("DMI"), [&system[..], &[127, 4, 0, 2, 0, 0]].concat()).expect("written");
    let acpi = sysfs.path().join("firmware/acpi/tables");
    std::fs::create_dir_all(&acpi).expect("made");
    let mut slic = [&b"SLIC"[..], &50_u32.to_le_bytes(), &[1, 0], &[b'x'; 26], &[9; 14]].concat();
    slic[9] = slic.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    std::fs::write(acpi.join("SLIC"), &slic).expect("written");
    let sysfs = path_text(sysfs.path());

    let keys = [("platform/smbios-pt", "true"), ("platform/acpi-pt", "1")];
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &keys].concat());
    vm.build(&["--sysfs", sysfs]).result();
    for (name, content) in [("smbios", &system), ("acpi", &slic)] {
        let told = |what: &str| {
            let text = vm.key(&format!("hvmloader/{name}/{what}")).expect(what);
            u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number")
        };
        let there = guest_memory(vm.domid, told("address"), told("length"));
        assert!(there.windows(content.len()).any(|part| part == *content), "{name}: {there:x?}");
    }
    assert_eq!(vm.key("vm-data/mmio-hole-size").as_deref(), Some("268435456"));
    vm.destroy();
    // A host that has none of them is no reason to fail.
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &keys].concat());
    vm.build(&["--sysfs", "/nowhere"]).result();
    assert_eq!(vm.key("hvmloader/smbios/address"), None);
    vm.destroy();

    for (more, hole, vram) in [
        (&["-pci_passthrough", "0000:03:00.0"][..], "1073741824", None),
        (&["-vgpu"], "536870912", Some("fb000000")),
        (&["-vgpu", "-pci_passthrough", "0000:03:00.0"], "1073741824", Some("fb000000")),
    ] {
        let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
        vm.build(&[&["--sysfs", sysfs], more].concat()).result();
        assert_eq!(vm.key("vm-data/mmio-hole-size").as_deref(), Some(hole), "{more:?}");
        assert_eq!(vm.key("vm-data/vram-reserved-addr").as_deref(), vram, "{more:?}");
        vm.destroy();
    }
    // With a vGPU the reference clock brings the synthetic timer along.
    let keys = [("platform/viridian", "true"), ("platform/viridian_reference_tsc", "true")];
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &keys].concat());
    vm.build(&["-vgpu"]).result();
    assert_eq!(param(vm.domid, 9), 1 | 1 << 12 | 1 << 3 | 1 << 7 | 1 << 8);
    vm.destroy();
}

/// The same settings as flags.
fn flags_of_create() {
    let _both = SecondProcessor::wake();
    let flags = [
        "vcpu/current=1",
        "vcpu/1/affinity=01",
        "vcpu/weight=300",
        "cores-per-socket=2",
        "viridian=true",
        "acpi_s3=false",
        "timer_mode=3",
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|flag| ["--platform", flag]).collect();
    let plain = ["--memory", "80", "--vcpus", "2", "--device-model", "none", "--paused"];
    let guest = domid(&create("t", &[&plain[..], &flags].concat()));
    assert_eq!(hvm_info(guest), (1, 2, [1, 0]));
    assert_eq!((param(guest, 9), param(guest, 10), param(guest, 16)), (1 | 1 << 12, 3, 1));
    assert_eq!(shell(&format!("xenstore-read /local/domain/{guest}/platform/acpi_s3")).trim(), "0");
    assert_eq!(shell(&format!("xenstore-read /local/domain/{guest}/cpu/1/availability")).trim(), "offline");
    assert_eq!(policy(guest)[&(1, u32::MAX)][1] >> 16 & 0xff, 4);
    assert!(shell("xl vcpu-list t").lines().any(|line| line.contains(" 1 / ") || line.contains("1 / all")), "affinity");
    dombuild(&["destroy", "t"]).success();

    let nested = [&plain[..], &["--platform", "nested-virt=true"]].concat();
    if nested_virtualisation() {
        let guest = domid(&create("t", &nested));
        assert_eq!(policy(guest)[&(0x8000_0001, u32::MAX)][2] >> 2 & 1, 1, "SVM");
        dombuild(&["destroy", "t"]).success();
    } else {
        let error = dombuild(&[&["create", "--name", "t"], &nested[..]].concat()).failed_with(5, "xen-refused");
        assert!(error["message"].as_str().expect("text").contains("--platform nested-virt: this CPU"), "{error}");
    }
    let words = ["create", "--name", "t", "--memory", "64", "--maxmem", "128", "--platform", "nested-virt=true"];
    let error = dombuild(&words).failed_with(3, "bad-config");
    assert!(error["message"].as_str().expect("text").contains("populated on demand"), "{error}");
}
