//! The times of dombuild and xl to save, restore and migrate a guest: in turns, with one guest, in one run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::xen::{DomainInfo, Interface, ShutdownReason};

use super::figures::ms;
use super::guests::NAME;
use super::run::{self, Ran};
use super::support::{GUEST_INITRD, GUEST_KERNEL, dombuild, shell, wait_for};
use super::ways::Bench;

/// How often each is timed, after a first run that brings the programs into memory.
const REPEATS: usize = 3;

/// A file system in memory, for the saved guest.
const FOLDER: &str = "/run/bench-saved";
const FILE: &str = "/run/bench-saved/file";

/// The guest's console while it has its first domain.
const CONSOLE: &str = "/var/log/xen/console/guest-bench.log";

/// How often the domains are looked at during a migration.
const LOOK: Duration = Duration::from_millis(1);

/// How long a guest that was restored or has arrived runs before the next step.
const REST: Duration = Duration::from_secs(3);

/// A guest: PVH with the small Linux.
struct Mover {
    title: &'static str,
    mib: u64,
    /// What it does besides.
    words: &'static str,
    /// What is measured.
    steps: &'static [Step],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Save,
    Restore,
    Migrate,
    Downtime,
}

use Step::{Downtime, Migrate, Restore, Save};

const MOVERS: [Mover; 4] = [
    Mover { title: "PVH 256 MiB", mib: 256, words: "guest.touch=16", steps: &[Save, Restore] },
    Mover { title: "PVH 256 MiB, live", mib: 256, words: "guest.touch=16", steps: &[Migrate, Downtime] },
    Mover {
        title: "PVH 256 MiB, live, writes to 8 MiB without end",
        mib: 256,
        words: "guest.dirty=8",
        steps: &[Migrate, Downtime],
    },
    Mover { title: "PVH 2 GiB", mib: 2048, words: "guest.touch=16", steps: &[Save, Restore] },
];

impl Step {
    const fn title(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Restore => "restore",
            Self::Migrate => "migrate",
            Self::Downtime => "migrate: downtime",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Dombuild,
    Xl,
}

impl By {
    const fn title(self) -> &'static str {
        match self {
            Self::Dombuild => "dombuild",
            Self::Xl => "xl",
        }
    }

    fn words(self, step: Step) -> Vec<String> {
        let text = match (self, step) {
            (Self::Dombuild, Save) => format!("dombuild save {NAME} {FILE}"),
            (Self::Dombuild, Restore) => format!("dombuild restore {FILE}"),
            (Self::Dombuild, _) => format!("dombuild migrate {NAME} --ssh  dombuild^migrate-receive"),
            (Self::Xl, Save) => format!("xl save {NAME} {FILE}"),
            (Self::Xl, Restore) => format!("xl restore {FILE}"),
            (Self::Xl, _) => format!("xl migrate -s  {NAME} xl^migrate-receive"),
        };
        text.split(' ').map(|word| word.replace('^', " ")).collect()
    }
}

/// What was measured: nanoseconds and KiB of memory of each run.
type Measured = BTreeMap<(Step, By), Vec<(u64, u64)>>;

/// Measures all, or those with one of these words in their titles, and makes a table.
pub(crate) fn table(bench: &Bench, version: &str, wanted: &[&str]) -> String {
    fs::create_dir_all(FOLDER).expect("a folder");
    shell(&format!("mount -t tmpfs -o size=95% saved {FOLDER}"));
    let mut text = format!(
        "| Xen {version} | | dombuild, virtual ms | ± | xl, virtual ms | ± | × xl | dombuild, resident MiB |\n\
         |:---|:---|---:|---:|---:|---:|---:|---:|\n"
    );
    for mover in MOVERS.iter().filter(|mover| wanted.is_empty() || wanted.iter().any(|word| mover.title.contains(word)))
    {
        rows(&mut text, mover, &measure(bench, mover));
    }
    text
}

