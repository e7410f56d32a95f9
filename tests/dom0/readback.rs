//! A guest reads back what a file gives it: CPUID leaves, MSRs, HVM parameters and its command line
//! (tests/nested/readback-guest.c). The same file gives xl's guest the same.

use std::collections::BTreeMap;

use dombuild::xen::DomId;

use super::Test;
use super::platform::nested_virtualisation;
use super::support::{dombuild, domid, file, path_text, run, shell, wait_for_guest_line};

pub(crate) const TESTS: &[Test] = &[
    ("readback_of_an_hvm_guest", hvm),
    ("readback_of_viridian", viridian),
    ("readback_of_a_pvh_guest", pvh),
    ("readback_of_a_pv_shim", shim),
];

/// What a guest has read, each by the words before it: `cpuid 00000001.00000000`, `msr 0000003a`, `param 00000009`.
type Found = BTreeMap<String, String>;

/// Of Xen's leaves, the one with the guest's clock, and the one that has its domid in ECX (XEN_HVM_CPUID_DOMID_PRESENT,
/// xen/include/public/arch-x86/cpuid.h): those of no two guests are the same.
const OWN_LEAVES: [u32; 2] = [3, 4];

/// What the guest with this domid reads.
fn readings(domid: DomId) -> Found {
    shell(&format!("xl unpause {domid}"));
    wait_for_guest_line(domid, "readback end", 120);
    let prefix = format!("(d{domid}) readback ");
    let log = shell("xl dmesg");
    let lines = log.lines().filter_map(|line| line.split_once(&prefix).map(|(_, rest)| rest.trim()));
    let mut found: Found = lines
        .filter_map(|line| {
            let (class, rest) = line.split_once(' ')?;
            let (number, value) = rest.split_once(' ')?;
            Some((format!("{class} {number}"), value.to_owned()))
        })
        .collect();
    let of_xen = if leaf(&found, 0x4000_0000)[1] == OF_XEN { 0x4000_0000 } else { 0x4000_0100 };
    for number in OWN_LEAVES {
        found.remove(&format!("cpuid {:08x}.00000000", of_xen + number));
    }
    found
}

/// What dombuild's guest of this file reads, which xl's reads as well.
fn read_by_both(text: &str) -> Found {
    let text = format!("name = 't'\nmemory = 64\non_poweroff = 'preserve'\n{text}\n");
    let program = shell("command -v readback-guest");
    let config = file(text.replace("GUEST", program.trim()).as_bytes());
    run("xl", &["create", "-p", path_text(&config)]).success();
    let theirs = readings(DomId::new(shell("xl domid t").trim().parse().expect("a domid")).expect("a domid"));
    run("xl", &["destroy", "t"]).success();
    let ours = readings(domid(&dombuild(&["create", path_text(&config), "-p"]).success().json()));
    dombuild(&["destroy", "t"]).success();
    assert_eq!(theirs, ours, "{text}");
    assert!(ours.len() > 60, "{ours:#?}");
    ours
}

/// The four registers of a leaf.
fn leaf(found: &Found, number: u32) -> [u32; 4] {
    let text = &found[&format!("cpuid {number:08x}.00000000")];
    let mut registers = text.split(' ').map(|word| u32::from_str_radix(word, 16).expect("hexadecimal"));
    [(); 4].map(|()| registers.next().expect("four"))
}

fn msr(found: &Found, number: u32) -> &str {
    &found[&format!("msr {number:08x}")]
}

/// An HVM parameter, if the guest may read it.
fn param(found: &Found, number: u32) -> Option<u64> {
    let (result, value) = found[&format!("param {number:08x}")].split_once(' ').expect("two words");
    (result == "00000000").then(|| u64::from_str_radix(value, 16).expect("hexadecimal"))
}

const HVM: &str = "type = 'hvm'\nvnc = 0\nfirmware_override = 'GUEST'\n";

/// What 0x40000000 names (`XEN_CPUID_SIGNATURE_EBX`; Hyper-V's `Micr`).
const OF_XEN: u32 = u32::from_le_bytes(*b"XenV");
const OF_HYPER_V: u32 = u32::from_le_bytes(*b"Micr");

/// An MSR that no CPU has.
const NO_MSR: u32 = 0x1234;

