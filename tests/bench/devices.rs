//! Guests with disks and network cards: `create` next to `xl create -p`, and the time of the step that attaches them.

use std::fmt::Write;
use std::fs::File;

use super::breakdown::spans;
use super::figures::{Row, ms};
use super::guests::Guest;
use super::support::{run, shell};
use super::ways::{Bench, Way};

pub(crate) const BRIDGE: &str = "bench0";
const DISKS: u8 = 4;
const REPEATS: usize = 3;

/// The guests that xl makes as well.
pub(crate) const ALL: [Guest; 2] = [
    Guest::pvh("PVH 128 MiB, a disk and a card", 1, 1),
    Guest { disks: 1, cards: 1, ..Guest::hvm("HVM 128 MiB, a disk and a card", 128) },
];

/// The guests whose step `devices` is timed.
const STEPS: [Guest; 6] = [
    Guest::pvh("1 disk", 1, 0),
    Guest::pvh("1 card", 0, 1),
    Guest::pvh("1 disk, 1 card", 1, 1),
    Guest::pvh("2 disks, 2 cards", 2, 2),
    Guest::pvh("4 disks", 4, 0),
    Guest::pvh("4 cards", 0, 4),
];

/// The file of a disk.
pub(crate) fn image(number: u8) -> String {
    format!("/tmp/bench-disk-{number}")
}

/// The images and the bridge; the bridge goes with the value.
struct Site;

impl Site {
    fn new() -> Self {
        shell(&format!("ip link add {BRIDGE} type bridge && ip link set {BRIDGE} up"));
        for number in 0..DISKS {
            let file = File::create(image(number)).expect("made");
            file.set_len(1 << 20).expect("sized");
        }
        Self
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        run("ip", &["link", "delete", BRIDGE]);
    }
}

/// Measures, and makes both tables.
pub(crate) fn table(bench: &Bench, version: &str) -> String {
    let _site = Site::new();
    let mut text = format!(
        "| Xen {version} | | virtual ms | ± | × xl | hypercalls | xenstore |\n|:---|:---|---:|---:|---:|---:|---:|\n"
    );
    for guest in &ALL {
        let [ours, xls] = [Way::Create, Way::Xl].map(|way| Row::measure(bench, guest, way, REPEATS));
        for (row, title) in [(&ours, guest.title), (&xls, "")] {
            let (ms, spread, ratio) = (row.ms(), row.spread(), row.ms() / xls.ms());
            let Row { way, hypercalls, xenstore, .. } = row;
            eprintln!("{}, {}: {ms:.2} ms", row.guest, way.title());
            let _ = writeln!(
                text,
                "| {title} | {} | {ms:.2} | {spread:.2} | {ratio:.2} | {hypercalls} | {xenstore} |",
                way.title()
            );
        }
    }
    let steps: Vec<_> = STEPS.iter().map(|guest| (guest.title, step(bench, guest))).collect();
    let one = |title| steps.iter().find(|(other, _)| *other == title).map_or(f64::NAN, |(_, ns)| ms(*ns));
    let (disk, card) = (one("1 disk"), one("1 card"));
    let _ = write!(
        text,
        "\n| Xen {version}, PVH, the step `devices` | virtual ms | × 1 disk | × 1 card |\n|:---|---:|---:|---:|\n"
    );
    for (title, ns) in &steps {
        let ms = ms(*ns);
        let _ = writeln!(text, "| {title} | {ms:.2} | {:.2} | {:.2} |", ms / disk, ms / card);
    }
    text
}

/// Nanoseconds that `create` takes to attach the guest's devices: the median.
fn step(bench: &Bench, guest: &Guest) -> u64 {
    let mut times: Vec<u64> = (0..REPEATS)
        .map(|_| {
            let ran = bench.time_with_events(guest, Way::Create);
            spans(&ran).into_iter().filter(|(what, _)| what == "`devices`").map(|(_, ns)| ns).sum()
        })
        .collect();
    times.sort_unstable();
    eprintln!("{}: {times:?} ns", guest.title);
    times[REPEATS / 2]
}
