//! `inspect` agrees with `plan` on every number, over a table of guests of every kind, by every model (of which a run
//! takes a sample).

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use dombuild::xen::Interface;
use serde_json::Value;

use super::Test;
use super::sample::Random;
use super::support::{GUEST_KERNEL, create, dombuild, domid, figures, number, pages_in_dump, shell};

pub(crate) const TESTS: &[Test] = &[
    ("figures_inspect_agrees_with_plan", inspect_agrees_with_plan),
    ("figures_of_what_the_host_gives", what_the_host_gives),
];

/// The request. Without a QEMU in it, there is none.
const GUESTS: [&str; 28] = [
    "--kind hvm --model xenops --memory 64 --video 0",
    "--kind hvm --model xenops --memory 256",
    "--kind hvm --model xenops --memory 256 QEMU",
    "--kind hvm --model xenops --memory 256 --video 8MiB --vcpus 4 QEMU",
    "--kind hvm --model xenops --memory 256 --video 0 QEMU",
    "--kind hvm --model xenops --memory 256 --maxmem 512 --vcpus 2 QEMU",
    "--kind hvm --model xenops --memory 512 --maxmem 1024 --vcpus 8 --shadow-multiplier 1.5",
    "--kind hvm --model xenops --memory 5GiB",
    "--kind hvm --model xenops --memory 1GiB --maxmem 6GiB",
    "--kind hvm --model xenops --memory 512 --maxmem 4GiB --mmio-hole 1GiB QEMU",
    "--kind hvm --model xapi --memory 256 --vcpus 8 QEMU",
    "--kind hvm --model xapi --memory 256 --maxmem 640 --vcpus 3",
    "--kind hvm --model libxl --memory 256 QEMU",
    "--kind hvm --model libxl --memory 300004KiB --maxmem 512 --vcpus 2 QEMU",
    "--kind hvm --model libxl --memory 4GiB",
    "--kind pvh --model xenops --memory 128",
    "--kind pvh --model xenops --memory 256 --maxmem 512 --vcpus 2",
    "--kind pvh --model xenops --memory 4GiB --maxmem 6GiB --vcpus 16",
    "--kind pvh --model xapi --memory 256 --vcpus 8",
    "--kind pvh --model xapi --memory 256 --shim",
    "--kind pvh --model libxl --memory 256 --vcpus 2",
    "--kind pvh --model libxl --memory 256 --maxmem 1GiB",
    "--kind pv --model xenops --memory 128",
    "--kind pv --model xenops --memory 256 --maxmem 512 --vcpus 2",
    "--kind pv --model xapi --memory 512 --vcpus 4",
    "--kind pv --model libxl --memory 256",
    "--kind pv --model libxl --memory 256 --maxmem 512 --vcpus 2",
    "--kind pv --model libxl --memory 4GiB --maxmem 5GiB",
];

/// The columns: what plan and inspect say of each.
const FIGURES: [(&str, &str); 5] = [
    ("owned_pages_running", "owned_pages"),
    ("max_pages", "max_pages"),
    ("pod_cache_pages", "pod_cache_pages"),
    ("pod_entries", "pod_entries"),
    ("paging_pool_kib", "paging_pool_kib"),
];

fn inspect_agrees_with_plan() {
    let version = shell("xl info xen_version").trim().to_owned();
    let mut table = format!(
        "| Xen {version} | owned pages | max pages | PoD cache | PoD entries | touched | paging pool, KiB |\n\
         |:---|---:|---:|---:|---:|---:|---:|\n"
    );
    let mut disagreements = String::new();
    for index in Random::new("agreement").sample(28, 7) {
        let guest = GUESTS[usize::try_from(index).expect("an index")];
        let (shown, wrong) = look_at(guest);
        table.push_str(&row(guest, &shown));
        if !wrong.is_empty() {
            let _ = writeln!(disagreements, "{guest}: {wrong}");
        }
    }
    figures("agreement.md", &table);
    assert!(disagreements.is_empty(), "{disagreements}");
}

