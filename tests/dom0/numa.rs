//! A host with two NUMA nodes: where the memory of guests is, by Xen's own count, and the nodes that guests see.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Child;

use dombuild::xen::{DomId, Interface};
use serde_json::Value;

use super::Test;
use super::devices::HVM_QUICK;
use super::linux::{self, QUICK};
use super::passthrough::{acpi_tables, guest_memory, number_at};
use super::support::{
    CMDLINE, GUEST_INITRD, GUEST_KERNEL, PACKED_KERNEL, create, dombuild, domid, figures, file, number, path_text, run,
    shell, start_silently, wait_for_guest_line,
};

pub(crate) const TESTS: &[Test] = &[
    ("numa_memory_is_where_it_was_planned", planned),
    ("numa_full_nodes_are_refused_or_reported", full_nodes),
    ("numa_builds_at_once_do_not_take_the_same_memory", at_once),
    ("numa_pool_with_one_nodes_processors", pool_of_a_node),
    ("numa_nodes_of_an_xl_file", xl_file),
    ("numa_tables_of_the_guests", tables),
    ("numa_linux_sees_its_nodes", linux_sees_nodes),
];

const PVH: [&str; 4] = ["--kind", "pvh", "--kernel", GUEST_KERNEL];
const PV: [&str; 4] = ["--kind", "pv", "--kernel", GUEST_KERNEL];
const HVM: [&str; 2] = ["--device-model", "none"];

/// The lines from the one that names a domain, which Xen 4.20 calls `d1` and Xen 4.17 `Domain 1`.
fn from_domain(text: &str, domid: DomId) -> impl Iterator<Item = &str> {
    let names = [format!(" Domain {domid} (total: "), format!(" d{domid} (total: ")];
    text.lines().skip_while(move |line| !names.iter().any(|name| line.contains(name)))
}

/// The pages of a domain by node, as Xen's debug key u prints them to its console: the witness.
fn counted(domid: DomId) -> BTreeMap<u64, u64> {
    shell("xl dmesg -c >/dev/null; xl debug-keys u; sleep 0.5");
    let text = shell("xl dmesg");
    let mut lines = from_domain(&text, domid).skip(1);
    let node = |line: &str| {
        let (node, pages) = line.split_once("Node ")?.1.split_once(": ")?;
        Some((node.trim().parse().ok()?, pages.trim().parse().ok()?))
    };
    let counts: BTreeMap<u64, u64> = lines.by_ref().map_while(node).collect();
    assert_eq!(counts.len(), 2, "{text}");
    counts
}

/// The pages by node in what `create` printed. Nodes without pages are not listed.
fn in_plan(built: &Value) -> BTreeMap<u64, u64> {
    let nodes = built["nodes"].as_array().unwrap_or_else(|| panic!("no nodes in {built}"));
    nodes.iter().map(|on| (number(on, "node"), number(on, "pages"))).collect()
}

fn with_both(mut nodes: BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    for node in [0, 1] {
        nodes.entry(node).or_insert(0);
    }
    nodes
}

/// Creates a guest, and compares Xen's count and inspect's with its plan. Returns the planned pages, and adds a row to a table.
fn check(table: &mut String, flags: &[&str]) -> BTreeMap<u64, u64> {
    let built = create("t", &[flags, &["--paused"]].concat());
    let domid = domid(&built);
    let (planned, counted) = (with_both(in_plan(&built)), counted(domid));
    // Xen does not count the cache of populate on demand, which is on the node that has the guest.
    let measured = &built[if built["measured_running"].is_null() { "measured_built" } else { "measured_running" }];
    let cache = number(measured, "pod_cache_pages");
    let mut expected = planned.clone();
    if cache > 0 {
        let home = expected.values_mut().max().expect("two nodes");
        *home -= cache;
    }
    assert_eq!(counted, expected, "{flags:?}");
    let inspected = dombuild(&["inspect", "t", "--nodes"]).success().json();
    for seen in inspected["nodes"].as_array().expect("nodes") {
        assert_eq!(number(seen, "planned"), number(seen, "xen"), "{inspected}");
        assert_eq!(number(seen, "xen"), counted[&number(seen, "node")], "{inspected}");
    }
    let shown: Vec<&str> = flags.iter().copied().filter(|word| !word.starts_with('/') && *word != "--kernel").collect();
    let cache = if cache > 0 { format!(" ({cache} of them in the cache)") } else { String::new() };
    let row = format!(
        "| `{}` | {} | {} | {} | {}{cache} |\n",
        shown.join(" "),
        planned[&0],
        planned[&1],
        counted[&0],
        counted[&1]
    );
    print!("{row}");
    table.push_str(&row);
    dombuild(&["destroy", "t"]).success();
    planned
}

