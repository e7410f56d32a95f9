//! Compiles calls and verdicts to classic BPF with a binary search.
//!
//! Since Linux 5.11, the kernel runs the program once per call number when it is installed
//! (`seccomp_cache_prepare_bitmap`, kernel/seccomp.c); older kernels run it at each call. A chain of comparisons, as
//! seccompiler makes it, costs 8 ms of the 165 ms of each QEMU start (in virtual time); this program costs 0.1 ms.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, sock_filter};

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The kernel executes it.
    Allowed,
    /// It fails with `ENOSYS`, as on a kernel without it.
    Absent,
    /// It kills the process.
    Killed,
}

/// The rule for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same outcome for all arguments.
    Always(Outcome),
    /// The outcome depends on the low 32 bits of one argument, counted from 0.
    Depends { argument: u32, on: Test, then: Outcome, otherwise: Outcome },
}

/// The test of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// It equals one of these values, at most 254.
    OneOf(Vec<u32>),
    /// It has one of these bits.
    Bits(u32),
}

const KILLED: Verdict = Verdict::Always(Outcome::Killed);

/// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_X86_64` (linux/audit.h).
const X86_64: u32 = 0xc000_003e;

/// Compiles the rules. Calls without a rule are killed, and so are calls of another architecture.
pub(super) fn program(calls: &BTreeMap<u32, Verdict>, newer: std::ops::Range<u32>) -> BpfProgram {
    let mut all = vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, X86_64, 1, 0), give(Outcome::Killed), load(NUMBER)];
    all.extend(search(&ranges(calls, newer)));
    all
}

/// The verdicts by the first call number of each range, sorted; the first range begins at 0. Numbers in `newer` without
/// a rule are `Absent`.
fn ranges(calls: &BTreeMap<u32, Verdict>, newer: std::ops::Range<u32>) -> Vec<(u32, Verdict)> {
    let mut ranges = vec![(0, KILLED)];
    let mut begin = |start: u32, verdict: Verdict| {
        ranges.pop_if(|(last, _)| *last == start);
        if ranges.last().is_none_or(|(_, before)| *before != verdict) {
            ranges.push((start, verdict));
        }
    };
    for (call, verdict) in calls.range(..newer.start) {
        begin(*call, verdict.clone());
        begin(call + 1, KILLED);
    }
    begin(newer.start, Verdict::Always(Outcome::Absent));
    begin(newer.end, KILLED);
    ranges
}

fn search(ranges: &[(u32, Verdict)]) -> BpfProgram {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    match (low, high) {
        ([], [(_, verdict)]) => leaf(verdict),
        (_, [(start, _), ..]) => {
            let (low, high) = (search(low), search(high));
            // The distance to the other half does not fit into eight bits.
            let over = u32::try_from(low.len()).unwrap_or(u32::MAX);
            let choice = [jump(libc::BPF_JGE, *start, 0, 1), jump(libc::BPF_JA, over, 0, 0)];
            choice.into_iter().chain(low).chain(high).collect()
        }
        (_, []) => vec![give(Outcome::Killed)],
    }
}

fn leaf(verdict: &Verdict) -> BpfProgram {
    let (argument, on, then, otherwise) = match verdict {
        Verdict::Always(outcome) => return vec![give(*outcome)],
        Verdict::Depends { argument, on, then, otherwise } => (argument, on, then, otherwise),
    };
    let mut all = vec![load(ARGUMENTS + 8 * argument)];
    match on {
        // Each jumps over the remaining ones and over `otherwise`.
        Test::OneOf(values) => all.extend(
            (1..=values.len())
                .rev()
                .zip(values)
                .map(|(over, value)| jump(libc::BPF_JEQ, *value, u8::try_from(over).unwrap_or(0), 0)),
        ),
        Test::Bits(bits) => all.push(jump(libc::BPF_JSET, *bits, 1, 0)),
    }
    all.extend([give(*otherwise), give(*then)]);
    all
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump(kind: u32, value: u32, if_so: u8, if_not: u8) -> sock_filter {
    instruction(libc::BPF_JMP | kind | libc::BPF_K, value, if_so, if_not)
}

fn give(outcome: Outcome) -> sock_filter {
    let value = match outcome {
        Outcome::Allowed => libc::SECCOMP_RET_ALLOW,
        Outcome::Absent => libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        Outcome::Killed => libc::SECCOMP_RET_KILL_PROCESS,
    };
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}
