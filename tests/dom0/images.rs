//! Kernels and ramdisks of guests' owners: hostile ones are refused here as well, and good ones reach the guest as they are.

use std::fs;
use std::io::Write;

use dombuild::memory::{Gfn, Kind, Pages};
use dombuild::payload::kernel::cache::KERNELS_DIRECTORY;
use dombuild::xen::{DomId, Interface};

use super::memory::Memory;
use super::support::{GUEST_INITRD, GUEST_KERNEL, PACKED_KERNEL, dombuild, file, path_text, shell};
use super::xenopsd::{USUAL, Vm};
use super::{Test, sample};

#[path = "../data/kernels.rs"]
pub(crate) mod kernels;

pub(crate) const TESTS: &[Test] = &[
    ("walk_hostile_images", hostile_images),
    ("images_become_what_xl_makes_of_them", the_same_kernel_as_xls),
    ("images_ramdisks_reach_the_guest_unread", ramdisks),
];

fn hostile_images() {
    let mut refused = 0;
    for (number, (name, image, _)) in kernels::hostile().into_iter().enumerate() {
        if !sample::full() && number % 8 != 0 && !name.contains("bomb") {
            continue;
        }
        let kernel = file(&image);
        let kinds = kernels::kinds_that_refuse(&name);
        // One after the other; all of them in a full run.
        let sampled = if sample::full() { kinds } else { std::slice::from_ref(&kinds[number / 8 % kinds.len()]) };
        for kind in sampled {
            let kind = kind.to_string();
            let arguments =
                ["create", "--name", "t", "--kind", &kind, "--memory", "64", "--kernel", path_text(&kernel)];
            let ran = dombuild(&arguments);
            // It says that it has as much as is allowed, for which a dom0 of 1 GiB has no memory.
            let error = if name == "zstd-bomb-lying-at-the-limit" {
                ran.failed_with(4, "not-enough-memory")
            } else {
                ran.failed_with(3, "bad-kernel")
            };
            let message = error["message"].as_str().expect("text");
            assert!(!message.contains("signal") && !message.contains("seconds"), "{name} as {kind}: {message}");
        }
        refused += 1;
    }
    println!("{refused} images refused");

    // Through the front door, with its handles of Xen open.
    let bomb = file(&kernels::bzimage(&kernels::sized(kernels::zstd_zeros(8 << 13), 1 << 20)));
    for (kind, prefix) in [(Kind::Pvh, "hvm_build 8 "), (Kind::Pv, "xc_dom_linux_build 8 ")] {
        let vm = Vm::new(kind, 1, 64, 64, USUAL);
        let line = vm.build(&["-image", path_text(&bomb)]).error(prefix);
        assert!(line.contains("Zstandard"), "{line}");
        vm.destroy();
    }
}

/// A segment as the log of a build reports it: its first frame, and its number of frames.
fn segment(log: &str, name: &str) -> (u64, u64) {
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number");
    let line = log.lines().find(|line| line.contains("xc_dom_alloc_segment") && line.contains(&format!(" {name} ")));
    let line = line.unwrap_or_else(|| panic!("{name} is not in {log}"));
    let (_, place) = line.split_once("(pfn ").expect("its place");
    let (first, count) = place.split_once(" + ").expect("its size");
    (hex(first), hex(count.split(' ').next().expect("a number")))
}

/// Builds such a guest, paused; its domain and the log.
fn build(kind: &str, kernel: &str, ramdisk: Option<&str>) -> (DomId, String) {
    let ramdisk = ramdisk.map(|path| format!("--ramdisk {path}")).unwrap_or_default();
    let log = shell(&format!(
        "RUST_LOG=dombuild=debug dombuild create --name t --kind {kind} --model libxl --memory 256 --paused \
         --kernel {kernel} {ramdisk} --cmdline console=hvc0 2>&1"
    ));
    (domid("t"), log)
}

fn domid(name: &str) -> DomId {
    DomId::new(shell(&format!("xl domid {name}")).trim().parse().expect("a number")).expect("a domid")
}

/// xl gives libxenguest the file itself.
fn the_same_kernel_as_xls() {
    let config = format!("type=\"pvh\"\nname=\"x\"\nmemory=256\nkernel=\"{PACKED_KERNEL}\"\nextra=\"console=hvc0\"\n");
    let config = file(config.as_bytes());
    shell(&format!("xl create -p {}", path_text(&config)));
    let xen = Interface::open().expect("Xen");
    let theirs = Memory::of(&xen, domid("x"));
    shell(&format!("rm -rf {KERNELS_DIRECTORY}"));
    // The second time it is found unpacked.
    for how in ["unpacks it", "was unpacked before"] {
        let (ours, log) = build("pvh", PACKED_KERNEL, None);
        assert!(log.contains(how), "{how:?} is not in {log}");
        let ours = Memory::of(&xen, ours);
        let (first, count) = segment(&log, "kernel");
        let inside = |gfn: &u64| (first..first + count).contains(gfn);
        let pages = ours.non_zero.keys().filter(|gfn| inside(gfn)).count();
        assert!(pages > 5000, "{pages} pages of kernel");
        let different: Vec<_> = theirs.differences(&ours).into_iter().filter(inside).collect();
        assert_eq!(different, [0; 0], "pages of the kernel that differ");
        println!("{pages} pages of kernel are the same as xl's: {how}");
        dombuild(&["destroy", "t"]).success();
    }
    shell("xl destroy x");
    let kept = shell(&format!("find {KERNELS_DIRECTORY} -mindepth 1 -printf '%M %u\\n'"));
    assert_eq!(kept, "-r-------- root\n", "one file of root's");
}

fn ramdisks() {
    let good = fs::read(GUEST_INITRD).expect("it is there");
    let mut lying = kernels::gzip(&vec![7; 1 << 20]);
    let at = lying.len() - 4;
    lying[at..].copy_from_slice(&100u32.to_le_bytes());
    let padded = [kernels::gzip(b"small"), vec![0; 509]].concat();
    let xen = Interface::open().expect("Xen");
    for (what, ramdisk) in [("good", &good), ("lying", &lying), ("padded", &padded)] {
        let mut path = tempfile::NamedTempFile::new().expect("a file");
        path.write_all(ramdisk).expect("written");
        let wanted = (ramdisk.len() as u64).div_ceil(4096);
        for kind in ["pvh", "pv"] {
            let (domid, log) = build(kind, GUEST_KERNEL, Some(path_text(path.path())));
            assert!(!log.contains("unzip"), "{what}: libxenguest has unpacked something: {log}");
            let (first, count) = segment(&log, "module0");
            assert_eq!(count, wanted, "{what}, {kind}: as many pages as the file has");
            if kind == "pvh" {
                let mut there = vec![0; usize::try_from(count).expect("small") * 4096];
                xen.map(domid, Gfn(first), Pages(count)).expect("its frames").read(0, &mut there);
                assert!(there[..ramdisk.len()] == ramdisk[..], "{what}: byte for byte");
                assert!(there[ramdisk.len()..].iter().all(|byte| *byte == 0), "{what}: and nothing else");
            }
            dombuild(&["destroy", "t"]).success();
        }
    }
}
