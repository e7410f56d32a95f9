//! The same guest built by `xl create -p` and by dombuild is the same domain.

use std::collections::BTreeMap;

use dombuild::xen::{DomId, HvmParam, Interface};

use super::Test;
use super::memory::Memory;
use super::support::{GUEST_INITRD, GUEST_KERNEL, create, dombuild, domid, file, path_text, shell};

pub(crate) const TESTS: &[Test] = &[
    ("the_same_domain_as_xl_builds", the_same_domain_as_xl_builds),
    ("the_same_pvh_and_pv_domains_as_xl_builds", the_same_pvh_and_pv_domains),
];

/// `HVM_NR_PARAMS` (xen/include/public/hvm/params.h, Xen 4.17 and 4.20); those beyond are errors on both.
const PARAMS: u32 = 40;

fn the_same_domain_as_xl_builds() {
    let config = file(b"type=\"hvm\"\nname=\"x\"\nmemory=256\nvcpus=2\nvga=\"stdvga\"\nvideoram=16\n");
    let build = || {
        shell(&format!("xl create -p {}", path_text(&config)));
        let theirs = DomId::new(shell("xl domid x").trim().parse().expect("a domid")).expect("a domid");
        (theirs, domid(&create("t", &["--memory", "256", "--vcpus", "2", "--paused"])))
    };
    let xen = Interface::open().expect("Xen");

    let (theirs, ours) = build();
    let params = same_params(&xen, theirs, ours);
    let records = same_context(&xen, theirs, ours);
    let keys = same_keys(theirs, ours, &[]);
    let mut different = different_pages(&xen, theirs, ours);
    destroy();
    if !different.is_empty() {
        // What a builder writes differently is different again. What an earlier guest left is not: Xen does not scrub a
        // page that is freed while its domain lives, as QEMU's ioreq page is when QEMU ends first, under xl or by itself.
        println!("not the same in the first pair: {different:#x?}");
        let (theirs, ours) = build();
        let again = different_pages(&xen, theirs, ours);
        different.retain(|gfn| again.contains(gfn));
        destroy();
    }
    assert!(different.is_empty(), "pages that differ: {different:#x?}");
    println!("the same as xl's: all pages, {params} HVM params, {records} context records, {keys} keys");
}

/// Without QEMU and hvmloader there are their pages to compare no more; ACPI tables differ on purpose.
fn the_same_pvh_and_pv_domains() {
    for kind in ["pvh", "pv"] {
        let config = format!(
            "type=\"{kind}\"\nname=\"x\"\nmemory=256\nvcpus=2\nkernel=\"{GUEST_KERNEL}\"\n\
             ramdisk=\"{GUEST_INITRD}\"\nextra=\"console=hvc0\"\n"
        );
        let config = file(config.as_bytes());
        shell(&format!("xl create -p {}", path_text(&config)));
        let theirs = DomId::new(shell("xl domid x").trim().parse().expect("a domid")).expect("a domid");
        let flags = ["--kind", kind, "--model", "libxl", "--memory", "256", "--vcpus", "2", "--paused"];
        let files = ["--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD, "--cmdline", "console=hvc0"];
        let ours = domid(&create("t", &[&flags[..], &files].concat()));
        let xen = Interface::open().expect("Xen");
        // A PV guest's rings are in machine frames.
        let keys = same_keys(theirs, ours, if kind == "pv" { &["/ring-ref"] } else { &[] });
        if kind == "pvh" {
            let params = same_params(&xen, theirs, ours);
            let records = same_context(&xen, theirs, ours);
            println!("{kind}, the same as xl's: {params} HVM params, {records} context records, {keys} keys");
        } else {
            println!("{kind}, the same as xl's: {keys} keys");
        }
        destroy();
    }
}

fn destroy() {
    shell("xl destroy x");
    dombuild(&["destroy", "t"]).success();
}

/// Compares every page of both guests.
fn different_pages(xen: &Interface, theirs: DomId, ours: DomId) -> Vec<u64> {
    let (theirs, ours) = (Memory::of(xen, theirs), Memory::of(xen, ours));
    assert_eq!(theirs.populated, 65_536, "every page that Xen counts was looked at");
    assert_eq!(ours.populated, 65_536, "every page that Xen counts was looked at");
    let non_zero = ours.non_zero.len();
    assert!(non_zero > 100, "hvmloader, SeaBIOS and the special pages are there: {non_zero}");
    theirs.differences(&ours)
}

/// Compares the HVM parameters of both guests, and returns how many can be read.
pub(crate) fn same_params(xen: &Interface, theirs: DomId, ours: DomId) -> usize {
    let of = |domid| -> BTreeMap<u32, Result<u64, Option<String>>> {
        (0..PARAMS)
            .map(|number| {
                let value = xen.hvm_param(domid, HvmParam::Number(number));
                (number, value.map_err(|error| error.errno_name()))
            })
            .collect()
    };
    let (one, other) = (of(theirs), of(ours));
    assert_eq!(one, other, "HVM params");
    let readable = one.values().filter(|value| value.is_ok()).count();
    assert!(readable > 15, "{one:?}");
    readable
}

/// The records of a context: type, instance and bytes (xen/include/public/hvm/save.h).
fn records(context: &[u8]) -> BTreeMap<(u16, u16), Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut rest = context;
    while let [a, b, c, d, e, f, g, h, data @ ..] = rest {
        let length = u32::from_le_bytes([*e, *f, *g, *h]) as usize;
        found.insert((u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d])), data[..length].to_vec());
        rest = &data[length..];
    }
    found
}