fn rows(text: &mut String, mover: &Mover, measured: &Measured) {
    let mut title = mover.title;
    for step in mover.steps {
        let of = |by| {
            let mut all = measured[&(*step, by)].clone();
            all.sort_unstable();
            let (least, most) = (all[0].0, all[all.len() - 1].0);
            let resident = all.iter().map(|(_, kib)| *kib).max().unwrap_or(0);
            (ms(all[all.len() / 2].0), ms(most - least) / 2.0, ms(resident * 1_000_000 / 1024))
        };
        let ((ours, spread, mib), (xls, xl_spread, _)) = (of(By::Dombuild), of(By::Xl));
        let resident = if *step == Downtime { String::new() } else { format!("{mib:.1}") };
        let row = format!(
            "| {title} | {} | {ours:.0} | {spread:.0} | {xls:.0} | {xl_spread:.0} | {:.2} | {resident} |",
            step.title(),
            ours / xls
        );
        eprintln!("{row}");
        let _ = writeln!(text, "{row}");
        title = "";
    }
}

fn measure(bench: &Bench, mover: &Mover) -> Measured {
    let words = format!("--kind pvh --memory {} --kernel {GUEST_KERNEL} --ramdisk {GUEST_INITRD}", mover.mib);
    let command_line = format!("console=hvc0 tsc=unstable {}", mover.words);
    let mut all = vec!["create", "--name", NAME, "--cmdline", &command_line];
    all.extend(words.split(' '));
    let _ = fs::remove_file(CONSOLE);
    dombuild(&all).success();
    let last = if mover.words.contains("touch") { "guest: touched" } else { "guest: ready" };
    let console = || String::from_utf8_lossy(&fs::read(CONSOLE).unwrap_or_default()).into_owned();
    wait_for("the guest is up", 300, || console().contains(last));
    let mut measured = Measured::new();
    for round in 0..=REPEATS {
        for by in [By::Xl, By::Dombuild] {
            thread::sleep(REST);
            for (step, ns, kib) in if mover.steps.contains(&Save) { saved(bench, by) } else { migrated(bench, by) } {
                eprintln!("{}, {} {}: {:.1} ms", mover.title, by.title(), step.title(), ms(ns));
                if round > 0 {
                    measured.entry((step, by)).or_default().push((ns, kib));
                }
            }
        }
    }
    dombuild(&["destroy", NAME, "--force"]).success();
    bench.settle();
    measured
}

/// Saves the guest and, once Xen has scrubbed its memory, restores it.
fn saved(bench: &Bench, by: By) -> Vec<(Step, u64, u64)> {
    let step = |step| {
        let Ran { ns, rss_kib, .. } = run::launch(false, &by.words(step));
        (step, ns, rss_kib)
    };
    let save = step(Save);
    bench.settle();
    let restore = step(Restore);
    fs::remove_file(FILE).expect("removed");
    vec![save, restore]
}

/// Migrates the guest within this host.
fn migrated(bench: &Bench, by: By) -> Vec<(Step, u64, u64)> {
    let ended = AtomicBool::new(false);
    let (ran, downtime) = thread::scope(|scope| {
        let watcher = scope.spawn(|| downtime(&ended));
        let ran = run::launch(false, &by.words(Migrate));
        ended.store(true, Ordering::Relaxed);
        (ran, watcher.join().expect("it ends"))
    });
    let downtime = u64::try_from(downtime.as_nanos()).expect("seconds");
    bench.rest();
    vec![(Migrate, ran.ns, ran.rss_kib), (Downtime, downtime, 0)]
}

/// The time between the guest's suspension in one domain and its run in another, as Xen shows both to whoever asks.
fn downtime(ended: &AtomicBool) -> Duration {
    let xen = Interface::open().expect("Xen");
    let guests = || xen.domains().expect("domains").into_iter().filter(|domain| domain.domid.get() != 0);
    let source = guests().next().expect("the guest").domid;
    let is_suspended = |domain: &DomainInfo| domain.domid == source && domain.shutdown == Some(ShutdownReason::Suspend);
    let runs = |domain: &DomainInfo| domain.domid != source && !domain.paused && domain.shutdown.is_none();
    let until = |seen: &dyn Fn(&DomainInfo) -> bool| {
        while !guests().any(|domain| seen(&domain)) {
            assert!(!ended.load(Ordering::Relaxed), "the migration has ended");
            thread::sleep(LOOK);
        }
        Instant::now()
    };
    let suspended = until(&is_suspended);
    until(&runs) - suspended
}
