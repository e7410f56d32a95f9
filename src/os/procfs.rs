//! Process information from `/proc` (proc(5)).

use std::fs;

use super::untrusted::Untrusted;

/// The start time of a process in clock ticks since boot, which with its number identifies it. `None` if there is no
/// such process, or it is a zombie.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    let (state, fields) = stat(pid)?;
    (!matches!(state.as_str(), "Z" | "X")).then_some(())?;
    // Field 22, counted from 1; this list lacks the first three.
    fields.get(22 - 4)?.parse().ok()
}

/// The command name of a process, which the process chooses: at most 15 bytes, untrusted.
#[must_use]
pub fn name(pid: i32) -> Option<Untrusted> {
    let text = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Untrusted::from_bytes(text.strip_suffix(b"\n").unwrap_or(&text)))
}

/// The real user of a process. (The owner of its directory in /proc is root if the process is not dumpable.)
#[must_use]
pub fn user(pid: i32) -> Option<u32> {
    // The file contains the command name too, which need not be UTF-8; a line break in it is escaped.
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// All process IDs.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// This process and its ancestors, the nearest first.
#[must_use]
pub fn lineage() -> Vec<i32> {
    let mut pids = Vec::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|pid| *pid > 0 && !pids.contains(pid)) {
        pids.push(pid);
        next = stat(pid).and_then(|(_, fields)| fields.first()?.parse().ok());
    }
    pids
}

/// The process group of a process; `None` if there is no such process.
#[must_use]
pub fn group(pid: i32) -> Option<i32> {
    let (_, fields) = stat(pid)?;
    fields.get(1)?.parse().ok()
}

/// The command line of a process, which the process can change; empty if it has ended.
#[must_use]
pub fn command_line(pid: i32) -> Vec<Vec<u8>> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// The state of a process and the fields after it.
fn stat(pid: i32) -> Option<(String, Vec<String>)> {
    let text = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<(String, Vec<String>)> {
    // The command name is in parentheses, and may contain blanks and parentheses.
    let mut words = text.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned);
    Some((words.next()?, words.collect()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    fn own() -> i32 {
        i32::try_from(id()).expect("a pid")
    }

    #[test]
    fn a_name_may_have_anything_in_it() {
        let text = "7 (a) S 1 (b c) R 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 4711 23";
        let (state, fields) = parse_stat(text).expect("a state");
        assert_eq!((state.as_str(), fields[0].as_str()), ("R", "5"));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn this_process_lives_and_its_parent_is_known() {
        assert!(start_time(own()).is_some_and(|ticks| ticks > 0));
        let lineage = lineage();
        assert_eq!(lineage[0], own());
        assert_eq!(lineage[1], i32::try_from(std::os::unix::process::parent_id()).expect("a pid"));
        assert!(name(own()).is_some_and(|name| !name.raw_for_comparison().is_empty()));
        assert_eq!(user(own()), Some(nix::unistd::Uid::current().as_raw()));
        assert!(pids().any(|pid| pid == own()));
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_dead() {
        let mut child = Command::new("true").spawn().expect("it starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while start_time(pid).is_some() {
            assert!(std::time::Instant::now() < end, "it does nothing");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(child.wait().expect("waited for").success());
        assert_eq!(start_time(pid), None);
    }
}
