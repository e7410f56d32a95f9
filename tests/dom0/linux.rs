//! Linux under PVH and PV: it comes up with its vCPUs, sees the memory that the plan says, and balloons.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::xen::{DomId, Interface};
use serde_json::Value;

use super::Test;
use super::support::{
    CMDLINE, GUEST_INITRD, GUEST_KERNEL, PACKED_KERNEL, create, dombuild, domid, figures, number, pages_in_dump, shell,
    wait_for,
};

pub(crate) const TESTS: &[Test] = &[
    ("linux_sees_its_memory_as_pvh", linux_pvh),
    ("linux_sees_its_memory_as_pv", linux_pv),
    ("figures_of_ballooning_on_demand", balloons_on_demand),
    ("figures_of_ballooning_without_on_demand", balloons_without),
    ("figures_of_ballooning_as_pv", balloons_as_pv),
    ("a_guest_that_does_not_follow", does_not_follow),
    ("sizes_that_a_guest_cannot_have", impossible_sizes),
    ("xls_guest_balloons", xls_guest_balloons),
];

/// What the kernel does at every start and no test is about, left out: guards against speculation, tests of its ciphers, a
/// search for PCI devices and a table of kprobes. Emulated, these take much of the time.
pub(crate) const QUICK: &str = "mitigations=off cryptomgr.notests pci=noearly initcall_blacklist=init_kprobe_trace";

/// Starts the small Linux guest and waits until it is up.
pub(crate) fn start(arguments: &[&str], words: &str) -> Value {
    // Nor does Xen answer for the TSC then, as it does here by default.
    let arguments = [arguments, &["--platform", "tsc_mode=2"]].concat();
    start_kernel(GUEST_KERNEL, &arguments, &format!("{QUICK} {words}"))
}

fn start_kernel(kernel: &str, arguments: &[&str], words: &str) -> Value {
    let cmdline = format!("{CMDLINE} {words}");
    let files = ["--kernel", kernel, "--ramdisk", GUEST_INITRD, "--cmdline", &cmdline];
    expect_guest();
    let built = create("t", &[arguments, &files].concat());
    wait_until_ready(domid(&built));
    built
}

/// Waits until the small Linux guest is up.
pub(crate) fn wait_until_ready(domid: DomId) {
    let xen = Interface::open().expect("Xen");
    let ended = || xen.domain(domid).expect("told").is_none_or(|info| info.shutdown.is_some());
    let end = Instant::now() + Duration::from_secs(240);
    while said("ready").is_none() && !panicked() && !ended() && Instant::now() < end {
        thread::sleep(Duration::from_millis(200));
    }
    assert!(said("ready").is_some(), "{CRASHED}");
}

/// The message of a test whose guest ended, reported a panic, or hung before it was up.
pub(crate) const CRASHED: &str = "the guest's kernel crashed or hangs";

/// Whether the kernel of the last guest has crashed. Software emulation of SVM makes Linux fault at impossible places,
/// with flags that no CPU has or at Xen's addresses: four of nineteen starts of xl's guests with 2 vCPUs (Linux 6.12,
/// Xen 4.20), none of eleven with 1. If the fault precedes the console, only Xen reports it.
pub(crate) fn kernel_crashed() -> bool {
    panicked() || triple_faults() > TRIPLE_FAULTS.load(Ordering::Relaxed)
}

/// The same, as far as its console shows it.
fn panicked() -> bool {
    let console = console();
    ["Kernel panic", "Oops", "PANIC", "BUG: "].iter().any(|word| console.contains(word))
}

/// How many there were before the last guest.
static TRIPLE_FAULTS: AtomicUsize = AtomicUsize::new(0);

fn triple_faults() -> usize {
    shell("xl dmesg").matches("Triple fault").count()
}

/// Removes the output of an earlier guest, so that it and Xen's messages about it do not count for the next guest.
pub(crate) fn expect_guest() {
    let _ = fs::remove_file(CONSOLE);
    TRIPLE_FAULTS.store(triple_faults(), Ordering::Relaxed);
}

const CONSOLE: &str = "/var/log/xen/console/guest-t.log";

