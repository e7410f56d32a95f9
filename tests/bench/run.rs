//! Programs, run by the launcher that takes their time, or under strace, which counts what they ask of Xen and xenstored.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Where a measured program's output goes: memory, not a disk.
const OUTPUT: &str = "/tmp/bench-output";
const TRACE: &str = "/tmp/bench-trace";

/// How a program's run went.
#[derive(Debug)]
pub(crate) struct Ran {
    /// From spawn to exit.
    pub(crate) ns: u64,
    /// The most that it, or a process of its that it waited for, had in memory at once.
    pub(crate) rss_kib: u64,
    /// What it wrote to descriptor 7, each line with its time since spawn.
    pub(crate) lines: Vec<(u64, String)>,
    /// What it printed.
    pub(crate) output: String,
}

/// Calls that cross a border, by the program itself; those of a QEMU that it starts do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calls {
    /// ioctls on privcmd: hypercalls, and mappings of guests' memory.
    pub(crate) xen: u32,
    /// Round trips to xenstored: pieces of one request or more that are written, and answered.
    pub(crate) xenstore: u32,
}

/// Runs a program that must succeed; `lines` gives it descriptors 7, a pipe, and 8, zeros without end.
pub(crate) fn launch(lines: bool, words: &[String]) -> Ran {
    let option: &[&str] = if lines { &["-l"] } else { &[] };
    let output = Command::new("launch").args(option).arg(OUTPUT).args(words).output().expect("the launcher");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let printed = fs::read_to_string(OUTPUT).expect("its output");
    let mut numbered: Vec<_> = said.lines().filter_map(|line| line.split_once(' ')).collect();
    let (ns, rest) = numbered.pop().unwrap_or_else(|| panic!("{words:?}: the launcher failed: {output:?}"));
    let (status, rss) = rest.split_once(' ').expect("a status and a size");
    assert_eq!(status, "0", "{words:?}: {said}{printed}");
    let number = |text: &str| text.parse().expect("a number");
    Ran {
        ns: number(ns),
        rss_kib: number(rss),
        lines: numbered.into_iter().map(|(ns, line)| (number(ns), line.to_owned())).collect(),
        output: printed,
    }
}

/// Runs it under strace; [`calls`] has what came of that once nothing of it runs any more.
pub(crate) fn trace(lines: bool, words: &[String]) -> Ran {
    // -D: the program ends for us when it ends, and not with the QEMU that it leaves. -y names what a descriptor is.
    let strace = "strace -D -f -y -x -s 4 -e trace=ioctl,write,writev,sendmsg,sendto,execve,clone,clone3,fork,vfork -o";
    let strace = strace.split(' ').map(str::to_owned).chain([TRACE.to_owned()]);
    launch(lines, &strace.chain(words.iter().cloned()).collect::<Vec<_>>())
}

/// The calls of the program that was traced last.
pub(crate) fn calls() -> Calls {
    count_in(&fs::read_to_string(TRACE).expect("a trace"))
}

fn count_in(trace: &str) -> Calls {
    let lines: Vec<(&str, &str)> = trace.lines().filter_map(|line| line.split_once(' ')).collect();
    let executed = lines.iter().filter(|(_, call)| call.contains("execve(") && call.contains("qemu"));
    let mut qemu: BTreeSet<&str> = executed.map(|(process, _)| *process).collect();
    // Its threads and children, and theirs.
    loop {
        let forks = lines.iter().filter(|(process, call)| {
            qemu.contains(process) && ["clone", "fork"].iter().any(|name| call.contains(name))
        });
        let made: Vec<_> = forks.filter_map(|(_, call)| call.rsplit_once("= ")).map(|(_, number)| number).collect();
        let before = qemu.len();
        qemu.extend(made);
        if qemu.len() == before {
            break;
        }
    }
    let count = |wanted: &dyn Fn(&str) -> bool| {
        let own = lines.iter().filter(|(process, call)| !qemu.contains(process) && wanted(call));
        u32::try_from(own.count()).expect("few")
    };
    Calls {
        xen: count(&|call| call.contains("ioctl(") && call.contains("/xen/privcmd>")),
        // A request's header begins with its type, a small 32-bit number; whatever else goes to a socket is text.
        xenstore: count(&|call| call.contains("<socket:") && call.contains("\\x00\\x00\\x00\"")),
    }
}