/// Where a record holds a clock: type, first byte, length (xen/include/public/arch-x86/hvm/save.h, Xen 4.17 and 4.20).
const CLOCKS: [(u16, usize, usize); 7] = [
    (2, 1008, 8), // CPU: tsc
    (11, 0, 1),   // RTC: seconds
    (11, 2, 1),   // RTC: minutes
    (11, 4, 1),   // RTC: hours
    (11, 6, 4),   // RTC: day of week, day, month, year
    (13, 0, 4),   // PM timer: tmr_val
    (19, 0, 8),   // TSC_ADJUST
];

/// Compares every record, byte by byte, but for the clocks; and what Xen's own tool prints of them.
fn same_context(xen: &Interface, theirs: DomId, ours: DomId) -> usize {
    let of = |domid| {
        let mut records = records(&xen.hvm_context(domid).expect("a context"));
        for ((kind, _), data) in &mut records {
            for (_, first, length) in CLOCKS.iter().filter(|(of_kind, ..)| of_kind == kind) {
                data[*first..first + length].fill(0);
            }
        }
        records
    };
    let (one, other) = (of(theirs), of(ours));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "the same records");
    for (key, data) in &one {
        assert_eq!(data, &other[key], "record of type {}, instance {}", key.0, key.1);
    }

    let printed =
        |domid: DomId| shell(&format!("PATH=$PATH:/usr/sbin:$(dirname $(readlink -f $(which xl))) xen-hvmctx {domid}"));
    let (one_text, other_text) = (printed(theirs), printed(ours));
    assert_eq!(one_text.lines().count(), other_text.lines().count());
    let clocks = ["HVM save record for domain", "tsc 0x", "RTC: regs", "TMR_VAL", "TSC_ADJUST"];
    for (line, ours) in one_text.lines().zip(other_text.lines()) {
        assert!(line == ours || clocks.iter().any(|clock| line.contains(clock)), "{line}\n{ours}");
    }
    assert!(one_text.lines().count() > 150, "{one_text}");
    one.len()
}

/// Compares the domains' keys, names and permissions included. What QEMU's VNC server and its keyboard add to xl's guest,
/// and our own mark and serial port, are not part of it.
pub(crate) fn same_keys(theirs: DomId, ours: DomId, differing: &[&str]) -> usize {
    same_keys_but(theirs, ours, differing, &[])
}

/// The classes of backends that guests have in dom0.
const BACKENDS: [&str; 10] = ["console", "vbd", "vif", "9pfs", "vfb", "vkbd", "vtpm", "vdispl", "vsnd", "pvcalls"];

/// The same, where each guest has texts of its own: pairs of xl's and ours.
pub(crate) fn same_keys_but(theirs: DomId, ours: DomId, differing: &[&str], pairs: &[(&str, &str)]) -> usize {
    let all = shell("xenstore-ls -f -p");
    let of = |domid: DomId| -> Vec<String> {
        let vm = shell(&format!("xenstore-read /local/domain/{domid}/vm"));
        let roots = [
            format!("/local/domain/{domid}"),
            format!("/libxl/{domid}"),
            format!("/local/domain/0/device-model/{domid}"),
            vm.trim().to_owned(),
        ];
        let backends = BACKENDS.map(|kind| format!("/local/domain/0/backend/{kind}/{domid}"));
        let roots: Vec<String> = roots.into_iter().chain(backends).collect();
        // xl gives every HVM guest a paravirtual keyboard.
        let keyboard = if all.contains(&format!("/libxl/{ours}/device/vkbd")) { "/vnc-port" } else { "vkbd" };
        let skipped =
            [keyboard, "/console/vnc-", "/console/tty", "/serial", "/dombuild", "/start_time", "/device-model-pid"];
        all.lines()
            .filter_map(|line| {
                let root = roots.iter().position(|root| {
                    line.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with(['/', ' ']))
                })?;
                let path = line.split(" = ").next().unwrap_or(line);
                if skipped.iter().chain(differing).any(|part| path.contains(part)) && !path.contains("backends/") {
                    return None;
                }
                let rest = line[roots[root].len()..].to_owned();
                let name = if domid == theirs { "\"x\"" } else { "\"t\"" };
                let mut rest = rest.replace(name, "NAME").replace(vm.trim(), "VM");
                rest = rest.replace(&vm.trim()["/vm/".len()..], "UUID");
                for kind in BACKENDS {
                    rest = rest.replace(&format!("backend/{kind}/{domid}/"), &format!("backend/{kind}/N/"));
                }
                for (old, new) in [
                    (format!("domain/{domid}/"), "domain/N/"),
                    (format!("domain/{domid}\""), "domain/N\""),
                    (format!("n{domid})"), "nN)"),
                    (format!("n{domid},"), "nN,"),
                    (format!("r{domid})"), "rN)"),
                    (format!("domid = \"{domid}\""), "domid = N"),
                    (format!("frontend-id = \"{domid}\""), "frontend-id = N"),
                ] {
                    rest = rest.replace(&old, new);
                }
                for (index, (their, our)) in pairs.iter().enumerate() {
                    rest = rest.replace(if domid == theirs { their } else { our }, &format!("OWN{index}"));
                }
                Some(format!("{root} {rest}"))
            })
            .collect()
    };
    let (one, other) = (of(theirs), of(ours));
    let missing: Vec<_> = one.iter().filter(|line| !other.contains(line)).collect();
    let added: Vec<_> = other.iter().filter(|line| !one.contains(line)).collect();
    assert!(missing.is_empty() && added.is_empty(), "only xl's: {missing:#?}\nonly ours: {added:#?}");
    // A PVH guest without a device has the fewest, 44.
    assert!(one.len() > 40, "{one:#?}");
    one.len()
}