/// What the guest wrote to its console.
pub(crate) fn console() -> String {
    fs::read(CONSOLE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The rest of the last line `guest: WORD ...`.
pub(crate) fn said(word: &str) -> Option<String> {
    let prefix = format!("guest: {word}");
    console().lines().rev().find_map(|line| Some(line.split_once(&prefix)?.1.trim().to_owned()))
}

fn said_number(word: &str) -> u64 {
    let said = said(word).unwrap_or_else(|| panic!("{word} is not in {}", console()));
    said.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{word}: {said}"))
}

/// The RAM ranges of its memory map that the guest reported, in bytes.
fn ram_seen() -> Vec<(u64, u64)> {
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("an address");
    let console = console();
    let ranges = console.lines().filter_map(|line| line.split_once("guest: e820 [mem ")?.1.split_once("] "));
    let ram = ranges.filter(|(_, kind)| kind.trim() == "usable");
    ram.map(|(range, _)| {
        let (first, last) = range.split_once('-').expect("a range");
        (hex(first), hex(last) + 1)
    })
    .collect()
}

/// How much of the RAM between two addresses the guest reports as usable; Linux removes the first page, and below 1 MiB
/// the areas of a PC, from what it calls usable.
fn ram_between(start: u64, end: u64) -> u64 {
    ram_seen().iter().map(|(first, last)| last.min(&end).saturating_sub(*first.max(&start))).sum()
}

fn linux_pvh() {
    // Four on the one processor that works here stand still for half a minute, or longer, where Linux stops them all.
    let built = start_kernel(PACKED_KERNEL, &["--kind", "pvh", "--memory", "256", "--vcpus", "2"], "");
    assert_eq!(said_number("cpus"), 2);
    // It counts what its memory map calls usable.
    assert!(said_number("balloon current_kb").abs_diff(256 << 10) <= 1024);
    let plan = &built["plan"];
    assert_eq!(ram_between(1 << 20, 1 << 32), number(plan, "lowmem_end_bytes") - (1 << 20));
    // Less what the kernel itself takes, which is more than it looks.
    let total = said_number("MemTotal_kB");
    assert!(total < 256 << 10 && total > 170 << 10, "{total}");
    // What it was built with, or a page less: its balloon driver may give one back.
    let (owned, limit) = pages_in_dump(domid(&built));
    assert!((65_544..=65_545).contains(&owned), "{owned}");
    assert_eq!(limit, number(plan, "max_pages"));
    dombuild(&["destroy", "t"]).success();

    // Across the hole.
    let built = start(&["--kind", "pvh", "--memory", "4500MiB", "--model", "libxl"], "");
    let plan = &built["plan"];
    assert_eq!(number(plan, "lowmem_end_bytes"), 0xfc00_0000);
    assert_eq!(ram_between(1 << 20, 1 << 32), 0xfc00_0000 - (1 << 20));
    assert_eq!(ram_between(1 << 32, u64::MAX), number(plan, "highmem_end_bytes") - (1 << 32));
    dombuild(&["destroy", "t"]).success();
}

fn linux_pv() {
    let built = start_kernel(PACKED_KERNEL, &["--kind", "pv", "--memory", "256", "--vcpus", "2"], "");
    assert_eq!(said_number("cpus"), 2);
    assert_eq!(said_number("balloon current_kb"), 256 << 10);
    assert_eq!(ram_between(1 << 20, u64::MAX), 255 << 20);
    assert_eq!(pages_in_dump(domid(&built)).0, 65_536);
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!(shown["differences"], serde_json::json!([]), "{shown}");
    dombuild(&["destroy", "t"]).success();
}

/// A guest's way through several sizes, as a table.
struct Way {
    built: Value,
    table: String,
}

impl Way {
    fn of(built: Value) -> Self {
        let table = "| `dombuild balloon` to, MiB | memory/target, KiB | owned pages before | after | max pages before | after |\n\
             |---:|---:|---:|---:|---:|---:|\n";
        Self { built, table: table.to_owned() }
    }

    /// Moves the guest and checks that it is where it was sent, by Xen's own dump; what dombuild said.
    fn to(&mut self, mib: u64, tolerance: u64) -> Value {
        let moved = dombuild(&["balloon", "t", &mib.to_string(), "--timeout", "90"]).success().json();
        let (owned, limit) = pages_in_dump(domid(&self.built));
        assert!(owned.abs_diff(mib * 256) <= tolerance, "{owned} pages at {mib} MiB: {moved}");
        assert_eq!(limit, number(&moved, "max_pages"));
        let before = |name: &str| number(&moved, &format!("{name}_pages_before"));
        let told = number(&moved, "memory_target_kib");
        let _ =
            writeln!(self.table, "| {mib} | {told} | {} | {owned} | {} | {limit} |", before("owned"), before("max"));
        moved
    }

    fn end(self, file: &str) {
        figures(file, &self.table);
        dombuild(&["destroy", "t"]).success();
    }
}

fn balloons_on_demand() {
    let built = start(&["--kind", "pvh", "--memory", "256", "--maxmem", "512"], "");
    assert_eq!(number(&built["plan"], "pod_entries"), 512 * 256);
    // At the end of its start it has given back what it may not hold.
    wait_for("nothing left to populate beyond the cache", 60, || {
        let shown = dombuild(&["inspect", "t"]).success().json();
        number(&shown, "pod_entries") <= number(&shown, "pod_cache_pages") + 256
    });
    let mut way = Way::of(built);
    for mib in [200, 480, 256, 512] {
        let moved = way.to(mib, 512);
        assert_eq!(number(&moved, "max_pages"), 513 * 256, "xenops leaves the limit at static max + 1 MiB");
    }
    way.end("balloon-on-demand.md");
}

fn balloons_without() {
    let mut way = Way::of(start(&["--kind", "pvh", "--memory", "512", "--model", "libxl"], ""));
    for mib in [200, 512, 256] {
        let moved = way.to(mib, 64);
        assert_eq!(number(&moved, "max_pages"), (mib + 1) * 256, "libxl tightens the limit");
    }
    let shown = dombuild(&["inspect", "t"]).success().json();
    let causes: Vec<&str> =
        shown["differences"].as_array().expect("a list").iter().filter_map(|it| it["cause"].as_str()).collect();
    assert!(causes.iter().any(|cause| cause.starts_with("ballooned out: its target is 262144 KiB less")), "{shown}");
    assert!(causes.iter().any(|cause| cause.starts_with("the limit was lowered")), "{shown}");
    way.end("balloon-without.md");
}

fn balloons_as_pv() {
    let built = start(&["--kind", "pv", "--memory", "256", "--maxmem", "512"], "");
    assert_eq!(said_number("balloon current_kb"), 256 << 10);
    let mut way = Way::of(built);
    for mib in [512, 180, 256] {
        way.to(mib, 64);
    }
    way.end("balloon-pv.md");
}

fn does_not_follow() {
    create("t", &["--memory", "256", "--maxmem", "512", "--device-model", "none", "--paused"]);
    let ran = dombuild(&["balloon", "t", "300", "--timeout", "2"]);
    let error = ran.failed_with(8, "timed-out");
    let message = error["message"].as_str().expect("text");
    for words in ["has not arrived at", "MiB yet to give back", "within 2 seconds", "it is paused"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    // SeaBIOS runs, and knows of no balloon.
    shell("xl unpause t");
    let ran = dombuild(&["balloon", "t", "280", "--timeout", "2"]);
    assert!(ran.failed_with(8, "timed-out")["message"].as_str().expect("text").contains("balloon driver"));
    dombuild(&["destroy", "t"]).success();
}

fn impossible_sizes() {
    create("t", &["--memory", "256", "--maxmem", "512", "--device-model", "none", "--paused"]);
    let before = shell("xenstore-read /local/domain/$(xl domid t)/memory/target");
    for (size, words) in [
        ("513", "more than the static max of 512 MiB"),
        ("100", "less than the 180 MiB that a guest built to see 512 MiB needs to live"),
    ] {
        let error = dombuild(&["balloon", "t", size]).failed_with(3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(words), "{error}");
    }
    dombuild(&["balloon", "0", "512"]).failed_with(3, "bad-config");
    dombuild(&["balloon", "no-such-guest", "512"]).failed_with(3, "no-such-domain");
    assert_eq!(shell("xenstore-read /local/domain/$(xl domid t)/memory/target"), before, "nothing was changed");
    dombuild(&["destroy", "t"]).success();
}

/// Another toolstack's guest is moved by the model that fits it.
fn xls_guest_balloons() {
    let config = format!(
        "type=\"pvh\"\nname=\"t\"\nmemory=256\nmaxmem=512\nkernel=\"{GUEST_KERNEL}\"\nramdisk=\"{GUEST_INITRD}\"\n\
         extra=\"{CMDLINE}\"\n"
    );
    let config = super::support::file(config.as_bytes());
    expect_guest();
    shell(&format!("xl create {}", super::support::path_text(&config)));
    wait_for("guest: ready", 120, || said("ready").is_some());
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!(
        (&shown["model"], &shown["recorded"]),
        (&serde_json::json!("libxl"), &serde_json::json!(false)),
        "{shown}"
    );
    let moved = dombuild(&["balloon", "t", "200", "--timeout", "90"]).success().json();
    assert_eq!(number(&moved, "max_pages"), 201 * 256, "{moved}");
    // xl sees it the same way.
    // While entries are left, xl gets 1 MiB less.
    let line = shell("xl list t | tail -1");
    assert!(matches!(line.split_whitespace().nth(2), Some("199" | "200")), "{line}");
    shell("xl destroy t");
}