fn planned() {
    let (one, two) = ("vcpu/0/affinity=0011", "vcpu/1/affinity=0011");
    let vnodes = ["--vcpus", "2", "--vnode", "pnode=0,size=64MiB,vcpus=0", "--vnode", "pnode=1,size=64MiB,vcpus=1"];
    let both = ["--vcpus", "2", "--vnode", "pnode=1,size=96MiB,vcpus=0", "--vnode", "pnode=1,size=32MiB,vcpus=1"];
    let mut table =
        "| `create` | planned on node 0 | on node 1 | Xen counts on node 0 | on node 1 |\n|---|---|---|---|---|\n"
            .to_owned();
    let free = check(&mut table, &[&HVM[..], &["--memory", "128"]].concat());
    assert!(free.values().any(|pages| *pages == 0), "one node has all: {free:?}");
    let table = RefCell::new(table);
    let only = |node: u64, flags: &[&[&str]]| {
        let planned = check(&mut table.borrow_mut(), &flags.concat());
        assert_eq!(planned[&(1 - node)], 0, "{flags:?}");
    };
    let split = |flags: &[&[&str]]| {
        let planned = check(&mut table.borrow_mut(), &flags.concat());
        assert!(planned.values().all(|pages| *pages > 10_000), "{flags:?}: {planned:?}");
    };
    for (node, list) in [(0, "0"), (1, "1")] {
        only(node, &[&HVM, &["--memory", "128", "--nodes", list]]);
        only(node, &[&PVH, &["--memory", "128", "--nodes", list]]);
        only(node, &[&PV, &["--memory", "128", "--nodes", list]]);
        only(node, &[&PV, &["--memory", "128", "--nodes", list, "--placement", "strict"]]);
    }
    // With QEMU, whose video memory is on the same node.
    only(1, &[&["--memory", "128", "--nodes", "1"]]);
    // The vCPUs' hard affinity decides, also where there are more vCPUs than CPUs.
    only(1, &[&HVM, &["--memory", "64", "--platform", one]]);
    only(1, &[&HVM, &["--memory", "64", "--vcpus", "2", "--platform", one, "--platform", two]]);
    only(1, &[&PVH, &["--memory", "128", "--platform", "vcpu/0/soft-affinity=list:node:1"]]);
    only(1, &[&HVM, &["--memory", "64", "--maxmem", "128", "--nodes", "1"]]);
    only(0, &[&PVH, &["--memory", "128", "--maxmem", "256", "--nodes", "0"]]);
    split(&[&HVM, &["--memory", "256", "--nodes", "0-1"]]);
    split(&[&PVH, &["--memory", "256", "--nodes", "0,1", "--placement", "strict"]]);
    split(&[&PV, &["--memory", "256", "--nodes", "0,1", "--placement", "strict"]]);
    // More vCPUs than a node has CPUs.
    split(&[&HVM, &["--memory", "256", "--vcpus", "4"]]);
    split(&[&HVM, &["--memory", "128"], &vnodes]);
    split(&[&PVH, &["--memory", "128"], &vnodes]);
    split(&[&["--memory", "128"], &vnodes]);
    only(1, &[&HVM, &["--memory", "128"], &both]);
    figures("nodes.md", &table.borrow());
}