fn hvm() {
    let plain = read_by_both(&format!("{HVM}hap = 1"));
    assert_eq!(leaf(&plain, 0x4000_0000)[1], OF_XEN, "{plain:#?}");
    assert_eq!(msr(&plain, NO_MSR), "fault");
    // HVM_PARAM_STORE_PFN; HVM_PARAM_VIRIDIAN is one that the guest must not read.
    assert_eq!(param(&plain, 1), Some(0xfeffc));
    assert_eq!(param(&plain, 9), None);
    let nests = |found: &Found| leaf(found, 1)[2] & 1 << 5 != 0 || leaf(found, 0x8000_0001)[2] & 1 << 2 != 0;
    assert!(!nests(&plain), "{plain:#?}");

    if nested_virtualisation() {
        assert!(nests(&read_by_both(&format!("{HVM}nestedhvm = 1"))));
    } else {
        println!("nestedhvm: this Xen does not nest here");
    }

    let changed = read_by_both(&format!(
        "{HVM}cpuid = 'host,sse3=0,family=25,model=0x5a,stepping=3'\nmsr_relaxed = 1\npae = 0\nnx = 0"
    ));
    let (before, after) = (leaf(&plain, 1), leaf(&changed, 1));
    assert_eq!(after[0] & 0x0fff_0fff, 0x00a5_0fa3, "{after:x?}");
    assert_eq!((before[2] & 1, after[2] & 1), (1, 0), "SSE3");
    assert_eq!((before[3] & 1 << 6, after[3] & 1 << 6), (1 << 6, 0), "PAE");
    let nx = |found: &Found| leaf(found, 0x8000_0001)[3] & 1 << 20;
    assert_eq!((nx(&plain), nx(&changed)), (1 << 20, 0), "NX");
    assert_eq!(msr(&changed, NO_MSR), "0".repeat(16), "msr_relaxed");
}

fn viridian() {
    let mut seen = Vec::new();
    for words in ["1", "['base', 'freq', 'stimer', 'hcall_ipi']"] {
        let found = read_by_both(&format!("{HVM}viridian = {words}"));
        assert_eq!(leaf(&found, 0x4000_0000)[1], OF_HYPER_V, "{found:#?}");
        assert_eq!(leaf(&found, 0x4000_0100)[1], OF_XEN, "{found:#?}");
        assert_eq!(leaf(&found, 0x4000_0001)[0], u32::from_le_bytes(*b"Hv#1"));
        // The index of the virtual processor, and the frequency of the TSC with `freq` (TLFS).
        assert_eq!(msr(&found, 0x4000_0002), "0".repeat(16));
        assert_ne!(msr(&found, 0x4000_0022), "fault");
        seen.push(leaf(&found, 0x4000_0003));
    }
    // What the guest may use: stimer is bit 3 of EAX, crash_ctl of the usual set bit 10 of EDX (TLFS).
    assert_eq!(seen.iter().map(|leaf| leaf[0] >> 3 & 1).collect::<Vec<_>>(), [0, 1], "{seen:x?}");
    assert_eq!(seen.iter().map(|leaf| leaf[3] >> 10 & 1).collect::<Vec<_>>(), [1, 0], "{seen:x?}");
}

fn cmdline(found: &Found) -> Option<&str> {
    found.get("start cmdline").map(String::as_str)
}

/// The guest in the place of the shim.
fn shim() {
    let guest = "type = 'pvh'\nkernel = 'GUEST'\nextra = 'of the kernel'\npvshim = 1\npvshim_path = 'GUEST'\n";
    for (lines, expected) in [
        ("", "pv-shim console=xen,pv"),
        ("pvshim_extra = 'loglvl=all sched=null'", "pv-shim console=xen,pv loglvl=all sched=null"),
        ("pvshim_cmdline = 'pv-shim x'\npvshim_extra = 'y'", "pv-shim x y"),
    ] {
        let found = read_by_both(&format!("{guest}{lines}"));
        assert_eq!(cmdline(&found), Some(expected), "{lines}");
        assert_eq!(found["start modules"], "00000001", "the kernel is a module");
    }
}

fn pvh() {
    let guest = "type = 'pvh'\nkernel = 'GUEST'\n";
    let plain = read_by_both(guest);
    assert_eq!(leaf(&plain, 0x4000_0000)[1], OF_XEN, "{plain:#?}");
    assert_eq!((msr(&plain, NO_MSR), cmdline(&plain)), ("fault", None));
    let changed = read_by_both(&format!(
        "{guest}cpuid = 'host,sse3=0,x2apic=0'\nmsr_relaxed = 1\nroot = '/dev/xvda ro'\nextra = 'quiet'"
    ));
    assert_eq!(cmdline(&changed), Some("root=/dev/xvda ro quiet"));
    let (before, after) = (leaf(&plain, 1)[2], leaf(&changed, 1)[2]);
    assert_eq!((before & 1, after & 1), (1, 0), "SSE3");
    assert_eq!((before & 1 << 21, after & 1 << 21), (1 << 21, 0), "x2APIC");
    assert_eq!(msr(&changed, NO_MSR), "0".repeat(16), "msr_relaxed");
}
