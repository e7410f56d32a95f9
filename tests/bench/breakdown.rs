//! Where the time of a build goes, stage by stage, as the program's own events tell it.

use std::process::ExitCode;

use serde_json::Value;

use super::figures::ms;
use super::guests::{Guest, HVM_1_GIB, HVM_128_MIB, PVH_512_MIB};
use super::run::Ran;
use super::ways::{Bench, Way};

/// Prints a table for each verb that matters.
pub(crate) fn print(bench: &Bench) -> ExitCode {
    let rows: [(&Guest, Way); 5] = [
        (&HVM_128_MIB, Way::Build),
        (&HVM_1_GIB, Way::Build),
        (&HVM_128_MIB, Way::Bare),
        (&HVM_128_MIB, Way::Create),
        (&PVH_512_MIB, Way::Create),
    ];
    for (guest, way) in rows {
        bench.time(guest, way);
        let without = bench.time(guest, way).ns;
        let ran = bench.time_with_events(guest, way);
        println!("\n{}, {}: {:.2} ms without events\n", guest.title, way.title(), ms(without));
        println!("| virtual ms | from | |\n|---:|---:|:---|");
        for (from, to, what) in spans(&ran) {
            println!("| {:.2} | {:.2} | {what} |", ms(to - from), ms(from));
        }
    }
    ExitCode::SUCCESS
}

/// The time between two events belongs to the stage that the first one began, or to what comes after the one that it ended.
fn spans(ran: &Ran) -> Vec<(u64, u64, String)> {
    let mut all = Vec::new();
    let (mut from, mut what) = (0, "start of the process".to_owned());
    for (time, line) in &ran.lines {
        let event: Value = serde_json::from_str(line).expect("an event");
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let next = match (text("event"), text("state")) {
            ("stage", "started") => text("stage").to_owned(),
            ("stage", _) => format!("after {}", text("stage")),
            ("start" | "result", _) => format!("after the event {}", text("event")),
            _ => continue,
        };
        all.push((from, *time, std::mem::replace(&mut what, next)));
        from = *time;
    }
    all.push((from, ran.ns, what));
    // Between the end of a stage and the beginning of the next there is next to nothing.
    all.retain(|(from, to, what)| !what.starts_with("after ") || to - from > 50_000);
    all
}