/// The free memory of a node, in MiB.
fn free(node: usize) -> u64 {
    Interface::open().expect("Xen").numa_nodes().expect("nodes")[node].free.0 >> 20
}

fn full_nodes() {
    let wanted = (free(0) + 64).to_string();
    let flags = ["--memory", &wanted, "--nodes", "0", "--paused"];
    let ran = dombuild(&[&["create", "--name", "t"], &HVM[..], &flags, &["--placement", "strict"]].concat());
    let error = ran.failed_with(4, "not-enough-memory");
    assert!(error["message"].as_str().expect("text").contains("node 0 has "), "{error}");
    let dry =
        dombuild(&[&["create", "--dry-run", "--name", "t"], &HVM[..], &flags, &["--placement", "strict"]].concat());
    assert_eq!(dry.failed_with(4, "not-enough-memory")["stage"], error["stage"]);

    // Without strict, the rest is elsewhere, and it is said how much.
    let ran = dombuild(&[&["create", "--name", "t"], &HVM[..], &flags].concat()).success();
    assert!(ran.stderr.contains("NUMA node 0 is full"), "{ran:?}");
    let built = ran.json();
    let elsewhere = number(&built, "pages_on_other_nodes");
    // The special pages name no node.
    let special = 16;
    let counted = counted(domid(&built));
    assert!((elsewhere..=elsewhere + special).contains(&counted[&1]), "{elsewhere} {counted:?}");
    assert!(elsewhere > 0, "{built}");
    dombuild(&["destroy", "t"]).success();

    for flags in [["--nodes", "5"], ["--vnode", "pnode=5,size=128MiB,vcpus=0"]] {
        let ran = dombuild(&[&["create", "--name", "t", "--memory", "128"], &HVM[..], &flags].concat());
        let error = ran.failed_with(3, "bad-config");
        assert_eq!(error["stage"], "create-domain", "{error}");
        assert!(error["message"].as_str().expect("text").contains("it has 0, 1"), "{error}");
    }
    // A virtual node must have its memory.
    let size = (free(1) + 64) / 2 * 2;
    let memory = (size + 64).to_string();
    let large = format!("pnode=1,size={size}MiB,vcpus=0");
    let flags = ["--memory", &memory, "--vcpus", "2", "--vnode", &large, "--vnode", "pnode=0,size=64MiB,vcpus=1"];
    let ran = dombuild(&[&["create", "--name", "t"], &HVM[..], &flags].concat());
    let error = ran.failed_with(4, "not-enough-memory");
    assert!(error["message"].as_str().expect("text").contains("node 1 has "), "{error}");
}

/// Strict guests at once: what one run has chosen, the next one does not count on, though Xen's claims know no node.
fn at_once() {
    let size = (free(1) / 4).to_string();
    let names = ["a", "b", "c"];
    let start = |name: &&str| {
        let flags = ["--nodes", "1", "--placement", "strict", "--paused", "--memory", &size];
        start_silently(&[&["create", "--name", name], &HVM[..], &flags].concat())
    };
    let running: Vec<Child> = names.iter().map(start).collect();
    for mut child in running {
        assert!(child.wait().expect("it ended").success());
    }
    for name in names {
        let seen = dombuild(&["inspect", name, "--nodes"]).success().json();
        let counts: Vec<_> = seen["nodes"].as_array().expect("nodes").iter().map(|on| number(on, "xen")).collect();
        assert_eq!(counts[0], 0, "{seen}");
        dombuild(&["destroy", name]).success();
    }
}

/// A CPU pool `one` of the CPUs of node 1; they go back to the first pool with the value.
struct PoolOne;

