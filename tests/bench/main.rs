//! The benchmark: run as root in dom0 by `tests/nested.sh bench`. docs/benchmarks.md describes what it measures and
//! how.
//!
//! Outside Xen, or if no part of it is named, it reports that it was skipped.

mod breakdown;
mod chart;
mod check;
mod curves;
mod devices;
mod figures;
mod guests;
mod migration;
mod run;
mod slope;
#[path = "../dom0/standing.rs"]
#[expect(dead_code, reason = "shared with the tests in dom0, which use all of it")]
mod standing;
mod start;
#[path = "../dom0/support.rs"]
#[expect(dead_code, reason = "shared with the tests in dom0, which use all of it")]
mod support;
mod ways;
#[path = "../dom0/xenopsd.rs"]
#[expect(dead_code, reason = "shared with the tests in dom0, which use all of it")]
mod xenopsd;

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use guests::{Guest, HVM_1_GIB, HVM_8_GIB, HVM_128_MIB};
use ways::{Bench, Way};

/// How many pairs are measured by the clock.
const PAIRS: usize = 12;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let part: fn(&Bench, &[&str]) -> ExitCode = match words.first() {
        Some(&"table") => table,
        Some(&"wall") => wall,
        Some(&"breakdown") => |bench, _| {
            println!("{}", breakdown::table(bench, &guests::xen_version()));
            ExitCode::SUCCESS
        },
        Some(&"migration") => |bench, wanted| {
            support::figures("migration.md", &migration::table(bench, &guests::xen_version(), wanted));
            ExitCode::SUCCESS
        },
        Some(&"slope") => |bench, _| {
            slope::write(&slope::measure(bench, &slope::LEVELS, &[0, 1]), &guests::xen_version());
            ExitCode::SUCCESS
        },
        Some(&"check") => |bench, words| check::run(bench, words[0]),
        _ => {
            eprintln!("skipped: no part of the benchmark is named; see tests/nested.sh --help");
            return ExitCode::SUCCESS;
        }
    };
    if let Some(reason) = support::why_not_here() {
        eprintln!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    // By the clock, idling takes time, and a guest of 1 GiB is scrubbed in no time.
    let rest = if ["wall", "slope"].contains(&words[0]) { 2 } else { 20 };
    part(&Bench::open(rest), &words[1..])
}

/// Everything in virtual time: of all guests, or of those with one of these words in their titles.
fn table(bench: &Bench, wanted: &[&str]) -> ExitCode {
    let version = guests::xen_version();
    let is_wanted = |guest: &Guest| wanted.is_empty() || wanted.iter().any(|word| guest.title.contains(word));
    let chosen: Vec<_> = guests::ALL.iter().copied().filter(is_wanted).collect();
    let mut rows = vec![figures::measure_true(bench)];
    let (mut qemu, mut firmware) = (Vec::new(), Vec::new());
    let mut spent = String::new();
    for guest in &chosen {
        rows.extend(figures::measure_all(bench, guest));
        if [HVM_128_MIB.title, HVM_8_GIB.title].contains(&guest.title) {
            let alone = |way| start::qemu_alone(bench, guest, way);
            qemu.push((guest.title, alone(Way::Create), alone(Way::Xl)));
        }
        if guest.title == HVM_128_MIB.title {
            firmware =
                [Way::Create, Way::Xl].map(|way| (guest.title, way, start::firmware(bench, guest, way))).to_vec();
            spent = breakdown::table(bench, &version);
        }
        // What is there already outlives a run that is ended.
        let json =
            serde_json::json!({ "xen": version, "rows": rows, "qemu_own_start_ns": qemu, "firmware_ns": firmware });
        for (file, content) in [
            ("table.md", figures::table(&rows, &version)),
            ("device-model.md", figures::rest_table(&rows, &qemu, &version)),
            ("firmware.md", figures::firmware_table(&firmware, &version)),
            ("breakdown.md", spent.clone()),
            ("benchmarks.svg", chart::draw(&rows, &version)),
            ("benchmarks.json", format!("{json:#}\n")),
        ] {
            fs::write(Path::new("/results").join(file), content).expect("written");
        }
    }
    let with_devices = devices::ALL.iter().any(is_wanted).then(|| devices::table(bench, &version));
    if let Some(table) = &with_devices {
        fs::write("/results/devices.md", table).expect("written");
    }
    println!("{}", figures::table(&rows, &version));
    println!("{}", figures::rest_table(&rows, &qemu, &version));
    println!("{}", figures::firmware_table(&firmware, &version));
    println!("{spent}\n{}", with_devices.unwrap_or_default());
    ExitCode::SUCCESS
}

/// What virtual time on one processor cannot show: how much runs side by side on two.
fn wall(bench: &Bench, _: &[&str]) -> ExitCode {
    let version = guests::xen_version();
    let guests = [HVM_128_MIB, HVM_1_GIB].map(|guest| {
        // The first ones load files.
        start::pairs(bench, &guest, 1);
        (guest.title, start::pairs(bench, &guest, PAIRS), start::qemu_pairs(bench, &guest, PAIRS / 2))
    });
    support::figures("wall.md", &figures::wall_table(&guests, &version));
    let json = serde_json::json!({ "xen": version, "pairs_ns": guests });
    fs::write("/results/wall.json", format!("{json:#}\n")).expect("written");
    ExitCode::SUCCESS
}
