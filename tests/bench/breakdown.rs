//! The time of each stage of a build, from the program's own events.

use std::fmt::Write;

use serde_json::Value;

use super::figures::ms;
use super::guests::{Guest, HVM_128_MIB, PVH_512_MIB};
use super::run::Ran;
use super::ways::{Bench, Way};

const COLUMNS: [(&Guest, Way); 4] =
    [(&HVM_128_MIB, Way::Build), (&HVM_128_MIB, Way::Bare), (&HVM_128_MIB, Way::Create), (&PVH_512_MIB, Way::Create)];

/// What is in no stage.
const START: &str = "start of the process, up to its first event";
const BETWEEN: &str = "between stages";
const END: &str = "end of the process, after its last event";

/// Measures, and makes a table: a column for each way that matters, a row for each stage.
pub(crate) fn table(bench: &Bench, version: &str) -> String {
    let mut stages: Vec<String> = Vec::new();
    let mut columns = Vec::new();
    for (guest, way) in COLUMNS {
        bench.time_with_events(guest, way);
        let ran = bench.time_with_events(guest, way);
        let spans = spans(&ran);
        // Each stage behind the one that it came after; what is in no stage, at the end.
        let mut at = 0;
        for (what, _) in spans.iter().filter(|(what, _)| what.starts_with('`')) {
            at = stages.iter().position(|stage| stage == what).unwrap_or_else(|| {
                stages.insert(at, what.clone());
                at
            }) + 1;
        }
        columns.push((format!("{}, {}", guest.title, way.title()), ran.ns, spans));
    }
    let mut text = format!("| Xen {version}, virtual ms, with `--events-fd` |");
    let mut line = "|:---|".to_owned();
    let mut all = "| all |".to_owned();
    for (title, ns, _) in &columns {
        let _ = write!(text, " {title} |");
        line.push_str("---:|");
        let _ = write!(all, " {:.1} |", ms(*ns));
    }
    let _ = writeln!(text, "\n{line}");
    stages.insert(0, START.to_owned());
    stages.extend([BETWEEN, END].map(str::to_owned));
    for stage in &stages {
        let _ = write!(text, "| {stage} |");
        for (_, _, spans) in &columns {
            let spent: u64 = spans.iter().filter(|(what, _)| what == stage).map(|(_, ns)| ns).sum();
            let there = spans.iter().any(|(what, _)| what == stage);
            let _ = if there { write!(text, " {:.1} |", ms(spent)) } else { write!(text, " |") };
        }
        text.push('\n');
    }
    text + &all + "\n"
}

/// The time between two events belongs to the stage that the first one began.
pub(crate) fn spans(ran: &Ran) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    let (mut from, mut what) = (0, START.to_owned());
    for (time, line) in &ran.lines {
        let event: Value = serde_json::from_str(line).expect("an event");
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let next = match (text("event"), text("state")) {
            ("stage", "started") => format!("`{}`", text("stage")),
            ("stage", _) | ("start", _) => BETWEEN.to_owned(),
            ("result", _) => END.to_owned(),
            _ => continue,
        };
        all.push((std::mem::replace(&mut what, next), *time - from));
        from = *time;
    }
    all.push((what, ran.ns - from));
    all
}
