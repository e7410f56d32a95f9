//! What was measured of one way to one guest, and the table of all of them.

use std::fmt::Write;

use serde::Serialize;

use super::guests::{Guest, HVM_128_MIB};
use super::run::Calls;
use super::ways::{Bench, Way};

/// How often each is timed.
const REPEATS: usize = 3;

/// A row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) guest: &'static str,
    pub(crate) way: Way,
    /// From spawn to exit, of each run, in order of size.
    pub(crate) ns: Vec<u64>,
    /// ioctls on privcmd.
    pub(crate) hypercalls: u32,
    /// Round trips to xenstored.
    pub(crate) xenstore: u32,
    /// The most memory in use at once.
    pub(crate) rss_kib: u64,
}

impl Row {
    /// Runs it once for its calls, which brings its files into memory, too, and then by the clock.
    pub(crate) fn measure(bench: &Bench, guest: &Guest, way: Way, repeats: usize) -> Self {
        let Calls { xen, xenstore } = bench.count(guest, way);
        let runs: Vec<_> = (0..repeats).map(|_| bench.time(guest, way)).collect();
        let mut ns: Vec<_> = runs.iter().map(|ran| ran.ns).collect();
        ns.sort_unstable();
        let rss_kib = runs.iter().map(|ran| ran.rss_kib).max().unwrap_or(0);
        Self { guest: guest.title, way, ns, hypercalls: xen, xenstore, rss_kib }
    }

    /// The median, in milliseconds.
    pub(crate) fn ms(&self) -> f64 {
        ms(self.ns[self.ns.len() / 2])
    }

    /// Half of the distance between the fastest and the slowest run.
    pub(crate) fn spread(&self) -> f64 {
        ms(self.ns[self.ns.len() - 1] - self.ns[0]) / 2.0
    }
}

/// Milliseconds of nanoseconds.
pub(crate) fn ms(ns: u64) -> f64 {
    // Below 2^53 by far
    u32::try_from(ns / 1000).map_or(f64::INFINITY, f64::from) / 1000.0
}

/// Measures every way for one guest; prints each row on standard error at once.
pub(crate) fn measure_all(bench: &Bench, guest: &Guest) -> Vec<Row> {
    let ways = Way::of(guest.kind).iter();
    ways.map(|way| {
        let row = Row::measure(bench, guest, *way, REPEATS);
        eprintln!("{}, {}: {:.2} ms", row.guest, way.title(), row.ms());
        row
    })
    .collect()
}

/// What a process costs.
pub(crate) fn measure_true(bench: &Bench) -> Row {
    Row::measure(bench, &HVM_128_MIB, Way::True, REPEATS)
}

/// The row of a way to a guest.
pub(crate) fn find<'a>(rows: &'a [Row], guest: &str, way: Way) -> Option<&'a Row> {
    rows.iter().find(|row| row.guest == guest && row.way == way)
}

/// All rows, as Markdown.
pub(crate) fn table(rows: &[Row], version: &str) -> String {
    let mut text = format!(
        "| Xen {version} | | virtual ms | ± | × floor | × xl | hypercalls | xenstore | resident MiB |\n\
         |:---|:---|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    let mut last = "";
    for row in rows {
        let guest = if row.way == Way::True || row.guest == last { "" } else { row.guest };
        last = if row.way == Way::True { "" } else { row.guest };
        let over = |other: Option<&Row>| other.map_or(String::new(), |other| format!("{:.2}", row.ms() / other.ms()));
        let floor = over(row.way.floor().and_then(|floor| find(rows, row.guest, floor)));
        let xl = if row.way.creates() { over(find(rows, row.guest, Way::Xl)) } else { String::new() };
        let Row { way, hypercalls, xenstore, rss_kib, .. } = row;
        let (title, ms, spread, mib) = (way.title(), row.ms(), row.spread(), ms(rss_kib * 1_000_000 / 1024));
        let _ = writeln!(
            text,
            "| {guest} | {title} | {ms:.2} | {spread:.2} | {floor} | {xl} | {hypercalls} | {xenstore} | {mib:.1} |"
        );
    }
    text
}

/// What creating a guest with QEMU takes besides the floor and QEMU's own start.
pub(crate) fn rest_table(rows: &[Row], qemu: &[(&'static str, u64, u64)], version: &str) -> String {
    let mut text = format!(
        "| Xen {version}, virtual ms | | all | floor | QEMU's own start | the rest | × xl's |\n\
         |:---|:---|---:|---:|---:|---:|---:|\n"
    );
    for (guest, ours, xls) in qemu {
        let of = |way| find(rows, guest, way).map_or(f64::NAN, Row::ms);
        let (all, xl_all, floor) = (of(Way::Create), of(Way::Xl), of(Way::Floor));
        let (ours, xls) = (ms(*ours), ms(*xls));
        let (rest, xl_rest) = (all - floor - ours, xl_all - floor - xls);
        let ratio = rest / xl_rest;
        let _ = writeln!(
            text,
            "| {guest} | {} | {all:.1} | {floor:.1} | {ours:.1} | {rest:.1} | {ratio:.2} |\n\
             | | {} | {xl_all:.1} | {floor:.1} | {xls:.1} | {xl_rest:.1} | 1 |",
            Way::Create.title(),
            Way::Xl.title()
        );
    }
    text
}

/// How soon the firmware speaks: for each guest and builder, hvmloader and SeaBIOS.
pub(crate) fn firmware_table(rows: &[(&'static str, Way, (u64, u64))], version: &str) -> String {
    let mut text = format!(
        "| Xen {version}, virtual ms after unpause | built by | hvmloader's first line | SeaBIOS's |\n|:---|:---|---:|---:|\n"
    );
    for (guest, way, (hvmloader, seabios)) in rows {
        let _ = writeln!(text, "| {guest} | {} | {:.1} | {:.1} |", way.title(), ms(*hvmloader), ms(*seabios));
    }
    text
}

/// Nanoseconds that dombuild and xl took, in turns.
pub(crate) type Pairs = Vec<(u64, u64)>;

/// Pairs by the clock: of the whole, and of QEMU alone.
pub(crate) fn wall_table(guests: &[(&'static str, Pairs, Pairs)], version: &str) -> String {
    let mut text = format!(
        "| Xen {version}, wall clock, two vCPUs | | pairs | `dombuild create` ms | `xl create -p` ms | ratio | ratio in each pair |\n\
         |:---|:---|---:|---:|---:|---:|---:|\n"
    );
    let of_all = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        (all[0], all[all.len() / 2], all[all.len() - 1])
    };
    for (guest, whole, qemu) in guests {
        for (guest, what, pairs) in [(*guest, "all", whole), ("", "QEMU's own start", qemu)] {
            let (_, ours, _) = of_all(pairs.iter().map(|(ours, _)| ms(*ours)).collect());
            let (_, xls, _) = of_all(pairs.iter().map(|(_, xls)| ms(*xls)).collect());
            let (least, _, most) = of_all(pairs.iter().map(|(ours, xls)| ms(*ours) / ms(*xls)).collect());
            let (count, ratio) = (pairs.len(), ours / xls);
            let _ = writeln!(
                text,
                "| {guest} | {what} | {count} | {ours:.0} | {xls:.0} | {ratio:.2} | {least:.2} to {most:.2} |"
            );
        }
    }
    text
}
