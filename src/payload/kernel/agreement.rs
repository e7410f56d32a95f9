//! Compares this loader with libxenguest's, over generated kernels.
//!
//! libxenguest is the reference: it gets the same file, and the plain file made from it. What it accepts is accepted
//! here, with the same memory, entry and features, or refused for a reason that docs/interface.md names.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::process::Command;

use super::elf::{Program, Ram, end_of_program};
use super::generated_kernels::generated;
use super::odd_kernels::{odd_forms, tolerated};
use super::plain_elf;
use super::plain_elf::tests::written;
use crate::memory::{Bytes, Kind, Mib};
use crate::xen::libxenguest::{Taken, load};

const SIZE: Mib = Mib(64);

const RAM: Ram = Ram { end: Bytes(64 << 20), most: Some(Bytes(0xfc00_0000)) };

/// The number of kernels, each as PVH and as PV; with `DOMBUILD_TEST_FULL=1`, ten times as many.
const KERNELS: u64 = 12_000;

/// Words of a refusal, and the text of docs/interface.md for that reason.
const REASONS: [(&str, &str); 9] = [
    ("is cut off: a segment has", "A segment whose bytes are not all in the file"),
    ("in the file and", "A segment with more bytes in the file than in memory"),
    ("goes beyond any address", "A segment that wraps around the end of the address space"),
    ("more than twice the memory", "Segments that take more than twice the memory in which they are"),
    ("has VIRT_BASE", "A VIRT_BASE that is not a multiple of 4096"),
    ("has its hypercall page", "A hypercall page where the guest has no memory"),
    ("has its entry point at", "A 32-bit file without notes for PVH that starts outside of itself"),
    (
        "has the table of its frames at",
        "A 32-bit file without notes for PVH that has the table of its frames within itself",
    ),
    ("too large", "More to load than 512 MiB"),
];

/// The results for the kernels.
#[derive(Debug, Default)]
struct Counts {
    both: u64,
    neither: u64,
    /// Refused only here, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Accepted only here, by the step at which libxenguest refuses it.
    taken: BTreeMap<&'static str, u64>,
    /// Accepted by libxenguest's firmware loader.
    as_firmware: u64,
    /// Read to the end of the program alone.
    starts: u64,
    surprises: Vec<String>,
}

impl Counts {
    fn compare(&mut self, name: &str, file: &[u8], kind: Kind) {
        // Symbols behind the program change nothing, and are not read.
        let long = [file, &[0xa5; 1 << 14]].concat();
        let head = long.get(..file.len().min(1 << 12)).unwrap_or_default();
        if let Some(start) = end_of_program(head, long.len()).and_then(|end| long.get(..end))
            && let Some(program) = Program::parse_start(start, long.len())
        {
            self.starts += 1;
            if Program::parse(&long).as_ref() != Ok(&program) {
                self.surprises.push(format!("{name} as {kind}: its start and the whole file are two programs"));
            }
        }
        let theirs = load(file, kind, SIZE);
        let ours = written(file).and_then(|plain| plain_elf::check(&plain, kind, RAM).map(|()| plain));
        match (theirs, ours) {
            (Err(_), Err(_)) => self.neither += 1,
            (Ok(theirs), Ok(plain)) => {
                self.both += 1;
                self.as_firmware += u64::from(theirs.memory.is_none());
                match load(&plain, kind, SIZE) {
                    Ok(again) => {
                        if let Some(what) = difference(&theirs, &again) {
                            self.surprises.push(format!("{name} as {kind}: {what} differ"));
                        }
                    }
                    Err(step) => self.surprises.push(format!("{name} as {kind}: {step} refuses the plain file")),
                }
            }
            (Ok(_), Err(reason)) => match REASONS.iter().find(|(words, _)| reason.contains(words)) {
                Some((_, reason)) => *self.refused.entry(reason).or_default() += 1,
                None => self.surprises.push(format!("{name} as {kind}: refused without a documented reason: {reason}")),
            },
            (Err(step), Ok(_)) => {
                *self.taken.entry(step).or_default() += 1;
                self.surprises.push(format!("{name} as {kind}: taken, and libxenguest refuses it ({step})"));
            }
        }
    }

    fn shown(&self) -> String {
        let Self { both, neither, as_firmware, .. } = self;
        let mut text =
            format!("taken by both: {both}, {as_firmware} of them as firmware\nrefused by both: {neither}\n");
        for (what, counts) in [("refused here alone", &self.refused), ("taken here alone", &self.taken)] {
            let _ = writeln!(text, "{what}: {}", counts.values().sum::<u64>());
            for (reason, count) in counts {
                let _ = writeln!(text, "  {count}: {reason}");
            }
        }
        text
    }
}

/// The differences between two images.
fn difference(theirs: &Taken, ours: &Taken) -> Option<&'static str> {
    if theirs.guest_type != ours.guest_type {
        return Some("types");
    }
    // The firmware loader sets its entry, and maps its memory by physical addresses, in Xen.
    let memory = theirs.memory.as_ref()?;
    if theirs.first != ours.first {
        return Some("places");
    }
    if Some(memory) != ours.memory.as_ref() {
        return Some("memory");
    }
    if theirs.addresses != ours.addresses {
        return Some("addresses");
    }
    (theirs.features != ours.features).then_some("features")
}

#[test]
fn odd_kernels_become_what_libxenguest_makes_of_them() {
    let mut counts = Counts::default();
    let forms = odd_forms().into_iter().map(|(name, file)| (name, file, &[Kind::Pvh, Kind::Pv][..]));
    let mut wanted = 0;
    for (name, file, kinds) in forms.chain(tolerated()) {
        for kind in kinds {
            counts.compare(name, &file, *kind);
            wanted += 1;
            assert_eq!((&counts.surprises, counts.both), (&Vec::new(), wanted), "{name} as {kind}");
        }
    }
}

/// The comparison runs in a separate process: the reference is C code, and its input is hostile.
#[test]
fn generated_kernels_are_taken_as_by_libxenguest() {
    let name = format!("{}::compare_generated_kernels", module_path!().split_once("::").expect("a path").1);
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(text.contains("taken by both: "), "{text}");
}

#[test]
#[ignore = "generated_kernels_are_taken_as_by_libxenguest runs it in a process of its own"]
fn compare_generated_kernels() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let count = if number("DOMBUILD_TEST_FULL") == Some(1) { 10 * KERNELS } else { KERNELS };
    let first = number("DOMBUILD_TEST_SEED").unwrap_or(1);
    let mut counts = Counts::default();
    for seed in first..first + count {
        let file = generated(seed);
        for kind in [Kind::Pvh, Kind::Pv] {
            counts.compare(&format!("seed {seed}"), &file, kind);
        }
    }
    println!("{count} kernels from seed {first} on, as PVH and as PV\n{}", counts.shown());
    let (first, all) = (counts.surprises.iter().take(20).collect::<Vec<_>>(), counts.surprises.len());
    assert_eq!(all, 0, "{first:#?}");
    // Otherwise the generator would make nothing to compare.
    assert!(counts.both > count / 2 && counts.neither > count / 10, "{}", counts.shown());
    assert!(counts.starts > count / 2, "{} were read to the end of the program alone", counts.starts);
}

#[test]
fn every_reason_is_documented() {
    let document = include_str!("../../../docs/interface.md");
    for (_, reason) in REASONS {
        assert!(document.contains(reason), "docs/interface.md does not say: {reason}");
    }
}