impl PoolOne {
    fn new() -> Self {
        shell("xl cpupool-cpu-remove Pool-0 node:1");
        let pool = Self;
        shell("xl cpupool-create 'name=\"one\"' 'cpus=\"node:1\"' >/dev/null");
        pool
    }
}

impl Drop for PoolOne {
    fn drop(&mut self) {
        run("xl", &["cpupool-destroy", "one"]);
        run("xl", &["cpupool-cpu-add", "Pool-0", "node:1"]);
    }
}

/// The most free memory is on node 0, and the guest's CPU pool has the CPUs of node 1 alone.
fn pool_of_a_node() {
    let pool = PoolOne::new();
    let flags = [&HVM[..], &["--memory", "64", "--cpupool", "one"]].concat();
    let planned = check(&mut String::new(), &flags);
    let dry = dombuild(&[&["create", "--dry-run", "--name", "t"], &flags[..]].concat()).success().json();
    drop(pool);
    assert_eq!(planned[&0], 0, "{planned:?}");
    assert_eq!(with_both(in_plan(&dry)), planned);
}

fn xl_file() {
    let text = "name=\"t\"\ntype=\"hvm\"\nvga=\"none\"\nvnuma=[[\"pnode=0\",\"size=128\",\"vcpus=0\",\"vdistances=10,21\"],\
                [\"pnode=1\",\"size=128\",\"vcpus=1\",\"vdistances=21,10\"]]\n";
    let config = file(text.as_bytes());
    let layout = |domid: DomId| {
        let counts = counted(domid);
        let text = shell("xl dmesg");
        let lines = from_domain(&text, domid).skip(3);
        let rest: Vec<String> = lines.take(7).map(|line| line.replace("(XEN)", "").trim().to_owned()).collect();
        (counts, rest)
    };
    shell(&format!("xl create -p {}", path_text(&config)));
    let of_xl = layout(DomId::new(shell("xl domid t").trim().parse().expect("a number")).expect("a guest's"));
    shell("xl destroy t");
    let built = dombuild(&["create", path_text(&config), "--paused"]).success().json();
    let ours = layout(domid(&built));
    assert_eq!(ours.0, with_both(in_plan(&built)));
    assert_eq!(ours.1, of_xl.1, "the layout that Xen shows");
    // libxl's guest has the first 640 KiB and the special pages on either node.
    for node in [0, 1] {
        assert!(ours.0[&node].abs_diff(of_xl.0[&node]) < 256, "{ours:?} {of_xl:?}");
    }
    let listed = shell("xl list -l t");
    assert!(listed.contains("vnuma_nodes"), "{listed}");
    let ran = dombuild(&["save", "t", "/var/tmp/t.saved"]);
    assert_ne!(ran.status, Some(0), "a guest with nodes cannot be saved");
    dombuild(&["destroy", "t"]).success();
}

const TWO: [&str; 6] = [
    "--vcpus",
    "2",
    "--vnode",
    "pnode=0,size=128MiB,vcpus=0,distances=10:30",
    "--vnode",
    "pnode=1,size=128MiB,vcpus=1,distances=40:10",
];

/// What SRAT and SLIT say: (node, APIC id) of the vCPUs; (node, start, length) of the ranges; the distances.
#[derive(Debug, PartialEq, Eq)]
struct Affinities {
    vcpus: Vec<(u64, u64)>,
    ranges: Vec<(u64, u64, u64)>,
    distances: Vec<u8>,
}

