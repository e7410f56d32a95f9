//! Whether a small set of figures is still what the repository says it is.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::figures::{Row, ms};
use super::guests::{Guest, HVM_1_GIB, HVM_128_MIB, PVH_512_MIB};
use super::slope;
use super::support::shell;
use super::ways::{Bench, Way};

/// By how much a figure may differ, in hundredths.
const TOLERANCE: f64 = 2.0;
/// How to say that a figure is another one now.
const UPDATE: &str = "tests/nested.sh bench --check --update";

/// How often each is timed. The fastest counts: in the others, something else had its turn before the end.
const REPEATS: usize = 3;

/// With how many standing guests the verbs are timed.
const STANDING: [u32; 2] = [0, 50];

/// What is kept of each row.
#[derive(Debug, Serialize, Deserialize)]
struct Expected {
    virtual_ms: f64,
    hypercalls: u32,
}

/// Measures the set, leaves it in /results, and holds it against the file `expected`.
pub(crate) fn run(bench: &Bench, expected: &str) -> ExitCode {
    // Whether it takes up a new guest's console before dombuild's end or behind it is the scheduler's whim, and 1 ms.
    shell("pkill -STOP xenconsoled");
    let set: [(&Guest, Way); 6] = [
        (&HVM_128_MIB, Way::Build),
        (&HVM_1_GIB, Way::Build),
        (&HVM_128_MIB, Way::Xenguest),
        (&HVM_128_MIB, Way::Bare),
        (&HVM_128_MIB, Way::Create),
        (&PVH_512_MIB, Way::Create),
    ];
    let mut measured: BTreeMap<String, Expected> = set
        .iter()
        .map(|(guest, way)| {
            let row = Row::measure(bench, guest, *way, REPEATS);
            let virtual_ms = (ms(row.ns[0]) * 100.0).round() / 100.0;
            (
                format!("{}, {}", guest.title, way.title().replace('`', "")),
                Expected { virtual_ms, hypercalls: row.hypercalls },
            )
        })
        .collect();
    measured.extend(slope::measure(bench, &STANDING, &[0]).iter().map(|point| {
        let virtual_ms = (ms(point.ns[0]) * 100.0).round() / 100.0;
        (point.title(), Expected { virtual_ms, hypercalls: point.calls.xen })
    }));
    let text = serde_json::to_string_pretty(&measured).expect("figures");
    fs::write("/results/expected.json", format!("{text}\n")).expect("written");
    println!("{text}");
    let moved = fs::read_to_string(expected).map_or_else(
        |_| vec!["there are no figures to hold these against".to_owned()],
        |text| differences(&serde_json::from_str(&text).expect("figures"), &measured),
    );
    if moved.is_empty() {
        println!("every figure is within {TOLERANCE} % of tests/bench/expected-4.17.json");
        return ExitCode::SUCCESS;
    }
    println!("{}\nIf that is meant: {UPDATE}", moved.join("\n"));
    ExitCode::FAILURE
}

/// A line for each figure that has moved, or that only one side has.
fn differences(expected: &BTreeMap<String, Expected>, measured: &BTreeMap<String, Expected>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, now) in measured {
        let Some(before) = expected.get(name) else {
            found.push(format!("{name}: not in the file"));
            continue;
        };
        for (what, before, now) in [
            ("virtual ms", before.virtual_ms, now.virtual_ms),
            ("hypercalls", f64::from(before.hypercalls), f64::from(now.hypercalls)),
        ] {
            let change = (now / before - 1.0) * 100.0;
            if change.abs() > TOLERANCE {
                found.push(format!("{name}: {before} {what} expected, {now} measured, {change:+.1} %"));
            }
        }
    }
    found.extend(
        expected.keys().filter(|name| !measured.contains_key(*name)).map(|name| format!("{name}: not measured")),
    );
    found
}
