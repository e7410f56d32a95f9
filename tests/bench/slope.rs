//! What each verb costs on a host where many guests stand: dombuild's next to xl's.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::figures::ms;
use super::run::{self, Calls};
use super::support::{dombuild, shell};
use super::ways::Bench;

/// How many guests stand. Both programs' time for one more is the slope between the first and [`STEEP`].
pub(crate) const LEVELS: [u32; 6] = [0, 50, 100, 150, 250, 500];
const STEEP: u32 = 150;
/// How often each is timed; the median counts.
const REPEATS: usize = 3;

const NAME: &str = "one-more";
const XL_CONFIG: &str = "/tmp/slope.cfg";
/// MiB of a guest that stands; nothing of it ever runs.
const SMALLEST: u32 = 4;
/// MiB of the one that is made. For xl the paging pool is named: the one that xl of Xen 4.17 chooses is too small for Xen.
const MEMORY: u32 = 8;

/// What is measured, in this order: a guest that `create` makes is there for the verbs up to `destroy`.
const VERBS: [(&str, [&str; 2]); 6] = [
    ("create", ["dombuild create", "xl create -p"]),
    ("inspect", ["dombuild inspect", "xl list -l"]),
    ("list", ["dombuild list", "xl list"]),
    ("destroy", ["dombuild destroy", "xl destroy"]),
    ("dry run", ["dombuild create --dry-run", ""]),
    ("cleanup", ["dombuild cleanup", ""]),
];

/// The time of a verb of one of both programs, and its calls.
pub(crate) struct Point {
    verb: &'static str,
    program: &'static str,
    pub(crate) standing: u32,
    /// Of each run, in order of size.
    pub(crate) ns: Vec<u64>,
    pub(crate) calls: Calls,
}

impl Point {
    /// The median, in milliseconds.
    fn ms(&self) -> f64 {
        ms(self.ns[REPEATS / 2])
    }

    /// What it is in a list of figures.
    pub(crate) fn title(&self) -> String {
        format!("{} with {} guests", self.program, self.standing)
    }
}

/// Measures at each level, of which the first is 0, and tears all down again: nothing is left.
pub(crate) fn measure(bench: &Bench, levels: &[u32], programs: &[usize]) -> Vec<Point> {
    let left = || (shell("xenstore-ls -f"), shell("ls /var/lib/xen /run/dombuild/names"));
    let mut before = None;
    let mut points = Vec::new();
    let mut standing = 0;
    for level in levels {
        for number in standing..*level {
            shell(&format!("dombuild {}", flags(&format!("stands-{number}"), SMALLEST)));
        }
        standing = *level;
        bench.rest();
        for program in programs {
            points.extend(at(bench, standing, *program));
        }
        // The first guest of xl's leaves directories behind.
        before.get_or_insert_with(left);
    }
    let rows = dombuild(&["list"]).success().json();
    assert_eq!(rows.as_array().map(Vec::len), Some(standing as usize + 1), "they stand, and dom0");
    for number in 0..standing {
        let name = format!("stands-{number}");
        if number % 50 == 0 {
            let inspected = dombuild(&["inspect", &name]).success().json();
            assert_eq!(inspected["differences"].as_array().map(Vec::len), Some(0), "{inspected}");
        }
        dombuild(&["destroy", &name]).success();
    }
    bench.settle();
    assert_eq!(Some(left()), before, "nothing is left");
    points
}

/// Every verb of a program, with that many guests.
fn at(bench: &Bench, standing: u32, program: usize) -> Vec<Point> {
    let verbs: Vec<_> = VERBS.iter().filter(|(_, programs)| !programs[program].is_empty()).collect();
    let mut times = vec![Vec::new(); verbs.len()];
    let mut calls = Vec::new();
    for round in 0..=REPEATS {
        for ((verb, _), times) in verbs.iter().zip(&mut times) {
            let words = words_of(program, verb);
            if round == 0 {
                run::trace(false, &words);
                calls.push(run::calls());
            } else {
                times.push(run::launch(false, &words).ns);
            }
            bench.rest();
        }
    }
    let points = verbs.iter().zip(times).zip(calls).map(|(((verb, programs), mut times), calls)| {
        times.sort_unstable();
        let point = Point { verb, program: programs[program], standing, ns: times, calls };
        eprintln!("{}: {:.2} ms, {calls:?}", point.title(), point.ms());
        point
    });
    points.collect()
}