fn affinities(tables: &[Vec<u8>]) -> Affinities {
    let table = |name: &[u8]| tables.iter().find(|table| table.starts_with(name)).expect("the table is there");
    let (srat, slit) = (table(b"SRAT"), table(b"SLIT"));
    let (mut vcpus, mut ranges) = (Vec::new(), Vec::new());
    let mut rest = &srat[48..];
    while !rest.is_empty() {
        let (entry, after) = rest.split_at(usize::from(rest[1]));
        match (entry[0], entry.len()) {
            (0, 16) if number_at(entry, 4, 4) & 1 == 1 => vcpus.push((entry[2].into(), entry[3].into())),
            (1, 40) if number_at(entry, 28, 4) & 1 == 1 => {
                ranges.push((number_at(entry, 2, 4), number_at(entry, 8, 8), number_at(entry, 16, 8)));
            }
            other => panic!("an entry of type and length {other:?}"),
        }
        rest = after;
    }
    assert_eq!(number_at(slit, 36, 8), 2);
    Affinities { vcpus, ranges, distances: slit[44..].to_vec() }
}

/// The tables that begin at a PVH guest's RSDP.
fn pvh_tables(domid: DomId) -> Vec<Vec<u8>> {
    let table = |at: u64| guest_memory(domid, at, number_at(&guest_memory(domid, at, 36), 4, 4));
    let xsdt = table(number_at(&guest_memory(domid, 0xfc00_0000, 36), 24, 8));
    xsdt[36..].chunks(8).map(|entry| table(number_at(entry, 0, 8))).collect()
}

fn tables() {
    let mib = |mib: u64| mib << 20;
    let built = create("t", &[&PVH[..], &["--memory", "256", "--paused"], &TWO].concat());
    let of_pvh = affinities(&pvh_tables(domid(&built)));
    let expected = Affinities {
        vcpus: vec![(0, 0), (1, 2)],
        ranges: vec![(0, 0, mib(128)), (1, mib(128), mib(128))],
        distances: vec![10, 30, 40, 10],
    };
    assert_eq!(of_pvh, expected);
    dombuild(&["destroy", "t"]).success();

    let built = create("t", &[&["--memory", "256"], &TWO[..]].concat());
    wait_for_guest_line(domid(&built), "SeaBIOS (version", 240);
    let of_hvm = affinities(&acpi_tables(domid(&built)));
    // Its video memory is no RAM: each node has given half of it.
    let ranges = vec![(0, 0, mib(120)), (1, mib(120), mib(120))];
    assert_eq!(of_hvm, Affinities { ranges, ..expected });
    dombuild(&["destroy", "t"]).success();
}

fn linux_sees_nodes() {
    let see = |kind: &str| {
        let cmdline = format!("{CMDLINE} {QUICK} {}", if kind == "hvm" { HVM_QUICK } else { "" });
        let kernel = if kind == "hvm" { PACKED_KERNEL } else { GUEST_KERNEL };
        let files = ["--kind", kind, "--kernel", kernel, "--ramdisk", GUEST_INITRD, "--cmdline", &cmdline];
        linux::expect_guest();
        let built = create("t", &[&["--memory", "256", "--platform", "tsc_mode=2"], &files[..], &TWO].concat());
        linux::wait_until_ready(domid(&built));
        for (node, distances) in [(0, "10 30"), (1, "40 10")] {
            let said = linux::said(&format!("node {node} ")).unwrap_or_else(|| panic!("{}", linux::console()));
            let words: Vec<&str> = said.split_whitespace().collect();
            assert_eq!((words[0], words[1], words[2]), ("cpus", &node.to_string()[..], "kb"), "{said}");
            // The kernel's own parts and its tables are not in it.
            let kb: u64 = words[3].parse().expect("a number");
            assert!((60 << 10..=128 << 10).contains(&kb), "{said}");
            assert!(said.ends_with(&format!("distances {distances}")), "{said}");
        }
        println!("{kind}: {:?}, {:?}", linux::said("node 0 "), linux::said("node 1 "));
        dombuild(&["destroy", "t"]).success();
    };
    see("pvh");
    // There, the firmware and the unpacking of the kernel take many minutes in the emulation.
    if env!("DOMBUILD_XEN_VERSION") == "4.17" && !super::sample::full() {
        println!("as HVM on this Xen only with --full");
    } else {
        see("hvm");
    }
}
