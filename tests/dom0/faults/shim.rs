//! Runs of dombuild's under tests/nested/fault-shim.c, and what that knows.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;

use elf::ElfBytes;
use elf::endian::AnyEndian;
use nix::errno::Errno;

use super::super::sample::{self, Random};
use super::super::support::{DOMBUILD, Ran, file, path_text, shell};
use super::count;

/// Calls of dombuild's or libxenguest's that are not made to fail, and why not.
const WITHOUT_STUB: &[(&str, &str)] = &[
    ("xc_interface_close", "gives back what the process has, and has nobody to tell"),
    ("xc_dom_release", "returns nothing"),
    ("xc_dom_pfn_to_ptr", "what can fail in it is a mapping, which is counted below it"),
    ("xc_cpu_policy_destroy", "returns nothing"),
    ("xc_cpupool_infofree", "returns nothing"),
    ("xc__hypercall_bounce_post", "returns nothing"),
    ("xc__hypercall_buffer_free", "returns nothing"),
    ("xc__hypercall_buffer_free_pages", "returns nothing"),
    ("xc_report", "writes the log"),
    ("xc_report_error", "writes the log"),
    ("xc_report_progress_single", "writes the log"),
    ("xc_report_progress_step", "writes the log"),
    ("xc_reportv", "writes the log"),
    ("xc_set_progress_prefix", "writes the log"),
    ("xc_strerror", "makes a text"),
];

/// A call as the shim counts it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    /// The function that dombuild called.
    pub(crate) outer: String,
    /// That one, or one below it.
    pub(crate) inner: String,
}

/// A run of dombuild's under the shim.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) ran: Ran,
    pub(crate) calls: Vec<Call>,
}

impl Traced {
    /// The calls up to the one of this number, where it came so far.
    pub(super) fn until(&self, point: usize) -> &[Call] {
        self.calls.get(..=point).unwrap_or(&self.calls)
    }
}

fn shim() -> PathBuf {
    let path = env::current_exe().expect("this program").with_file_name("fault-shim.so");
    assert!(path.exists(), "{} is missing: build it from tests/nested/fault-shim.c", path.display());
    path
}

pub(crate) fn traced(arguments: &[&str], faults: &[(usize, Errno)]) -> Traced {
    let log = file(b"");
    let wanted: Vec<String> = faults.iter().map(|(number, errno)| format!("{number}:{}", *errno as i32)).collect();
    let output = Command::new(DOMBUILD)
        .arg("--json")
        .args(arguments)
        .env("LD_PRELOAD", shim())
        .env("DOMBUILD_FAULTS_LOG", &log)
        .env("DOMBUILD_FAULTS", wanted.join(","))
        .output();
    // Behind the lines it is a hole.
    let mut text = Vec::new();
    let log = File::open(&log).expect("the log");
    BufReader::new(log).read_until(0, &mut text).expect("readable");
    let text = String::from_utf8_lossy(&text);
    let mut calls = Vec::new();
    for line in text.trim_end_matches('\0').lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        // The third says whether it was made to fail.
        let mut word = || words.next().expect("three words");
        calls.push(Call { outer: word(), inner: word() });
    }
    Traced { ran: Ran::new(&output.expect("it starts")), calls }
}

/// The numbers of calls to let fail: of those `among`, the ones that were asked for, or all in a full run; else so many, each
/// of another kind.
pub(super) fn points(calls: &[Call], among: &[usize], purpose: &str, wanted: u64) -> Vec<usize> {
    if let Some(ranges) = sample::calls() {
        let named = |index: &usize| ranges.iter().any(|range| range.contains(index));
        return among.iter().copied().filter(named).collect();
    }
    if sample::full() {
        return among.to_vec();
    }
    let mut kinds: BTreeMap<&Call, Vec<usize>> = BTreeMap::new();
    for index in among {
        kinds.entry(&calls[*index]).or_default().push(*index);
    }
    let kinds: Vec<_> = kinds.into_values().collect();
    let mut random = Random::new(purpose);
    let chosen = random.sample(count(kinds.len()), wanted);
    chosen
        .into_iter()
        .map(|kind| {
            let kind = &kinds[usize::try_from(kind).expect("small")];
            kind[usize::try_from(random.below(count(kind.len()))).expect("small")]
        })
        .collect()
}

/// What a file takes from libraries, or gives, among Xen's calls.
fn symbols(path: &str, taken: bool) -> Vec<String> {
    let data = fs::read(path).expect("readable");
    let elf = ElfBytes::<AnyEndian>::minimal_parse(&data).expect("an ELF file");
    let (table, names) = elf.dynamic_symbol_table().expect("readable").expect("there");
    table
        .iter()
        .filter(|symbol| symbol.is_undefined() == taken)
        .map(|symbol| names.get(usize::try_from(symbol.st_name).expect("small")).expect("a name").to_owned())
        .filter(|name| name.starts_with("xc_"))
        .collect()
}

pub(super) fn every_call_has_a_stub() {
    let stubs = symbols(path_text(&shim()), false);
    let program = shell("command -v dombuild");
    let library = shell("ldd $(command -v dombuild) | awk '/libxenguest/ { print $3 }'");
    for caller in [program.trim(), library.trim()] {
        let calls = symbols(caller, true);
        assert!(calls.len() > 10, "{caller}: {calls:?}");
        for call in calls {
            let exempt = WITHOUT_STUB.iter().any(|(name, _)| *name == call);
            assert!(
                exempt || stubs.contains(&call),
                "{caller} calls {call}: give it a line in tests/nested/fault-shim.c"
            );
            assert!(!exempt || !stubs.contains(&call), "{call} is no exception any more");
        }
    }
}