fn kernel() -> String {
    shell("command -v readback-guest").trim().to_owned()
}

/// dombuild's arguments for a guest of this size.
fn flags(name: &str, memory: u32) -> String {
    format!("create --name {name} --kind pvh --memory {memory} --kernel {} --paused", kernel())
}

fn words_of(program: usize, verb: &str) -> Vec<String> {
    let text = match (program, verb) {
        (0, "create") => format!("dombuild {}", flags(NAME, MEMORY)),
        (0, "dry run") => format!("dombuild {} --dry-run", flags(NAME, MEMORY)),
        (0, "inspect" | "destroy") => format!("dombuild {verb} {NAME}"),
        (0, _) => format!("dombuild {verb}"),
        (_, "create") => {
            let config =
                format!("type='pvh'\nname='{NAME}'\nmemory={MEMORY}\nshadow_memory=2\nkernel='{}'\n", kernel());
            fs::write(XL_CONFIG, config).expect("written");
            format!("xl create -p {XL_CONFIG}")
        }
        (_, "inspect") => format!("xl list -l {NAME}"),
        (_, "list") => "xl list".to_owned(),
        (_, _) => format!("xl {verb} {NAME}"),
    };
    text.split(' ').map(str::to_owned).collect()
}

/// The table, and the curves as a picture, in the folder of the results.
pub(crate) fn write(points: &[Point], version: &str) {
    let table = table(points, version);
    print!("{table}");
    fs::write("/results/slope.md", table).expect("written");
    fs::write(Path::new("/results/slope.svg"), super::curves::draw(&curves(points), version)).expect("written");
}

/// The points of each program and verb, in the order of the verbs.
fn series(points: &[Point]) -> Vec<(&'static str, usize, Vec<&Point>)> {
    let all = VERBS.iter().flat_map(|(verb, programs)| programs.iter().enumerate().map(move |one| (verb, one)));
    let all = all.map(|(verb, (program, title))| {
        let own = points.iter().filter(|point| point.verb == *verb && point.program == *title);
        (*title, program, own.collect::<Vec<_>>())
    });
    all.filter(|(_, _, points)| !points.is_empty()).collect()
}

fn table(points: &[Point], version: &str) -> String {
    let heads: String = LEVELS.iter().map(|level| format!(" {level} |")).collect();
    let mut text = format!(
        "| Xen {version}, virtual ms with this many guests |{heads} for each of {STEEP} | hypercalls | xenstore |\n\
         |:---|{} ---:|---:|---:|\n",
        " ---:|".repeat(LEVELS.len())
    );
    for (title, _, points) in series(points) {
        let _ = write!(text, "| `{title}` |");
        for point in &points {
            let _ = write!(text, " {:.1} |", point.ms());
        }
        let at = |level| points.iter().find(|point| point.standing == level);
        let (Some(first), Some(last)) = (at(0), at(STEEP)) else { continue };
        let slope = (last.ms() - first.ms()) / f64::from(STEEP);
        let calls = |of: fn(&Calls) -> u32| format!("{} → {}", of(&first.calls), of(&last.calls));
        let _ = writeln!(text, " {slope:.2} | {} | {} |", calls(|calls| calls.xen), calls(|calls| calls.xenstore));
    }
    text
}

/// Virtual milliseconds by the number of guests; dombuild's are drawn as one, xl's as the other.
fn curves(points: &[Point]) -> Vec<super::curves::Curve> {
    series(points)
        .into_iter()
        .map(|(title, program, points)| super::curves::Curve {
            title: title.to_owned(),
            of_xl: program == 1,
            points: points.iter().map(|point| (f64::from(point.standing), point.ms())).collect(),
        })
        .collect()
}
