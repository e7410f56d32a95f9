//! Guest after guest in one dom0: what each leaves in Xen, in xenstored and in the daemons is nothing.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use dombuild::xen::Interface;

use super::Test;
use super::faults::tiny_kernel;
use super::sample::count;
use super::support::{create, dombuild, figures, file, path_text, shell};

pub(crate) const TESTS: &[Test] = &[("walk_soak", a_soak_costs_nothing)];

/// What may grow.
#[derive(Debug, Clone, Copy)]
struct Use {
    free_kib: u64,
    nodes: usize,
    store_bytes: usize,
    /// xenstored's own memory, in KiB.
    xenstored_kib: u64,
    xenstored_files: usize,
    xenconsoled_files: usize,
}

impl Use {
    fn now() -> Self {
        let store = shell("xenstore-ls -fp");
        let (xenstored, xenconsoled) = (pid_of("xenstored"), pid_of("xenconsoled"));
        let files = |pid: &str| fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
        let status = fs::read_to_string(format!("/proc/{xenstored}/status")).expect("a process");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        Self {
            free_kib: Interface::open().expect("Xen").physinfo().expect("physinfo").free_kib.0,
            nodes: store.lines().count(),
            store_bytes: store.len(),
            xenstored_kib: resident.trim().trim_end_matches(" kB").parse().expect("KiB"),
            xenstored_files: files(&xenstored),
            xenconsoled_files: files(&xenconsoled),
        }
    }

    /// Once the last guest's structures have been given back, which Xen does when every processor has come by; after a
    /// minute at the latest.
    fn settled() -> Self {
        let mut last = Self::now();
        for _ in 0..12 {
            thread::sleep(Duration::from_secs(5));
            let next = Self::now();
            if next.free_kib == last.free_kib {
                break;
            }
            last = next;
        }
        last
    }
}

fn pid_of(daemon: &str) -> String {
    shell(&format!("pidof {daemon}")).split_whitespace().next().expect("it runs").to_owned()
}

/// One in five with a device model: those take the longest.
fn one_more(number: u32, kernel: &Path) {
    let kernel = ["--kind", "pvh", "--kernel", path_text(kernel), "--ramdisk", path_text(kernel)];
    let bare = ["--device-model", "none", "--vcpus", "2"];
    let kind: &[&str] = match number % 5 {
        0 => &["--vcpus", "2"],
        1 | 3 => &kernel,
        _ => &bare,
    };
    create("t", &[&["--memory", "64", "--paused"], kind].concat());
    dombuild(&["destroy", "t"]).success();
}

/// The first ten bring about what stays by design: directories, the daemons' own buffers.
fn a_soak_costs_nothing() {
    let cycles = count(10, 500);
    let kernel = file(&tiny_kernel());
    (0..10).for_each(|number| one_more(number, &kernel));
    let before = Use::settled();
    for number in 0..cycles {
        one_more(number, &kernel);
        if number % 25 == 24 {
            println!("{} guests: {} KiB free", number + 1, Use::settled().free_kib);
        }
    }
    let after = Use::settled();
    figures("soak", &format!("{cycles} guests, one after the other: {before:?} before, {after:?} after\n"));
    assert!(after.free_kib + 64 >= before.free_kib, "{before:?} {after:?}");
    assert_eq!(after.nodes, before.nodes, "{before:?} {after:?}");
    assert_eq!(after.store_bytes, before.store_bytes, "{before:?} {after:?}");
    assert!(after.xenstored_kib <= before.xenstored_kib + 1024, "{before:?} {after:?}");
    assert_eq!(after.xenstored_files, before.xenstored_files, "{before:?} {after:?}");
    assert_eq!(after.xenconsoled_files, before.xenconsoled_files, "{before:?} {after:?}");
}
