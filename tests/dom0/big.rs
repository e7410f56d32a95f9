//! Large guests, on a host with 40 GiB of memory of which the machine gives what is touched (`tests/nested.sh --host big`).
//!
//! A freed page is scrubbed, and so touched: the large guest stays to the end of the run, and is never destroyed there.

use super::Test;
use super::standing::leave_standing;
use super::support::{GUEST_KERNEL, Ran, create, dombuild, domid, number, pages_in_dump, run, shell};

pub(crate) const TESTS: &[Test] = &[
    ("big_guest_of_128_processors", processors),
    // The last of all: what comes after it has no memory.
    ("big_guest_of_36_gib", memory),
];

const PAGE: u64 = 4096;

/// Compares a paused guest with its plan, by `inspect`, by Xen's own dump and by what the host has less of.
fn assert_as_planned(name: &str, built: &serde_json::Value, free_mib_before: u64) {
    let shown = dombuild(&["inspect", name]).success().json();
    assert_eq!(shown["differences"], serde_json::json!([]), "{shown}");
    let [owned, most] = ["owned_pages", "max_pages"].map(|field| number(&shown, field));
    assert_eq!(pages_in_dump(domid(built)), (owned, most));
    let pool_mib = number(&shown, "paging_pool_kib") >> 10;
    let taken = free_mib_before - free_mib();
    let least = ((owned * PAGE) >> 20) + pool_mib;
    // Besides the pages and the pool, Xen takes its own structures: less than 16 MiB, and 2 pages for each vCPU.
    assert!((least..least + 32).contains(&taken), "{least} MiB of pages and pool, and {taken} MiB less of free memory");
}

fn free_mib() -> u64 {
    shell("xl info free_memory").trim().parse().expect("MiB")
}

fn processors() {
    let before = free_mib();
    let built =
        create("many", &["--kind", "pvh", "--memory", "256", "--vcpus", "128", "--kernel", GUEST_KERNEL, "--paused"]);
    assert_as_planned("many", &built, before);
    let rows = shell("xl vcpu-list many");
    assert_eq!(rows.lines().skip(1).count(), 128, "{rows}");
    let line = shell("xl list many | tail -1");
    let words: Vec<&str> = line.split_whitespace().collect();
    // Before the guest starts the others, one of them is online.
    assert_eq!(words[..5], ["many", &*domid(&built).to_string(), "256", "1", "--p---"], "{line}");
    dombuild(&["destroy", "many"]).success();
}

fn memory() {
    let before = free_mib();
    assert!(before > 36 * 1024, "the host has {before} MiB free: this test needs `--host big`");
    leave_standing("large");
    let words =
        ["create", "--name", "large", "--memory", "36GiB", "--vcpus", "4", "--device-model", "none", "--paused"];
    // The log has each call, with the order of its extents.
    let Ran { status, stdout, stderr } = run("env", &[&["RUST_LOG=debug", "dombuild", "--json"], &words[..]].concat());
    assert_eq!(status, Some(0), "{stderr}");
    let built: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let of_gib: u64 = stderr
        .lines()
        .filter(|line| line.contains("xc_domain_populate_physmap") && line.contains("of order 18"))
        .filter_map(|line| line.split(" extents of order 18").next()?.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    // One gibibyte has the video memory and the hole in it, and the first one the gap below 1 MiB.
    assert!((33..=36).contains(&of_gib), "{of_gib} extents of 1 GiB");
    assert_as_planned("large", &built, before);
    let line = shell("xl list large | tail -1");
    let mib: u64 = line.split_whitespace().nth(2).expect("memory").parse().expect("MiB");
    assert!((35 * 1024..=36 * 1024).contains(&mib), "{line}");
    assert_eq!(shell("xl vcpu-list large").lines().skip(1).count(), 4);
    println!("36 GiB: {of_gib} extents of 1 GiB, {mib} MiB by xl list");
}
