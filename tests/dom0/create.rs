//! What `create` builds is what the plan said, in every shape.

use std::thread;
use std::time::Duration;

use dombuild::xen::{Interface, PodPages};
use serde_json::Value;

use super::Test;
use super::support::{create, dombuild, domid, number, pages_in_dump, shell, wait_for_guest_line};

pub(crate) const TESTS: &[Test] = &[
    ("create_128_mib_1_vcpu", || without_device_model(&["--memory", "128MiB"])),
    ("create_1_gib_4_vcpus", || without_device_model(&["--memory", "1GiB", "--vcpus", "4"])),
    ("create_across_the_mmio_hole", || without_device_model(&["--memory", "4GiB", "--vcpus", "2"])),
    ("create_with_a_larger_hole", || without_device_model(&["--memory", "3GiB", "--mmio-hole", "2GiB"])),
    ("create_populated_on_demand", populated_on_demand),
    ("create_without_video", || without_device_model(&["--memory", "64", "--video", "0"])),
    ("create_with_a_larger_paging_pool", || without_device_model(&["--memory", "128", "--shadow-multiplier", "4"])),
    ("create_waits_for_memory_that_is_being_freed", waits_for_memory),
    ("libxc_writes_to_our_log_alone", our_log_alone),
    ("seabios_starts", seabios_starts),
    ("the_guest_sees_the_memory_across_the_hole", seabios_across_the_hole),
    ("ovmf_starts", ovmf_starts),
];

/// Compares every figure of the plan with Xen: as dombuild measured it, as the library reports it now, and as the
/// hypervisor prints it itself.
fn assert_as_planned(built: &Value, running: bool) {
    let plan = &built["plan"];
    let domid = domid(built);
    let owned = number(plan, if running { "owned_pages_running" } else { "owned_pages_built" });
    let most = number(plan, "xen_max_kib") / 4;
    assert_eq!(number(plan, "max_pages"), most);
    assert_eq!(pages_in_dump(domid), (owned, most), "Xen's own dump");

    // QEMU takes its own memory while the rest is populated: there is no moment of the build alone.
    let (told, other) = if running { ("running", "built") } else { ("built", "running") };
    let measured = &built[format!("measured_{told}")];
    assert_eq!(number(measured, "owned_pages"), owned);
    assert_eq!(number(measured, "max_pages"), most);
    assert_eq!(number(measured, "paging_pool_kib"), number(plan, "shadow_kib"));
    assert!(built.get(format!("measured_{other}")).is_none(), "{built}");

    let xen = Interface::open().expect("Xen");
    let pool = xen.paging_pool(domid).expect("the paging pool");
    assert_eq!(pool.0, number(plan, "shadow_kib"));
}

fn without_device_model(arguments: &[&str]) {
    let built = create("t", &[arguments, &["--device-model", "none", "--paused"]].concat());
    assert_as_planned(&built, false);
    assert_eq!(number(&built, "store_gfn"), 0xfeffc);
    assert_eq!(number(&built, "console_gfn"), 0xfefff);
    assert!(number(&built, "store_port") < number(&built, "console_port"), "the store's comes first: {built}");
    // The plan that `plan` prints is the plan that was carried out, but for what only QEMU adds.
    let mut planned = dombuild(&[&["plan"], arguments].concat()).success().json();
    planned["owned_pages_running"] = built["plan"]["owned_pages_running"].clone();
    assert_eq!(planned, built["plan"]);
    dombuild(&["destroy", "t"]).success();
}

fn populated_on_demand() {
    let built = create("t", &["--memory", "128", "--maxmem", "256", "--device-model", "none", "--paused"]);
    assert_eq!(built["plan"]["populate_on_demand"], true);
    assert_as_planned(&built, false);
    let xen = Interface::open().expect("Xen");
    let PodPages { cache, entries } = xen.pod_pages(domid(&built)).expect("PoD");
    // What was not touched yet is an entry; what the target grants and was not touched yet is in the cache.
    let build_max = number(&built["plan"], "build_max_kib") / 4;
    let build_start = number(&built["plan"], "build_start_kib") / 4;
    assert_eq!(entries.0 - cache.0, build_max - build_start, "{entries:?} {cache:?}");
    let target = shell(&format!("xenstore-read /local/domain/{}/memory/target", domid(&built)));
    assert_eq!(target.trim().parse::<u64>().expect("KiB"), build_start * 4 - 1024, "XSA-153");
    dombuild(&["destroy", "t"]).success();
}

/// Two guests that do not fit at once, the second begun while the first is still there.
fn waits_for_memory() {
    create("first", &["--memory", "5GiB", "--device-model", "none", "--paused"]);
    let second = thread::spawn(|| {
        dombuild(&["create", "--name", "t", "--memory", "4GiB", "--device-model", "none", "--paused"])
    });
    thread::sleep(Duration::from_secs(1));
    dombuild(&["destroy", "first"]).success();
    let built = second.join().expect("it ran").success().json();
    assert_as_planned(&built, false);
    dombuild(&["destroy", "t"]).success();
}

/// What libxc says comes out of our log, call by call, and not in a file of libxenguest's own.
fn our_log_alone() {
    let files = || shell("find /var/log/xen -name 'domain-builder*' | xargs -r wc -c");
    let before = files();
    let line = "RUST_LOG=dombuild=debug dombuild create --name t --memory 64 --device-model none --paused 2>&1";
    let log = shell(line);
    for call in
        ["xc_domain_create(", "xc_domain_setmaxmem(domid ", "xc_domain_populate_physmap(", "xs_introduce_domain("]
    {
        assert!(log.contains(call), "{call} is not in {log}");
    }
    assert!(log.contains("dombuild::libxc"), "libxc's own words: {log}");
    assert_eq!(files(), before);
    dombuild(&["destroy", "t"]).success();
}

fn seabios_starts() {
    let built = create("t", &["--memory", "256", "--vcpus", "2", "--paused"]);
    assert_as_planned(&built, true);
    shell("xl unpause t");
    wait_for_guest_line(domid(&built), "System requested SeaBIOS", 60);
    wait_for_guest_line(domid(&built), "SeaBIOS (version", 120);
    dombuild(&["destroy", "t"]).success();
}

/// hvmloader prints the memory map that it gives to the BIOS: the guest's own view of the plan's layout.
fn seabios_across_the_hole() {
    let built = create("t", &["--memory", "4GiB", "--vcpus", "4"]);
    assert_as_planned(&built, true);
    let domid = domid(&built);
    wait_for_guest_line(domid, "Invoking SeaBIOS", 180);
    let prefix = format!("(d{domid}) ");
    let ends: Vec<u64> = shell("xl dmesg")
        .lines()
        .filter(|line| line.contains(&prefix) && line.ends_with(": RAM"))
        .map(|line| {
            let end = line.rsplit(" - ").next().expect("an end").trim_end_matches(": RAM").replace(':', "");
            u64::from_str_radix(&end, 16).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .collect();
    let plan = &built["plan"];
    assert_eq!(ends, [0xa_0000, number(plan, "lowmem_end_bytes"), number(plan, "highmem_end_bytes")]);
    wait_for_guest_line(domid, "SeaBIOS (version", 60);
    dombuild(&["destroy", "t"]).success();
}

fn ovmf_starts() {
    let built = create("t", &["--memory", "256", "--firmware", "ovmf", "--paused"]);
    assert_as_planned(&built, true);
    shell("xl unpause t");
    wait_for_guest_line(domid(&built), "System requested OVMF", 60);
    wait_for_guest_line(domid(&built), "Invoking OVMF", 120);
    dombuild(&["destroy", "t"]).success();
}