/// What a host has less of once a guest is built: what the guest owns, its paging pool, and a rest which the models call
/// extra external (and xapi, of vCPUs, vcpu overhead too).
fn what_the_host_gives() {
    let mut table = "| guest | host gives, KiB | owned | paging pool | rest | counted by xenops | by xapi |\n\
         |:---|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let guests = [
        "--kind hvm --memory 128 --video 0",
        "--kind hvm --memory 128 --video 0 --vcpus 8",
        "--kind hvm --memory 128 --video 0 --vcpus 64",
        "--kind hvm --memory 4GiB --video 0",
        "--kind pvh --memory 128",
        "--kind pvh --memory 128 --vcpus 64",
        "--kind pv --memory 128",
        "--kind pv --memory 128 --vcpus 32",
    ];
    for index in Random::new("host").sample(8, 3) {
        let guest = guests[usize::try_from(index).expect("an index")];
        let mut flags: Vec<&str> = guest.split(' ').collect();
        let plan = |model: &str| dombuild(&[vec!["plan", "--model", model], flags.clone()].concat()).success().json();
        let counted = |plan: &Value| number(plan, "extra_external_kib") + number(plan, "vcpu_overhead_kib");
        let (xenops, xapi) = (counted(&plan("xenops")), counted(&plan("xapi")));
        flags.extend(["--device-model", "none", "--paused"]);
        if !guest.contains("hvm") {
            flags.extend(["--kernel", GUEST_KERNEL]);
        }
        let before = settled();
        create("t", &flags);
        let shown = dombuild(&["inspect", "t"]).success().json();
        let given = before - settled();
        dombuild(&["destroy", "t"]).success();
        let (owned, pool) = (number(&shown, "owned_pages") * 4, number(&shown, "paging_pool_kib"));
        let rest = given.checked_sub(owned + pool).unwrap_or_else(|| panic!("{guest}: {given} < {owned} + {pool}"));
        let _ = writeln!(table, "| `{guest}` | {given} | {owned} | {pool} | {rest} | {xenops} | {xapi} |");
        assert!(rest > 0, "{guest}: Xen keeps something of every domain");
    }
    figures("host.md", &table);
}

/// Free memory of the host once it has stopped changing, in KiB: Xen gives back a domain's last pages in its own time.
fn settled() -> u64 {
    let xen = Interface::open().expect("Xen");
    let free = || xen.physinfo().expect("physinfo").free_kib.0;
    let mut last = free();
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = free();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Builds one of the guests, looks at it and removes it; what was shown, and what of it is not as planned.
fn look_at(guest: &str) -> (Value, String) {
    let mut flags: Vec<&str> = guest.split(' ').collect();
    let planned = {
        let flags: Vec<&str> = flags.iter().copied().filter(|flag| *flag != "QEMU").collect();
        dombuild(&[vec!["plan"], flags].concat()).success().json()
    };
    if flags.last() == Some(&"QEMU") {
        flags.pop();
    } else {
        flags.extend(["--device-model", "none"]);
    }
    if !guest.contains("hvm") {
        flags.extend(["--kernel", GUEST_KERNEL]);
    }
    flags.push("--paused");
    let built = create("t", &flags);
    let shown = dombuild(&["inspect", "t"]).success().json();
    let mut wrong = Vec::new();

    // One plan, in every output.
    let mut plan = planned.clone();
    plan["owned_pages_running"] = built["plan"]["owned_pages_running"].clone();
    if plan != built["plan"] || plan != shown["plan"] {
        wrong.push("three plans".to_owned());
    }
    for (planned, seen) in FIGURES {
        // A page that was touched has left cache and entries alike.
        let touched = if seen.starts_with("pod") { shown["touched_pages"].as_u64().unwrap_or(0) } else { 0 };
        let (planned, seen) = (number(&shown["plan"], planned), number(&shown, seen) + touched);
        if planned != seen {
            wrong.push(format!("{planned} planned, {seen} shown"));
        }
    }
    if number(&shown, "claimed_pages") != 0 || shown["differences"] != serde_json::json!([]) {
        wrong.push(shown["differences"].to_string());
    }
    if shown["plan"]["populate_on_demand"].as_bool() != Some(shown["touched_pages"].is_u64()) {
        wrong.push(format!("touched: {}", shown["touched_pages"]));
    }
    // Witnesses that share no code with it: the hypervisor's own dump, and xenstore.
    let dumped = pages_in_dump(domid(&built));
    if dumped != (number(&shown, "owned_pages"), number(&shown, "max_pages")) {
        wrong.push(format!("Xen's dump says {dumped:?}"));
    }
    let key = |name: &str| -> u64 {
        let path = format!("/local/domain/{}/memory/{name}", domid(&built));
        shell(&format!("xenstore-read {path}")).trim().parse().expect("KiB")
    };
    let kept = if shown["plan"]["populate_on_demand"] == true { 1024 } else { 0 };
    if key("static-max") != number(&planned, "static_max_kib") || key("target") + kept != number(&planned, "guest_kib")
    {
        wrong.push(format!("xenstore: static-max {}, target {}", key("static-max"), key("target")));
    }
    dombuild(&["destroy", "t"]).success();
    (shown, wrong.join("; "))
}

fn row(guest: &str, shown: &Value) -> String {
    let on_demand = shown["touched_pages"].as_u64();
    let pod =
        |name: &str| on_demand.map_or_else(|| "–".to_owned(), |touched| (number(shown, name) + touched).to_string());
    format!(
        "| `{guest}` | {} | {} | {} | {} | {} | {} |\n",
        number(shown, "owned_pages"),
        number(shown, "max_pages"),
        pod("pod_cache_pages"),
        pod("pod_entries"),
        on_demand.map_or_else(|| "–".to_owned(), |touched| touched.to_string()),
        number(shown, "paging_pool_kib")
    )
}
